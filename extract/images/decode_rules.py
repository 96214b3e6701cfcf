"""Constants of decoding: the version of its rules, and the largest image."""

# Increased when a rule of `decode.py` changes a pixel: it is part of every feature key.
DECODE_VERSION = 1
# Pillow's threshold of its warning of a decompression bomb: a 24-bit image of a quarter of a GiB.
MAX_PIXELS = 89_478_485
