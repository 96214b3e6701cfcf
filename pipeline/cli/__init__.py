"""The command line: what can be asked for, and how it ends.

main        parse, do, say what went wrong
declare     options as dataclasses, commands whose help has groups and examples
group       commands by name, listed without importing them
options     options of several commands
printing    --json and --quiet
commands    one command a file: its options, what it does, its text
advice      the command to run next, where the library names a function
console     progress and lines on stderr
text        results on stdout
refusals    images that are not in a result
stopping    Ctrl-C and SIGTERM
unexpected  a sentence and a log for any other exception
"""
