"""Smooth losses of scores: value, gradient and curvature, for many members at once.

A member is one descent: all classes of a setting in a round where the loss ties them together (softmax), one class of
them where it does not (one-versus-rest), so that each class takes steps of its own length. Scores are S (M, K, B): M
members, K = C classes or 1, B rows; rows last: with ten classes last instead the loss takes twice as long. What is
computed is relative to the true class, so that a loss of 1e-9 still has its digits in float32: weakly regularised heads
on separable data live there.
"""

from typing import Any, Protocol

from featurecache.classify.arrays.namespaces import namespace_of

# Scores so far below the largest of their row count as no lower: of lower ones exp makes subnormal numbers, which
# processors multiply slowly. At C = 1000 a pass over 48,000 x 1280 took 0.3 s instead of 0.1 (Intel Xeon).
LOWEST = -64.0


class Loss(Protocol):
    """A smooth convex loss of scores."""

    curvature: float
    """Its typical second derivative before anything is learned."""
    joint: bool
    """Whether the loss couples the classes; then only differences between the scores of a row count."""

    def evaluate(self, scores: Any, codes: Any, classes: Any) -> tuple[Any, Any]:
        """Return the loss (M, B) and its gradient (M, K, B) at scores (M, K, B), which it may overwrite.

        codes (B,): the true classes; classes (M,): the one of each member, for a loss that is not joint.
        """
        ...

    def second(self, scores: Any, codes: Any, classes: Any) -> Any:
        """Return the second derivative by each score, (M, K, B), at scores (M, K, B), which it may overwrite."""
        ...

    def by_intercepts(self, by_score: Any, codes: Any, weights: Any) -> Any:
        """Return the second derivative by the intercepts (M, K, K) of rows with weights (M, B), by their gradient."""
        ...


class SoftmaxLoss:
    """-log softmax(s)[y]: multinomial logistic regression.

    With d_c = s_c - s_y and m = max(0, max_c d_c):    loss = m + log1p(sum_{c != y} exp(d_c - m) + exp(-m) - 1)
    """

    # Between p (1 - p) of an undecided head with ten classes and the upper bound 1 / 4 of two.
    curvature = 0.1
    joint = True

    def evaluate(self, scores: Any, codes: Any, classes: Any) -> tuple[Any, Any]:
        """Return the loss and softmax(s) - [y]; that of the true class is minus the sum of the others."""
        xp = namespace_of(scores)
        rows = xp.arange(codes.shape[0], device=codes.device)
        scores -= scores[:, codes, rows][:, None, :]
        largest = xp.max(scores, axis=1)
        scores -= largest[:, None, :]
        raised = xp.exp(xp.clip(scores, min=LOWEST))
        raised[:, codes, rows] = 0.0
        others, own = xp.sum(raised, axis=1), xp.exp(-largest)
        loss = largest + xp.log1p(others + (own - 1.0))
        raised *= (1.0 / (others + own))[:, None, :]
        raised[:, codes, rows] = -xp.sum(raised, axis=1)
        return loss, raised

    def second(self, scores: Any, codes: Any, classes: Any) -> Any:
        """Return p (1 - p)."""
        share = namespace_of(scores).abs(self.evaluate(scores, codes, classes)[1])
        return share * (1.0 - share)

    def by_intercepts(self, by_score: Any, codes: Any, weights: Any) -> Any:
        """Return sum_i w_i (diag(p) - p p^T), p being the gradient but for the true class."""
        xp = namespace_of(by_score)
        share = xp.abs(by_score)
        weighted = weights[:, None, :]
        diagonal = xp.sum(share * (1.0 - share) * weighted, axis=2)
        rows = xp.arange(codes.shape[0], device=codes.device)
        share[:, codes, rows] = 1.0 - share[:, codes, rows]
        found = -((share * weighted) @ xp.permute_dims(share, (0, 2, 1)))
        places = xp.arange(found.shape[1], device=codes.device)
        found[:, places, places] = diagonal
        return found


class SquaredHingeLoss:
    """max(0, 1 - t s)^2 with t = +1 for the rows of a class, -1 for the others: one-versus-rest linear SVM."""

    curvature = 2.0
    joint = False

    def evaluate(self, scores: Any, codes: Any, classes: Any) -> tuple[Any, Any]:
        """Return the loss and -2 t max(0, 1 - t s)."""
        slack, sign = self._slack(scores, codes, classes)
        return slack**2, (-2.0 * sign * slack)[:, None, :]

    def second(self, scores: Any, codes: Any, classes: Any) -> Any:
        """Return 2 where the margin is violated, else 0."""
        slack, _ = self._slack(scores, codes, classes)
        return 2.0 * namespace_of(scores).astype(slack > 0, scores.dtype)[:, None, :]

    def by_intercepts(self, by_score: Any, codes: Any, weights: Any) -> Any:
        """Return 2 sum_i w_i over the rows whose margin is violated, (M, 1, 1)."""
        xp = namespace_of(by_score)
        violated = xp.astype(by_score[:, 0, :] != 0, by_score.dtype)
        return 2.0 * xp.sum(violated * weights, axis=1)[:, None, None]

    def _slack(self, scores: Any, codes: Any, classes: Any) -> tuple[Any, Any]:
        """Return max(0, 1 - t s) and t, both (M, B)."""
        xp = namespace_of(scores)
        sign = 2.0 * xp.astype(codes[None, :] == classes[:, None], scores.dtype) - 1.0
        slack = 1.0 - sign * scores[:, 0, :]
        return xp.maximum(slack, xp.zeros_like(slack)), sign
