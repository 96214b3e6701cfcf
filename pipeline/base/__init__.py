"""The bottom room: every other may import it, and it imports none of them.

errors         the tree of exceptions
exits          exit codes
files          atomic writing
progress       the Progress protocol
text           names, numbers and tables for people
defaults       values of options that are not given
described      fields of dataclasses with their help and their choices
values         checks of values that callers give
quoting        commands as a shell reads them
startup        whether the process only runs a command
garbage        pauses of the search for cyclic garbage
versions       installed versions
cores          cores of this process
cgroups        limits of containers
known_answers  what names of networks resolve to, and which graphs passed their checks, for all caches of a user
user_folder    the folder of a user for what all caches share
plain_files    files of strangers: opening, JSON
parquet_files  files of strangers: Parquet
"""
