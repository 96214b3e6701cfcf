"""Preconditioners: estimates of an objective's curvature, by its spectrum and in blocks of classes.

`SpectralCurvature` takes every class and row alike: H = C h n V diag(lambda) V^T + I, from one eigendecomposition of
the covariance, exact for all strengths before anything is learned. `BlockCurvature` takes each class by itself at a
given point: H_c = C sum_i w_i loss''_ic z_i z_i^T + I. Where the loss is nearly gone C loss'' hardly changes along the
path of strengths, so the blocks of one strength serve a decade of them, and all rounds. Measured on 2,500 x 320
features of ten classes: half a decade from one optimum to the next took up to 119 passes with the first, 8 with these.
"""

from typing import Any, Protocol

import numpy as np
from array_api_compat import is_numpy_array
from scipy.linalg import get_blas_funcs, get_lapack_funcs, solve_triangular

from featurecache.classify.arrays.array_types import FloatArray, IntArray
from featurecache.classify.arrays.blocks import Rows, to_numpy
from featurecache.classify.arrays.namespaces import namespace_of
from featurecache.classify.solvers.linear.objective import Objective
from featurecache.classify.solvers.linear.optimum import ROOM, Room

# Rows, as a multiple of the columns, from which curvature is measured. From twice the columns the smallest eigenvalues
# come out far too small: 48,000 x 1280 at C = 0.1 took over 260 passes with 2, 20 with 8.
ROWS_PER_COLUMN = 8
# So few rows are all taken.
LEAST_ROWS = 2048
# Rows with the least curvature are left out up to this part of the sum over all rows.
NEGLIGIBLE = 1e-3
# Curvature C h of the intercept's own, which is not penalised: where no row doubts a class it is not singular. It is
# less where C h was before anything was learned.
LEAST = 1e-2
# Rows in a product: 2048 x 1280 float32 is 10 MB.
TOGETHER = 2048
# Of the random directions by which they are found.
SEED = 0
# Keeps a block positive definite in float32, as part of its largest entry.
JITTER = 1e-6


class Curvature(Protocol):
    """An approximate inverse of the second derivative."""

    def solve(self, gradient: Any, strengths: FloatArray, parts: IntArray) -> Any:
        """Return about H^-1 g for gradients g (M, K, D + 1) of members with strengths (M,) and parts (M,)."""
        ...


class SpectralCurvature:
    """(C h V diag(lambda) V^T + I)^-1, h the second derivative of the loss, summed over the rows, of each class.

    h is the typical one before anything is learned, later what `measure` has found; between the two strengths measured
    last it is interpolated, log h in log C. Where the loss is nearly gone C h hardly changes.
    """

    def __init__(self, objective: Objective, room: Room = ROOM) -> None:
        self.objective, rows = objective, objective.rows
        self.xp, self.array, self.joint = rows.xp, rows.array, objective.loss.joint
        first = np.repeat(objective.total, objective.n_parts // objective.n_rounds)[:, None] * objective.loss.curvature
        self.first = np.repeat(first, objective.width, axis=1)
        self.measured: list[tuple[float, FloatArray]] = [(0.0, self.first)]
        self.eigenvalues, self.rest, self.basis = _covariance_spectrum(rows, room)

    def measure(self, theta: Any, strength: float) -> None:
        """Take h at the point theta (P, K, D + 1) of all parts with one strength."""
        parts = np.arange(self.objective.n_parts)
        self.measured = [*self.measured, (strength, self.objective.seconds_summed(theta, parts))][-2:]

    def _energy(self, strengths: FloatArray, parts: IntArray) -> FloatArray:
        """Return C h (M, K)."""
        (low, lower), (high, upper) = self.measured[0], self.measured[-1]
        share = np.clip((np.log(strengths) - np.log(low)) / np.log(high / low), 0.0, 1.0) if high > low > 0 else 1.0
        share = np.broadcast_to(share, strengths.shape)[:, None]
        return np.asarray(strengths[:, None] * lower[parts] ** (1.0 - share) * upper[parts] ** share)

    def solve(self, gradient: Any, strengths: FloatArray, parts: IntArray) -> Any:
        """Return about H^-1 g for gradients g (M, K, D + 1)."""
        xp, width, energy = self.xp, gradient.shape[2], self._energy(strengths, parts)
        gradient = gradient - xp.mean(gradient, axis=1, keepdims=True) if self.joint else gradient
        scale = self.array(1.0 / (energy[:, :, None] * self.eigenvalues + 1.0))
        flat = xp.reshape(gradient[:, :, :-1], (-1, width - 1))
        turned = flat @ self.basis
        solved = xp.reshape(turned, scale.shape) * scale
        solved = xp.reshape(solved, turned.shape) @ self.basis.T
        if self.rest is not None:  # what the basis leaves out
            beyond = self.array(1.0 / (energy * self.rest + 1.0))
            solved = solved + (flat - turned @ self.basis.T) * xp.reshape(beyond, (-1, 1))
        least = np.minimum(LEAST, strengths[:, None] * self.first[parts])
        intercept = gradient[:, :, -1:] * self.array(1.0 / np.maximum(energy, least))[:, :, None]
        solved = xp.concat([xp.reshape(solved, (*gradient.shape[:2], -1)), intercept], axis=2)
        return solved - xp.mean(solved, axis=1, keepdims=True) if self.joint else solved


class BlockCurvature:
    """The blocks (D + 1, D + 1) of the classes that a joint loss ties together, factorised, as measured last."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.xp = objective, objective.xp
        self.roots: dict[int, Any] = {}

    def measure(self, theta: Any, strength: float, number: int) -> None:
        """Take the blocks of all classes at a point theta (1, K, D + 1) with one strength in round `number`."""
        seconds = self.objective.seconds(theta, np.array([strength]), np.array([number]))
        for code, own in enumerate(seconds.T):
            self.roots.pop(code, None)  # makes room for the next
            self.roots[code] = _root_of_block(self.objective.rows, own, number)

    def solve(self, gradient: Any, strengths: FloatArray, parts: IntArray) -> Any:
        """Return about H^-1 g in the space of weights that sum to zero: only differences of scores count."""
        gradient = gradient - self.xp.mean(gradient, axis=1, keepdims=True)
        solved = self.xp.stack([_root_solve(root, gradient[:, c, :]) for c, root in sorted(self.roots.items())], axis=1)
        return solved - self.xp.mean(solved, axis=1, keepdims=True)


class RoundedCurvature:
    """A curvature in the precision of the rows, for the float64 gradients of an exact objective."""

    def __init__(self, curvature: Curvature, exact: Any) -> None:
        self.curvature, self.exact = curvature, exact

    def solve(self, gradient: Any, strengths: FloatArray, parts: IntArray) -> Any:
        """Return about H^-1 g for gradients g (M, K, D + 1), float64."""
        rounded = self.exact.objective.array(gradient)
        return self.exact.array(self.curvature.solve(rounded, strengths, parts))


def _root_solve(root: Any, right: Any) -> Any:
    """Return A^-1 b for the rows b of right (M, D) and the root L^-1 of A."""
    return (right @ root.T) @ root


def blocks_fit(objective: Objective, room: Room = ROOM) -> bool:
    """Return whether the blocks of all classes fit in their memory."""
    itemsize = 8 if objective.rows.dtype == objective.rows.xp.float64 else 4
    return objective.n_classes * (objective.rows.shape[1] + 1) ** 2 * itemsize <= room.blocks_bytes


def _covariance_spectrum(rows: Rows, room: Room) -> tuple[FloatArray, float | None, Any]:
    """Return eigenvalues (R,) of the covariance of the standardised rows, the mean of the others, basis (D, R).

    All D of them while those are not too many, and None; beyond, the largest by the randomised Nystroem method
    (Frangella, Tropp and Udell 2023, "Randomized Nystroem preconditioning", algorithm 2.1), and the mean of the others.
    """
    if rows.shape[1] <= room.most_columns:
        found, basis = rows.xp.linalg.eigh(_sampled_gram(rows))
        return np.maximum(to_numpy(found).astype(np.float64), 0.0), None, basis
    return _sketched_spectrum(rows, min(room.rank, rows.shape[1]))


def _sketched_spectrum(rows: Rows, rank: int) -> tuple[FloatArray, float, Any]:
    xp, n_columns, generator = rows.xp, rows.shape[1], np.random.default_rng(SEED)
    tests = np.linalg.qr(generator.standard_normal((n_columns, rank)))[0]
    sketch, trace, ours = np.zeros((n_columns, rank)), 0.0, rows.array(tests)
    chosen = _sample_places(rows, ROWS_PER_COLUMN * rank)
    for start in range(0, len(chosen), TOGETHER):
        block = rows.standardised(chosen[start : start + TOGETHER], 0)
        sketch += to_numpy(block.T @ (block @ ours))
        trace += float(xp.sum(block * block, dtype=xp.float64))
    sketch, trace = sketch / len(chosen), trace / len(chosen)
    shift = float(np.finfo(np.float32).eps) * float(np.linalg.norm(sketch))
    sketch += shift * tests
    small = tests.T @ sketch
    root = np.linalg.cholesky((small + small.T) / 2.0)
    left, singular, _ = np.linalg.svd(solve_triangular(root, sketch.T, lower=True).T, full_matrices=False)
    eigenvalues = np.maximum(singular**2 - shift, 0.0)
    rest = max(trace - float(eigenvalues.sum()), 0.0) / max(n_columns - rank, 1)
    return eigenvalues, rest, rows.array(left)


def _sample_places(rows: Rows, n_rows: int) -> IntArray:
    """Return places of about so many rows or somewhat more, at equal distances; of all where they are fewer."""
    return rows.used[:: max(len(rows.used) // n_rows, 1)]


def _sampled_gram(rows: Rows) -> Any:
    """Return the covariance (D, D) of the standardised rows, from at most a few rows per column."""
    n_columns = rows.shape[1]
    chosen = _sample_places(rows, ROWS_PER_COLUMN * n_columns)
    gram = rows.xp.zeros((n_columns, n_columns), dtype=rows.dtype, device=rows.device)
    for start in range(0, len(chosen), TOGETHER):
        block = rows.standardised(chosen[start : start + TOGETHER], 0)
        gram += block.T @ block
    return gram / len(chosen)


def _root_of_block(rows: Rows, seconds: FloatArray, number: int) -> Any:
    """Return L^-1, L L^T = sum_i s_i [z_i 1] [z_i 1]^T + I, for the seconds s (N,) of all rows as a round sees them."""
    xp, n_columns = rows.xp, rows.shape[1]
    order = np.argsort(seconds, kind="stable")
    weighty = np.sort(order[np.searchsorted(np.cumsum(seconds[order]), NEGLIGIBLE * seconds.sum()) :])
    chosen = weighty[:: max(len(weighty) // max(ROWS_PER_COLUMN * n_columns, LEAST_ROWS), 1)]
    factor = float(seconds.sum()) / max(float(seconds[chosen].sum()), 1e-30)
    block = xp.zeros((n_columns + 1, n_columns + 1), dtype=rows.dtype, device=rows.device)
    for start in range(0, len(chosen), TOGETHER):
        part = chosen[start : start + TOGETHER]
        add_scatter(block, rows.edged(part, number, np.sqrt(seconds[part] * factor)))
    diagonal = np.ones(n_columns + 1)
    diagonal[-1] = LEAST
    places = xp.arange(n_columns + 1, device=rows.device)
    block[places, places] += rows.array(diagonal)
    return inverse_root(block)


def add_scatter(block: Any, edged: Any, sign: float = 1.0) -> None:
    """Add sign sum_i r_i r_i^T to a block (D + 1, D + 1), in place, for rows r (B, D + 1), see `Rows.edged`.

    Of a numpy block only the triangle is right that `factorise` reads, its lower one: half the work.
    """
    if not is_numpy_array(block):
        block += sign * (edged.T @ edged)
        return
    (multiply,) = get_blas_funcs(("syrk",), (block,))
    # What is stored by rows is, transposed, stored by columns as BLAS wants it: nothing is copied.
    multiply(sign, edged.T, beta=1.0, c=block.T, lower=0, overwrite_c=1)


def factorise(matrix: FloatArray, *, clean: bool) -> FloatArray:
    """Return what `scipy.linalg.lapack` takes for the factor of a positive definite matrix, which is overwritten.

    Only the lower triangle of the matrix (D, D) is read; clean: the other triangle is set to zero. Raises
    LinAlgError where the matrix is not positive definite.
    """
    (potrf,) = get_lapack_funcs(("potrf",), (matrix,))
    factor, failed = potrf(matrix.T, lower=0, overwrite_a=1, clean=clean)
    if failed:
        raise np.linalg.LinAlgError("not positive definite")
    return np.asarray(factor)


def inverse_root(matrix: Any) -> Any:
    """Return L^-1 for A = L L^T, positive definite (D, D): A^-1 = L^-T L^-1 then is definite whatever the rounding.

    Where rounding has left A indefinite, its diagonal is raised until it is not. The inverse of L is worth its price:
    two triangular solutions for a few right sides at a time took longer than two products.
    """
    xp, n = namespace_of(matrix), matrix.shape[0]
    places = xp.arange(n, device=matrix.device)
    diagonal = matrix[places, places]
    largest, jitter = float(xp.max(diagonal)), JITTER
    while True:
        raised = xp.asarray(matrix, copy=True)
        raised[places, places] = diagonal + jitter * largest
        try:
            return _inverse_factor(raised, xp)
        except (np.linalg.LinAlgError, RuntimeError):  # numpy's and torch's word for indefinite
            if not jitter < 1.0:
                raise
            jitter *= 100.0


def _inverse_factor(matrix: Any, xp: Any) -> Any:
    """Return L^-1; raises where the matrix, which is overwritten, is not positive definite."""
    if not is_numpy_array(matrix):
        return xp.linalg.inv(xp.linalg.cholesky(matrix))
    (invert,) = get_lapack_funcs(("trtri",), (matrix,))
    return invert(factorise(matrix, clean=True), lower=0, overwrite_c=1)[0].T
