"""The run folder: its files, who writes them and who reads them.

folder               names of all files, where a run may be, writing
reading              reading JSON of a run
record               results.json and predictions as arrays
documents            results.json and config.json as types
comparison_document  a comparison of runs as a type
record_checks        checks of these, field by field
predictions_file     predictions.parquet
split_list           splits.csv
compared_runs        runs as `compare` reads them
command_lines        commands that make the features of a run again
result_notes         units of test images and other notes in words
head_choice          which head of a run
work_folder          where a run is made
placing              its way into its place
locks                one process at a time
moved                what a run names, where it is now: cache, images, weights
leftover_runs        what killed processes left
file_counts          every file of a command, used or not
refusal_list         errors.csv outside runs
models/              heads of runs by name, in versions
"""
