"""`featurecache cache`: the upkeep of caches.

group    the command and its names
info     what is kept
verify   whether it is whole
compact  merging shards
export   features as one ordinary file
prune    dropping rows that no image uses
text     caches as text and as JSON
"""
