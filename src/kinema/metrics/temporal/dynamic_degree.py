"""Dynamic degree as a number: how fast the fastest parts of a clip move."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow, occlusion
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

TOP = 0.05  # share of pixels


def fastest(moves: np.ndarray, seen: np.ndarray) -> float:
    """Mean length of the longest 5%, at least one, of the flow vectors (H, W, 2) that are seen (H, W); pixels."""
    size = np.linalg.norm(moves, axis=-1)[seen]
    count = max(1, round(TOP * size.size))
    return float(np.partition(size, -count)[-count:].mean(dtype=np.float64))


@metric(
    "dynamic_degree",
    unit="shorter sides per second",
    low=0,
    high=float("inf"),
    better=None,
    source='"VBench", 2023, arXiv:2311.17982, before its threshold',
    extractor="dis",
    sees="freeze",
    ignores="backwards",
)
def dynamic_degree(clip: Viewing, extractor: Extractor) -> float | None:
    """How fast the fastest parts of the picture move; 0 when nothing does.

    Mean length of the fastest 5% of flow vectors that hold there and back, over all pairs of frames. Lengths are in
    shorter sides of the picture and seconds, so that neither size nor frame rate counts. VBench's dynamic degree asks
    of each clip only whether enough pairs are above a threshold, and looks at all of the flow: the longest vectors of
    an estimator are often its errors. None for a single frame, or when the flow explains nothing.
    """
    pairs = zip(flow(clip, extractor), occlusion(clip, extractor), strict=True)
    per_pair = [fastest(moves, ~hidden) for moves, hidden in pairs if not hidden.all()]
    return float(np.mean(per_pair)) * clip.fps / min(clip.height, clip.width) if per_pair else None
