"""Tables of images as a Manifest.

read_table    read_manifest: a table as samples
text_table    CSV, TSV and TXT: encoding, delimiter, quotes, and rows that do not fit the header
parquet_table Parquet
columns       which column means what; those that are not used, with hints
cells         what stands for no label, and whole numbers that were written as floats
places        where the files of a table are
"""
