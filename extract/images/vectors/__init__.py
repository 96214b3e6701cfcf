"""Vectors from files, in place of images and the features of a backbone.

vectors        Vectors: N rows of D numbers by the digest of each, looked up as a cache is
rows           numbers of any file as float32, a few rows at a time; their digests
choosing       which columns or data sets are the vectors, the labels and so on
cells          values of a column as the cells of a table
origin         what a file says of where its vectors come from
npz_file       .npz, mapped into memory where it is not packed
hdf5_file      .h5
parquet_file   .parquet
text_file      .csv, .tsv and .txt
opening        a file by its suffix, and whether a table is one of vectors
read_vectors   read_vectors: a file as a Manifest
pooled         a folder or table of .h5 files with several vectors each, as TRIDENT and CLAM write them
arrays         read_arrays: arrays of a program as a Manifest
"""
