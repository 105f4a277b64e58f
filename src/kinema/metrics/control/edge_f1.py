"""Edge F1: whether the outlines of a clip are where those of its reference are."""

from __future__ import annotations

import numpy as np

from kinema.layers.edges import edges
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_size


def f1(found: np.ndarray, true: np.ndarray) -> float:
    """2 |found and true| / (|found| + |true|) of two bool arrays of one shape; 1 when both are empty."""
    total = int(found.sum()) + int(true.sum())
    return 2 * int((found & true).sum()) / total if total else 1.0


@metric(
    "edge_f1",
    unit="share",
    low=0,
    high=1,
    better="higher",
    source='"Cosmos-Transfer1: Conditional World Generation with Adaptive Multimodal Control", 2025, arXiv:2503.14492',
    needs=("reference",),
    sees="offset",
    ignores="pale",
)
def edge_f1(clip: Viewing) -> float:
    """How many edges lie on the very pixels on which the reference has them, and the other way round; 1 for all.

    F1 of Canny edges against those of the reference of the same size, over the whole clip: the harmonic mean of how
    many edges are right and how many are found. Departure: the thresholds of Canny's edges, which the paper does not
    tell, are our own.
    """
    return f1(edges(clip.frames), edges(same_size(clip).frames))
