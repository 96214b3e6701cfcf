"""The extraction job: a request, what it lacks in the cache, and the vectors that fill it.

request   FeatureRequest, and the spec that it resolves to
matching  caches found by what they say of themselves
settings  how to run, without a say in the result
plan      what is to do, and who shares a forward pass
compute   images to vectors, every core busy
writer    the shards of one cache, in a thread of its own
extract   extract_features: reader, engine, writers
summary   what was done: counts, refusals, seconds
"""
