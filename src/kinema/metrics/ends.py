"""The beginning and the end of a clip, which drift is measured between."""

from __future__ import annotations

import numpy as np

from kinema.metrics.viewing import Viewing

PART = 0.15  # of the frames, as "FramePack", 2025, arXiv:2504.12626, compares them


def ends(clip: Viewing) -> tuple[np.ndarray, np.ndarray] | None:
    """The first and the last 15% of the frames, (N, H, W, 3) uint8 each, N at least 1; None for a single frame."""
    count = max(1, round(PART * len(clip)))
    return (clip.frames[:count], clip.frames[-count:]) if len(clip) > 1 else None
