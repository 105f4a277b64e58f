"""Kernel distance: how far apart two sets of clips are, without taking them for normal distributions."""

from __future__ import annotations

import numpy as np

from kinema.metrics.metric import Features, set_metric
from kinema.metrics.rows import same_width, spread

SOURCE = '"Demystifying MMD GANs", 2018, arXiv:1801.01401'
BLOCK = 1024  # rows of a kernel matrix held at once


def kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of k(x, y) = (x.y / D + 1)^3 over all rows x of a (M, D) and y of b (N, D)."""
    parts = (a[start : start + BLOCK] @ b.T / a.shape[1] + 1 for start in range(0, len(a), BLOCK))
    return float(sum((part**3).sum() for part in parts))


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of rows a (M, D) and b (N, D), M and N at least 2.

    sum_{i != j} k(a_i, a_j) / (M (M - 1)) + sum_{i != j} k(b_i, b_j) / (N (N - 1)) - 2 sum_ij k(a_i, b_j) / (M N)
    """
    same_width(a, b)
    within = 0.0
    for rows in (a, b):
        own = ((np.square(rows).sum(1) / rows.shape[1] + 1) ** 3).sum()  # k(x, x)
        within += (kernel_sum(rows, rows) - own) / (len(rows) * (len(rows) - 1))
    return float(within - 2 * kernel_sum(a, b) / (len(a) * len(b)))


def _distance(made: Features, reference: Features) -> float:
    return squared_mmd(spread(made), spread(reference))


@set_metric(
    "kernel_distance",
    unit="squared kernel units",
    low=-np.inf,
    high=np.inf,
    better="lower",
    source=SOURCE + ", on any features of clips",
    sees="noise",
    ignores="reordered",
    extractor="world",
    features="clip",
)
def kernel_distance(made: Features, reference: Features) -> float:
    """How far apart two sets of clips are in their features; about 0 when they are alike, however few they are.

    Unbiased squared MMD with the kernel (a.b / D + 1)^3. Its mean over sets of one distribution is 0 whatever their
    sizes, so a single value may be below 0. One estimate over all clips (of more than 10,000 that many, evenly spread)
    instead of the usual mean over 100 random subsets of 1,000: the expected value is the same, and it varies less.
    """
    return _distance(made, reference)


@set_metric(
    "kvd",
    unit="squared kernel units",
    low=-np.inf,
    high=np.inf,
    better="lower",
    source='"Towards Accurate Generative Models of Video", 2018, arXiv:1812.01717, with the kernel of ' + SOURCE,
    sees="noise",
    ignores="reordered",
    extractor="i3d",
    features="clip",
)
def kvd(made: Features, reference: Features) -> float:
    """Kernel video distance: `kernel_distance` between I3D features of two sets of clips."""
    return _distance(made, reference)


@set_metric(
    "kid",
    unit="squared kernel units",
    low=-np.inf,
    high=np.inf,
    better="lower",
    source=SOURCE,
    sees="blur",
    ignores="shuffle",
    extractor="inception",
    features="frames",
    offline="efficientnet",
)
def kid(made: Features, reference: Features) -> float:
    """Kernel Inception distance: `kernel_distance` between Inception features of the frames of two sets of clips.

    Every frame is a row, of more than 10,000 that many, evenly spread.
    """
    return _distance(made, reference)
