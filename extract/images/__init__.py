"""Images: data sets, digests, decoding, and transforms to the input of a backbone.

manifest      Sample and Manifest
read_options  which columns of a table mean what, and where its files may be
left_out      files that are not samples, counted by reason and suffix
formats       image formats by suffix and first bytes, and what each needs
first_bytes   the format of files whose suffix does not say it
class_names   the order of classes, names that are nearly the same, and those that are several in one
read          read_images: a folder, a table or one image
folders       folders of images: their layouts, and every file in them
arguments     images to label: folders, files, patterns, standard input
vectors       vectors from files in place of images: .npz, .h5, tables, arrays
tables        CSV, TSV, TXT and Parquet
sources       the bytes of a sample: the only module that opens one
read_ahead    files read in threads before they are decoded
file_states   sizes and times of many files
memo_paths    the paths under which the memo knows files
digests       the SHA-256 of every image, from the memo if possible
decode        image files to pixels
decode_rules  the version and revision of its rules, and the largest image
decoding      its parts: one decoder a module, and what all of them share
transform     pixels to the size of the input
augmentation  augmented views of images, by a seed
fingerprints  grey thumbnails, by which copies are found
loader        prefetching in threads, in order
"""
