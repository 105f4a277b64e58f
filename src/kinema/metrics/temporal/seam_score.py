"""Seam score: whether chunks made one after the other fit together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

LEAST = 0.5  # grey levels; less is what rounding to bytes makes


def jumps(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T-1,) mean of |I_t+1 - I_t|, grey levels."""
    return np.array([np.abs(b.astype(np.int16) - a).mean(dtype=np.float64) for a, b in pairwise(frames)])


def seam(changes: Sequence[float] | np.ndarray, borders: Sequence[int] | None = None) -> float:
    """Mean change at the borders over the median change elsewhere; without borders, the largest over the median of all.

    changes: (T-1,) from frame to frame, as `jumps` gives them. borders: the first frame of every chunk but the first,
    1 to T - 1.
    """
    changes = np.asarray(changes, float)
    if borders is None:
        return float(changes.max() / max(np.median(changes), LEAST))
    at = np.isin(np.arange(1, len(changes) + 1), borders)
    if not at.any() or at.all():
        raise ValueError(f"borders are {list(borders)}; name some of the frames 1 to {len(changes)}, not all")
    return float(changes[at].mean() / max(np.median(changes[~at]), LEAST))


@metric(
    "seam_score",
    unit="times the usual change",
    low=1,
    high=float("inf"),
    better="lower",
    source="kinema's own, of the long-video papers' frame differences at chunk borders",
    sees="seams",
    ignores="mirror",
)
def seam_score(clip: Viewing) -> float | None:
    """How far the largest change between two frames stands out; 1 when none does. A fast event stands out, too.

    The largest mean |I_t+1 - I_t| of a clip over the median one. It needs not be told where the chunks meet; where that
    is known, `seam(jumps(frames), borders)` measures there. A cut stands out as well. None with fewer than five frames.
    """
    return max(1.0, seam(jumps(clip.frames))) if len(clip) >= 5 else None
