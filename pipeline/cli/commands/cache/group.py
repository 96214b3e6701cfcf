"""`featurecache cache`: the upkeep of caches."""

from featurecache.cli.group import Group

PLACE = "featurecache.cli.commands.cache"
command = Group(
    name="cache",
    help="Show, check, compact, export or prune the feature cache.",
    places={name: f"{PLACE}.{name}" for name in ("info", "verify", "compact", "export", "prune")},
)
