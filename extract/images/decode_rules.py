"""Constants of decoding: the version and the revision of its rules, and the largest image.

A rule of `decode.py` that changes the pixels of few images is a new revision, which is recorded in every shard:
`revisions.py` says which images it reads otherwise, their rows are computed again, and all others stay. A rule that
changes those of most images is a new version, which is part of every key: all features are computed again.
"""

DECODE_VERSION = 1
DECODE_REVISION = 5
# The last that concerns images which are decoded at full size.
FULL_REVISION = 4
# Pillow's threshold of its warning of a decompression bomb: a 24-bit image of a quarter of a GiB.
MAX_PIXELS = 89_478_485
