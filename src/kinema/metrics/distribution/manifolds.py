"""Precision, recall, density and coverage: quality and variety of a set of clips as two numbers instead of one.

Each set is taken for the union of balls around its clips in the space of features, the ball of a clip reaching to its
k-th nearest neighbour in its own set; k is 5 for all four.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kinema.metrics.metric import Features, set_metric
from kinema.metrics.neighbours import within
from kinema.metrics.rows import spread

K = 5  # neighbours; 3 in the paper on precision and recall, 5 in the one on density and coverage
PRECISION = '"Improved Precision and Recall Metric for Assessing Generative Models", 2019, arXiv:1904.06991'
DENSITY = '"Reliable Fidelity and Diversity Metrics for Generative Models", 2020, arXiv:2002.09797'


def share_within(points: np.ndarray, centres: np.ndarray, k: int = K) -> float:
    """Share of the points (M, D) that lie in at least one ball around a centre (N, D), 0 to 1."""
    return float(np.concatenate([inside.any(1) for inside in within(points, centres, k)]).mean())


def mean_density(points: np.ndarray, centres: np.ndarray, k: int = K) -> float:
    """Mean over points of the number of balls around centres that hold them, divided by k; 0 or more."""
    return float(sum(inside.sum() for inside in within(points, centres, k, edge=False)) / (k * len(points)))


def share_reached(points: np.ndarray, centres: np.ndarray, k: int = K) -> float:
    """Share of the balls around centres that hold at least one of the points, 0 to 1."""
    reached = np.zeros(len(centres), dtype=bool)
    for inside in within(points, centres, k, edge=False):
        reached |= inside.any(0)
    return float(reached.mean())


TOLD: dict[str, Any] = dict(low=0, better="higher", extractor="world", features="clip", least=K + 1, clips=32)


@set_metric(
    "precision",
    unit="share",
    high=1,
    source=PRECISION,
    sees="mixed",
    ignores="fewer_modes",
    **TOLD,
)
def precision(made: Features, reference: Features) -> float:
    """Share of the made clips that lie in the ball of a reference clip: whether what is made looks right.

    The paper takes k = 3 neighbours and all features of one layer, this k = 5 as STREAM and the paper on density do; of
    more than 10,000 clips a set, that many, evenly spread.
    """
    return share_within(spread(made), spread(reference))


@set_metric(
    "recall",
    unit="share",
    high=1,
    source=PRECISION,
    sees="fewer_modes",
    ignores="reordered",
    **TOLD,
)
def recall(made: Features, reference: Features) -> float:
    """Share of the reference clips that lie in the ball of a made clip: whether all that there is gets made.

    Clips and neighbours as in `precision`. It is fooled by made clips far from all others, whose balls are large;
    `coverage` is not.
    """
    return share_within(spread(reference), spread(made))


@set_metric(
    "density",
    unit="ratio",
    high=np.inf,
    source=DENSITY,
    sees="mixed",
    ignores="reordered",
    **TOLD,
)
def density(made: Features, reference: Features) -> float:
    """Mean number of balls of reference clips that a made clip lies in, divided by k = 5; 1 for equal distributions.

    Unlike `precision` it is not fooled by a single reference clip far from all others. A clip on the edge of a ball is
    outside, as in the paper's code. Clips as in `precision`.
    """
    return mean_density(spread(made), spread(reference))


@set_metric(
    "coverage",
    unit="share",
    high=1,
    source=DENSITY,
    sees="fewer_modes",
    ignores="reordered",
    **TOLD,
)
def coverage(made: Features, reference: Features) -> float:
    """Share of the balls of reference clips that a made clip lies in, k = 5: whether all that there is gets made.

    For two sets of N clips of one distribution 1 - 2^-k on average, 0.97. Edge and clips as in `density`.
    """
    return share_reached(spread(made), spread(reference))
