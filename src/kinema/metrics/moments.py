"""Mean and covariance of any number of rows, in one pass and in the memory of one covariance matrix."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kinema.metrics.rows import blocks, same_width


class Moments:
    """Count, mean (D,) and scatter (D, D) = sum of (x - mean)(x - mean)^T over all rows x, float64.

    Parts are joined by the formula of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979, which loses no digits to a large mean; joined parts give what one pass gives.
    """

    def __init__(self, count: int = 0, mean: np.ndarray | None = None, scatter: np.ndarray | None = None) -> None:
        self.count = count
        self.mean = np.zeros(0) if mean is None else mean
        self.scatter = np.zeros((0, 0)) if scatter is None else scatter

    @classmethod
    def of(cls, features: Iterable[np.ndarray]) -> Moments:
        """Of features of clips, each (D,) or (T, D), read once and in order."""
        moments = cls()
        for rows in blocks(features):
            moments.update(rows)
        return moments

    def update(self, rows: np.ndarray) -> None:
        """Adds rows (n, D)."""
        if len(rows):
            rows = np.asarray(rows, dtype=np.float64)
            mean = rows.mean(0)
            centred = rows - mean
            self.merge(Moments(len(rows), mean, centred.T @ centred))

    def merge(self, other: Moments) -> None:
        """Adds all rows that another has seen. Raises: KinemaError when its rows have another width."""
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean.copy(), other.scatter.copy()
            return
        same_width(self.mean, other.mean)
        count, apart = self.count + other.count, other.mean - self.mean
        # M = M_a + M_b + (mu_b - mu_a)(mu_b - mu_a)^T n_a n_b / n
        self.scatter += other.scatter
        self.scatter += np.outer(apart, apart * (self.count * other.count / count))
        self.mean = self.mean + apart * (other.count / count)
        self.count = count

    def covariance(self, unbiased: bool = True) -> np.ndarray:
        """scatter / (N - 1), or scatter / N where `unbiased` is False; (D, D). Of a single row: 0."""
        found: np.ndarray = self.scatter / max(self.count - unbiased, 1)
        return found
