"""Colour drift: whether a clip ends in other colours than it began with."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.ends import ends
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def palette(frames: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (6,): means and standard deviations of L*, a* and b* over each frame, averaged."""
    cv2 = opencv()
    found = []
    for frame in frames:
        lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
        found.append(np.concatenate([lab.mean(0), lab.std(0)]))
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


@metric(
    "colour_drift",
    unit="CIELAB units",
    low=0,
    high=float("inf"),
    better="lower",
    source='start-end contrast of "FramePack", 2025, arXiv:2504.12626, of colours instead of a quality score',
    sees="drift",
    ignores="blur",
)
def colour_drift(clip: Viewing) -> float | None:
    """How far the colours of the end are from those of the start; what comes into view or goes counts as well.

    Distance of the colours of the first and the last 15% of the frames; None for a single frame. Colours are six
    numbers: mean and standard deviation of lightness, green-red and blue-yellow in CIELAB. About 2 is just seen.
    Compare clips of the same scenes.
    """
    parts = ends(clip)
    return None if parts is None else float(np.linalg.norm(palette(parts[1]) - palette(parts[0])))
