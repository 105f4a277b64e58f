"""Warping error: what changes between frames beyond motion."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow, occlusion, warp
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def difference(one: np.ndarray, other: np.ndarray, moves: np.ndarray, hidden: np.ndarray) -> float | None:
    """Mean of (I - warped I')^2 over channels and the pixels that are not hidden, 0..1; None when all are.

    one, other: (H, W, 3) uint8, I and I'. moves: (H, W, 2) pixels, from I to I'. hidden: (H, W) bool.
    """
    seen = ~hidden
    if not seen.any():
        return None
    gap = (one.astype(np.float32) - warp(other.astype(np.float32), moves))[seen] / 255
    return float(np.square(gap).mean(dtype=np.float64))


@metric(
    "warping_error",
    unit="squared intensity",
    low=0,
    high=1,
    better="lower",
    source='"Learning Blind Video Temporal Consistency", 2018, arXiv:1808.00449',
    extractor="dis",
    sees="flicker",
    ignores="mirror",
)
def warping_error(clip: Viewing, extractor: Extractor) -> float | None:
    """How much the picture changes besides moving: flicker, and things that melt or are drawn anew.

    Mean squared difference of each frame and the next one moved back along the flow, where nothing is hidden.
    Intensities are 0..1; the mean is over channels, pixels that both frames show, then pairs of frames. None for a
    single frame, or when the flow explains nothing.

    The paper takes flow (FlowNet2) and hidden parts from the unprocessed video, which a generated one has not: both
    come from the clip itself here, and numbers made with another flow are other numbers. Its code also leaves out the
    edges of what moves, and counts a pair in which all is hidden as no error; here such a pair does not count.
    """
    frames = clip.frames
    pairs = zip(frames, frames[1:], flow(clip, extractor), occlusion(clip, extractor), strict=False)
    found = [gap for pair in pairs if (gap := difference(*pair)) is not None]
    return float(np.mean(found)) if found else None
