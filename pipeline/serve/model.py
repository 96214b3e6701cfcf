"""What is served: a model that turns bytes into pixels, and batches of pixels into answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Answers(NamedTuple):
    """Of B images: the codes (B,) of their labels, the probabilities (B, C), and the features (B, D) if there are."""

    codes: NDArray[np.int64]
    proba: NDArray[np.floating[Any]]
    features: NDArray[np.float32] | None = None


class ServedModel(Protocol):
    """A head with all that comes before it.

    name: of the head and its features. classes: their names, by code. batch_size: images that are answered at once.
    n_lanes: threads that may ask for answers at once; together they use every core. n_decoders: threads that decode
    where these are not enough to keep the network busy; 0 where each lane decodes what it answers.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def n_lanes(self) -> int: ...  # noqa: D102
    @property
    def n_decoders(self) -> int: ...  # noqa: D102

    def prepared(self, images: Sequence[bytes]) -> Sequence[Any]:
        """Return what the network takes of each image file, such as uint8 (3, S, S), or why there is none: an error."""
        ...

    def answers(self, batch: Sequence[Any]) -> Answers:
        """Return the answers of prepared images; each is the same to the last bit, whatever else is in the batch."""
        ...
