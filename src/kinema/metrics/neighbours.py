"""Nearest neighbours among rows of features: how far the k-th is, and who lies within that distance of whom."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kinema.metrics.rows import same_width

BLOCK = 512  # rows whose distances to all others are held at once
EXACT = 1e-9  # relative difference of squared distances below which they count as equal


def squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """|x - y|^2 of rows x of a (M, D) and y of b (N, D), as blocks (m, N) of at most 512 rows of a, in order.

    Where x and y are equal it is 0, although the fast formula |x|^2 + |y|^2 - 2 x.y is not.
    """
    same_width(a, b)
    centre = b.mean(0)
    b = b - centre
    b_norms = np.square(b).sum(1)
    for start in range(0, len(a), BLOCK):
        part = a[start : start + BLOCK] - centre
        norms = np.square(part).sum(1)[:, None] + b_norms
        found = norms - 2 * part @ b.T
        yield np.where(found > 1e-12 * norms, found, 0.0)


def reach(rows: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, (N,). N has to be above k."""
    # The nearest of all is the row itself, at distance 0. A copy, because a view would keep the whole block.
    return np.concatenate([np.partition(part, k, axis=1)[:, k].copy() for part in squared_distances(rows, rows)])


def within(points: np.ndarray, centres: np.ndarray, k: int, edge: bool = True) -> Iterator[np.ndarray]:
    """Which points (M, D) lie in which balls around centres (N, D), as blocks (m, N) of bool, in order of the points.

    The ball of a centre reaches to its k-th nearest other centre; `edge` says whether what lies on its edge is in it.
    """
    limit = reach(centres, k) * (1 + EXACT if edge else 1 - EXACT)
    for part in squared_distances(points, centres):
        yield part <= limit if edge else part < limit
