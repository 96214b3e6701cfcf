"""`featurecache bench`: speed on this machine, beside what is usual."""

from featurecache.cli.declare import Group

command = Group(
    name="bench",
    help="Measure extraction, heads and fine-tuning on this machine, beside what is usual.",
    places={name: f"featurecache.bench.{name}" for name in ("extract", "heads", "classify", "finetune", "starts")},
)
