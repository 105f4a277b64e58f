"""Motion smoothness: whether what moves goes on moving the same way."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import back_flow, flow, inconsistent, occlusion
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

STILL = 0.001  # of the shorter side; what moves by less in both steps together stands still


def bend(onward: np.ndarray, backward: np.ndarray, counted: np.ndarray) -> tuple[float, float]:
    """Sums of |a| and of |w| + |b| over the counted pixels of one frame.

    onward: (H, W, 2) w, where each pixel goes until the next frame. backward: (H, W, 2) b, where it was in the last
    frame. a = w + b is its second difference x_t+1 - 2 x_t + x_t-1.
    """
    change = np.linalg.norm(onward + backward, axis=-1)[counted]
    path = (np.linalg.norm(onward, axis=-1) + np.linalg.norm(backward, axis=-1))[counted]
    return float(change.sum(dtype=np.float64)), float(path.sum(dtype=np.float64))


@metric(
    "motion_smoothness",
    unit="share",
    low=0,
    high=1,
    better="higher",
    source="kinema's own: second difference of position along the flow, as a share of the way",
    extractor="dis",
    sees="tremble",
    ignores="backwards",
)
def motion_smoothness(clip: Viewing, extractor: Extractor) -> float | None:
    """How steady motion is: 1 at one speed, 0 when everything stops, starts or turns back at every frame.

    1 - sum |a| / sum(|w| + |b|), where w is the flow to the next frame, b the one to the last, a = w + b the
    acceleration in pixels per frame^2, over all frames but the first and the last and all pixels that both neighbours
    show. It needs no network that interpolates frames, as VBench's motion smoothness does. As a share of the way it
    does not grow when a clip stands still; None when nothing moves, or with fewer than three frames.
    """
    least = STILL * min(clip.height, clip.width)
    there, back = flow(clip, extractor), back_flow(clip, extractor)
    hidden = occlusion(clip, extractor)
    changes = paths = 0.0
    for t in range(1, len(clip) - 1):
        moves = np.linalg.norm(there[t], axis=-1) + np.linalg.norm(back[t - 1], axis=-1) > least
        unseen = hidden[t] | inconsistent(back[t - 1], there[t - 1])
        change, path = bend(there[t], back[t - 1], moves & ~unseen)
        changes, paths = changes + change, paths + path
    return max(0.0, 1 - changes / paths) if paths else None  # |w + b| can round to more than |w| + |b|
