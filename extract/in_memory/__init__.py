"""Images in memory to vectors, without a cache: for one image at a time, or for as many as a program has.

    item: path, bytes, PIL image or uint8 array -> pixels, uint8 (3, S, S) -> vector, float32 (D,)

items     what an item is, and lists of them
pixels    items to pixels, by the decoder and the transform of an extraction
alike     small JPEGs of one size, decoded and resized together
network   the network of one kind of features, kept ready for any number of threads
cached    features of items in an ordinary cache, by content, or without one
extractor FeatureExtractor: a transformer of scikit-learn
"""
