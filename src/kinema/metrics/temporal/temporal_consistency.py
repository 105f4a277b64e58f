"""Temporal consistency: how alike neighbouring frames are to a network."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.features import features
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of a (N, D) with the same row of b, (N,) float64 in -1..1; 0 where one is all zero."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    found: np.ndarray = np.clip((a * b).sum(-1) / np.where(size, size, 1), -1, 1)
    return found


@metric(
    "temporal_consistency",
    unit="cosine",
    low=-1,
    high=1,
    better="higher",
    source='"Structure and Content-Guided Video Synthesis with Diffusion Models", 2023, arXiv:2302.03011',
    extractor="clip",
    offline="efficientnet",
    sees="wobble",
    ignores="mirror",
)
def temporal_consistency(clip: Viewing, extractor: Extractor) -> float | None:
    """How alike neighbouring frames are to a network; 1 for a clip that stands still.

    Mean cosine of the features of neighbouring frames; None for a single frame.
    """
    if len(clip) < 2:
        return None
    found = features(clip, extractor)
    return float(cosines(found[:-1], found[1:]).mean())
