"""The extraction job: requests, the vectors that their caches lack, and computing and writing them.

request         FeatureRequest, and the FeatureSpec that it resolves to
matching        existing caches that match a request
settings        settings that do not change the features
plan            missing vectors, and shared forward passes
refused_before  images that earlier runs refused
outdated        rows that other decode rules would change
fixed_pictures  a change of decoders or of the resize kernel, noticed
outlook         what is about to be done, and whether the disk has space for it
compute         images to vectors, on all cores
writer          writing the shards of one cache, in a thread
extract         extract_features: reader, engine and writers
summary         the summary of a run: counts, refusals, seconds
"""
