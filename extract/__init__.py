"""Stage one: a frozen pretrained backbone turns every image into a vector, once, kept in HDF5.

cache < images < backbones < engines < job      each imports only what is before it

images      folders and tables become samples; digests, decoding, transform
backbones   a name becomes a frozen network with its transform, cut at one layer or several
engines     what runs the network on this machine: PyTorch, ONNX Runtime
cache       the kept vectors: immutable shards, addressed by image digest
job         a request, what the cache lacks of it, and the vectors that fill it
"""

if __name__ != "featurecache.extract":
    raise ImportError(f"'{__name__}' has become 'featurecache.extract': 'from featurecache import extract_features'.")
