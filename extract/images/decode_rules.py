"""The rules of decoding that are values: which policy it is, and how large an image may be."""

# Raise it when a rule of `decode.py` changes a pixel: it is part of every feature key.
DECODE_VERSION = 1
# Pillow's own threshold, from which it warns of a decompression bomb: a 24-bit image of a quarter of a GiB.
MAX_PIXELS = 89_478_485
