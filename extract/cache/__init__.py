"""The feature cache: a folder of immutable HDF5 shards, addressed by image digest, and an index over them.

spec             FeatureSpec, the identity of a set of features, and its key
transform_spec   TransformSpec, its part about the input of the network
ranges           ranges.json, the activation ranges of a network in int8
store            FeatureCache: finding, reading and adding rows
reading          what a program reads of a cache: blocks of rows, a data set of PyTorch
snapshot         the shard and row of each image, at one time
listing          the shards of a folder by name, the marks of merged ones, and files that can be removed
shards           one immutable HDF5 file of rows
names            digests as byte strings: sorted, distinct, and found among others
row_index        rows.index, the shard and row of every digest, sorted
index            features.h5, all shards as one array, and whether it is up to date with them
checksums        seals: checksums that bind a vector to its image
judged           lists of rows of older decode rules that stay, and that do not count any more
memo             remembered file digests and resolved requests: digests.sqlite
memo_checks      locks and damage of that file
opening          opening HDF5 files that may be damaged or untrusted
shard_structure  the permitted structure of such a file
inventory        the caches below a cache root
verify           verification and repair of a cache
compact          merging, sealing and pruning of shards
"""
