"""The extraction job: requests, the vectors that their caches lack, and computing and writing them.

request         FeatureRequest, and the FeatureSpec that it resolves to
loading         the network of several requests, loaded once
activation_ranges  the ranges of a request in int8: known, or measured
matching        existing caches that match a request
settings        settings that do not change the features
plan            missing vectors, and shared forward passes
outlook         what is missing, and the disk space that it needs
refused_before  images that earlier runs refused
outdated        rows that other decode rules would change
fixed_pictures  a change of decoders or of the resize kernel, noticed
in_flight       the images that are being decoded, in a file that outlives the process
trial           decoding in a process of its own
claims          each content once
passes          the passes of a run over the images
decoding        image files to rows of batches
compute         images to vectors, on all cores
writer          writing the shards of one cache, in a thread
extract         extract_features: reader, engine and writers
summary         the summary of a run: counts, refusals, seconds
"""
