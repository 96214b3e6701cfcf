"""What is written of every image: path, label, its probability, and those of the best classes or of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurecache.base.text import printable
from featurecache.predictions.labelled import Predictions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Before the name of a class in the name of its column, so that no class is called like another column.
CLASS_PREFIX = "p:"


@dataclass(frozen=True)
class Listing:
    """The columns that are written of each image.

    classes: of the head, C names. top: how many of the best classes are named in place of the probabilities of all;
    None for all. least: the probability below which an image is unsure, which leaves its label empty; None for no such
    limit.
    """

    classes: Sequence[str]
    top: int | None = None
    least: float | None = None

    def names(self) -> list[str]:
        """Return the names of the columns; where labels may be empty, the best class has columns of its own."""
        if self.top is None:
            return ["path", "label", "probability", *(f"{CLASS_PREFIX}{name}" for name in self.classes)]
        ranks = range(self._first_rank, self._n_ranks)
        return ["path", "label", "probability", *(f"{each}{i + 1}" for i in ranks for each in ("label", "probability"))]

    def are_texts(self) -> list[bool]:
        """Return which columns are texts; the others are numbers."""
        n_others = len(self.classes) if self.top is None else 0
        n_ranks = 0 if self.top is None else self._n_ranks - self._first_rank
        return [True, True, False, *([True, False] * n_ranks), *([False] * n_others)]

    def values(self, predictions: Predictions) -> list[list[str | None] | NDArray[np.float64]]:
        """Return the columns of N images: texts (N,), None for an empty label, and numbers (N,)."""
        import numpy as np

        paths: list[str | None] = [printable(sample.name) for sample in predictions.samples]
        sure = self.are_sure(predictions).tolist()
        labels = [
            self.classes[code] if is_sure else None for code, is_sure in zip(predictions.codes, sure, strict=True)
        ]
        proba = predictions.proba.astype(np.float64, copy=False)
        columns: list[Any] = [paths, labels, _best(predictions)]
        if self.top is None:
            return [*columns, *proba.T]
        ranked = self.ranked(predictions)
        for i in range(self._first_rank, self._n_ranks):
            columns += [[self.classes[code] for code in ranked[:, i]], proba[np.arange(len(proba)), ranked[:, i]]]
        return columns

    def rows(self, predictions: Predictions) -> Iterator[tuple[Any, ...]]:
        """Return the same an image a row; an empty label is an empty text."""
        import numpy as np

        columns = [
            values.tolist() if isinstance(values, np.ndarray) else [text or "" for text in values]
            for values in self.values(predictions)
        ]
        return zip(*columns, strict=True)

    def documents(self, predictions: Predictions) -> Iterator[dict[str, Any]]:
        """Return an object for every image: `probabilities` of all classes, or `top`, the best classes in order."""
        ranked = None if self.top is None else self.ranked(predictions)
        sure = self.are_sure(predictions)
        rows = zip(predictions.samples, predictions.codes, predictions.proba.tolist(), sure, strict=True)
        for i, (sample, code, proba, is_sure) in enumerate(rows):
            label = self.classes[code] if is_sure else None
            row: dict[str, Any] = {"path": printable(sample.name), "label": label, "probability": proba[code]}
            if ranked is None:
                row["probabilities"] = dict(zip(self.classes, proba, strict=True))
            else:
                row["top"] = [{"label": self.classes[each], "probability": proba[each]} for each in ranked[i]]
            yield row

    def are_sure(self, predictions: Predictions) -> NDArray[np.bool_]:
        """Return which labels are at least as probable as they have to be: bool (N,)."""
        import numpy as np

        if self.least is None:
            return np.ones(len(predictions.codes), dtype=np.bool_)
        return np.asarray(_best(predictions) >= self.least)

    def ranked(self, predictions: Predictions) -> NDArray[np.int64]:
        """Return the codes of the best classes (N, K): the label first, then the most probable others."""
        import numpy as np

        proba = predictions.proba.astype(np.float64)  # a copy
        proba[np.arange(len(proba)), predictions.codes] = np.inf
        order: NDArray[np.int64] = np.argsort(-proba, axis=1, kind="stable")[:, : self._n_ranks]
        return order

    @property
    def _n_ranks(self) -> int:
        return min(self.top or 0, len(self.classes))

    @property
    def _first_rank(self) -> int:
        return 1 if self.least is None else 0


def _best(predictions: Predictions) -> NDArray[np.float64]:
    """Return the probabilities of the labels (N,)."""
    import numpy as np

    return np.asarray(predictions.proba[np.arange(len(predictions.codes)), predictions.codes], dtype=np.float64)
