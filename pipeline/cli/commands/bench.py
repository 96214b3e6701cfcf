"""`featurecache bench`: speed on this machine, compared with other tools."""

from featurecache.cli.group import Group

NAMES = ("extract", "heads", "classify", "finetune", "starts", "warm", "pipeline", "gpu", "rerun", "quick", "serve")

command = Group(
    name="bench",
    help="Measure speed on this machine, compared with other tools.",
    places={name: f"featurecache.bench.{name}" for name in NAMES},
)
