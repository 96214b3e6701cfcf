"""The feature cache: a folder of immutable HDF5 shards, addressed by image digest, and an index over them.

spec             what features are a function of, and the key of that
transform_spec   its part that says how an image becomes the input
store            FeatureCache: which rows there are, adding and reading them
snapshot         which row of which shard each image has, at one time
listing          the shards of a folder by name, and marks of merged ones
shards           one immutable HDF5 file of rows
index            features.h5, all shards as one array
checksums        what ties a vector to its image
memo             file digests and answers that need not be found twice: digests.sqlite
opening          opening HDF5 files that may be damaged or hostile
shard_structure  what such a file may be made of
inventory        which caches there are
verify           whether a cache is whole, and its repair
compact          merging, sealing and pruning shards
leftovers        temporary files and merged shards that may go
"""
