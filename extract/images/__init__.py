"""Images: where they come from, their digests, and their pixels as a backbone takes them.

manifest      Sample and Manifest
read          read_images: a folder, a table or one image
folders       class folders, with or without splits above them
tables        CSV, TSV, Parquet
digests       the SHA-256 of every image, remembered
decode        bytes to pixels
decode_rules  its policy version, and how large an image may be
transform     pixels to the size of the input
augmentation  views of an image, drawn from a seed
fingerprints  small grey pictures by which copies are found
loader        reading ahead in threads, in order
"""
