"""`featurecache cache`: the upkeep of caches."""

from featurecache.cli.declare import Group

PLACE = "featurecache.cli.commands.cache"
command = Group(
    name="cache",
    help="Look after the feature cache.",
    places={name: f"{PLACE}.{name}" for name in ("info", "verify", "compact", "export", "prune")},
)
