"""The exit codes, the same for every command.

REFUSED: finished, but something that a person would count is not in the result (images that were refused, a head that
failed, a run that could not be compared), or a check found something. All of it is listed.
"""

DONE, FAILED, USAGE, REFUSED = 0, 1, 2, 3
INTERRUPTED, TERMINATED = 130, 143  # 128 and the number of the signal: SIGINT, SIGTERM
