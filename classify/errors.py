"""Everything `classify` raises on purpose.

    ClassifyError
    ├── UnknownHead      a head, or one of its parameters, that nobody has
    ├── BadSplit         split names that are unknown, or given for some samples only
    ├── BadLabels        labels from which no head can be trained and tested
    ├── HeadFailed       a head that cannot be fitted to these rows, or not predict; a ValueError too
    └── SavedHeadError   a folder that is not a head, is damaged, or must not be trusted

Each message says what was found, what is allowed and what to do next. `exit_code` is that of a command that it ends: 1
for a run that failed, 2 for a command that names what is not there.
"""

from typing import ClassVar

FAILED, USAGE = 1, 2


class ClassifyError(Exception):
    """Anything that `classify` refuses, in one or two sentences a person would say."""

    exit_code: ClassVar[int] = FAILED


class UnknownHead(ClassifyError):
    """No head of that name, or no such parameter."""

    exit_code = USAGE


class BadSplit(ClassifyError):
    """The splits that came with the samples cannot be used."""


class BadLabels(ClassifyError):
    """The labels cannot be learned from, or not tested."""


class HeadFailed(ClassifyError, ValueError):
    """A head gave up on the rows; a ValueError, as scikit-learn's contract asks."""


class SavedHeadError(ClassifyError):
    """A saved head is missing, damaged, foreign, or holds types that are not trusted."""
