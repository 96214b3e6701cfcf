"""Feature extraction: a frozen pretrained backbone turns each image into a feature vector, stored in HDF5.

cache < images < backbones < engines < job < in_memory      each imports only what is before it

cache       the stored vectors: immutable shards, addressed by image digest
images      samples of folders and tables; digests, decoding, transform
backbones   frozen networks by name, with their transform, cut at one layer or several
engines     inference on this machine: PyTorch, ONNX Runtime
job         an extraction: requests, missing vectors, computing and writing them
in_memory   images that a program has in memory to vectors, without a cache
"""

if __name__ != "featurecache.extract":
    raise ImportError(f"'{__name__}' has become 'featurecache.extract': 'from featurecache import extract_features'.")
