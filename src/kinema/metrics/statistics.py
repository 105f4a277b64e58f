"""What a number from some clips says of all clips: means, shares and differences with their 95% intervals."""

from __future__ import annotations

import math

import numpy as np

Z95 = 1.959964  # normal quantile of 97.5%
CHUNK = 400_000  # indices drawn at a time


def bootstrap(values: np.ndarray, draws: int = 10_000, seed: int = 0) -> tuple[float, float] | None:
    """95% percentile interval of the mean of values (N,): 2.5% and 97.5% of the means of N drawn with replacement.

    Efron, "Bootstrap methods: another look at the jackknife", 1979. The same values give the same interval. Of
    differences of pairs it is the paired bootstrap. None of fewer than two values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return None
    rng, found = np.random.default_rng(seed), []
    for first in range(0, draws, size := max(1, CHUNK // len(values))):
        chosen = rng.integers(0, len(values), (min(size, draws - first), len(values)), dtype=np.int32)
        found.append(values[chosen].mean(1))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return float(low), float(high)


def standard_error(values: np.ndarray) -> float | None:
    """Of the mean of values (N,): s / sqrt(N), s with N - 1 degrees of freedom; None of fewer than two."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def wilson(right: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share (Wilson, "Probable inference, the law of succession, and statistical inference", 1927).

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = right / count; (0, 1) for a count of 0.
    A tie may count as half a right one.
    Raises: ValueError when right is not 0 to count.
    """
    if not 0 <= right <= count:
        raise ValueError(f"right is {right} of {count}; use 0 to {count}")
    if count == 0:
        return 0.0, 1.0
    p, n = right / count, count
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)
