"""Decoding for the engines: image files to rows of batches.

batch         the pixels of a chunk, for every kind of pixels that is wanted
decoder       the images of a part of a chunk, decoded into its rows
threads       decoding in the threads that ask for it
processes     decoding in processes, which are replaced when they are ended
process_ends  how they ended, and why none starts, in sentences
worker        one of these processes
"""
