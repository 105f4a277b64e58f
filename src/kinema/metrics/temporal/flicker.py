"""Flicker: how much neighbouring frames differ."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


@metric(
    "flicker",
    unit="grey levels",
    low=0,
    high=255,
    better="lower",
    source='"VBench", 2023, arXiv:2311.17982, before it is turned into a score',
    sees="flicker",
    ignores="mirror",
)
def flicker(clip: Viewing) -> float | None:
    """How much the picture changes from frame to frame; motion counts as well as flicker.

    Mean of |I_t+1 - I_t| over all pixels, channels and pairs of frames; None for a single frame. Compare clips of the
    same scene only.
    """
    if len(clip) < 2:
        return None
    frames = clip.frames.astype(np.int16)
    return float(np.mean([np.abs(b - a).mean(dtype=np.float64) for a, b in pairwise(frames)]))
