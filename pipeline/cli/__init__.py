"""The command line: what can be asked for, and how it ends.

main        parse, do, say what went wrong
declare     options as dataclasses, commands whose help has groups and examples
config_file  options from a TOML file, and as one
group       commands by name, listed without importing them
options     options of several commands
dry_run     how images are read
label_check  labels that cannot be split
printing    --json and --quiet
head_options  which head of a run, and what it may need
commands    one command a file: its options, what it does, its text
advice      the command to run next, where the library names a function
console     progress and lines on stderr
text        results on stdout
refusals    files that are not in a result
file_counts_text  what became of every file
stopping    Ctrl-C and SIGTERM
unexpected  a sentence and a log for any other exception
"""
