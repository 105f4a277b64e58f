"""Sharpness, and whether it is lost along a clip."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.ends import ends
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def laplacian_variance(frames: np.ndarray) -> float:
    """(N, H, W, 3) uint8 -> mean over frames of the variance of the Laplacian of the grey picture."""
    cv2 = opencv()
    grey = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
    return float(np.mean([cv2.Laplacian(one, cv2.CV_64F).var() for one in grey]))


@metric(
    "sharpness",
    unit="squared grey levels",
    low=0,
    high=float("inf"),
    better=None,
    source="Pech-Pacheco et al., 2000, doi:10.1109/ICPR.2000.903548",
    sees="blur",
    ignores="pale",
)
def sharpness(clip: Viewing) -> float:
    """How much fine detail the frames hold; noise counts as detail.

    Variance of the Laplacian of the grey frames, in the mean over frames.
    """
    return laplacian_variance(clip.frames)


@metric(
    "sharpness_drift",
    unit="octaves",
    low=-float("inf"),
    high=float("inf"),
    better=None,
    source='start-end contrast of "FramePack", 2025, arXiv:2504.12626, of sharpness instead of a quality score',
    sees="soften",
    ignores="darker",
)
def sharpness_drift(clip: Viewing) -> float | None:
    """Whether the end is less sharp than the start: below 0 it is; -1 is half as sharp. What comes near counts, too.

    log2 of the sharpness of the last 15% of the frames over that of the first. Sharpness is the variance of the
    Laplacian, plus 1 so that a flat picture has a logarithm. None for a single frame.
    """
    parts = ends(clip)
    if parts is None:
        return None
    early, late = (laplacian_variance(part) for part in parts)
    return float(np.log2((late + 1) / (early + 1)))
