"""Predictions of any number of images, and how they are written, a block at a time.

labelled      the labels of images by a head, all or in blocks
on_the_way    images without a cache, labelled as their block is asked for
columns       what is written of every image: its label, the best classes, the probability of each
outcome       how many images are right, unknown or unsure
writing       what a format writes: blocks of images, counted on their way
formats       the formats, by suffix or name
text_files    CSV, JSON lines, JSON, and a table for people
parquet_file  Parquet
"""
