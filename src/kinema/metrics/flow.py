"""Optical flow of a clip both ways, what it cannot follow, and frames moved along it.

Each estimator of flow is an extractor that gives "flow": `dis` without any network, `raft` with one. All functions take
the one to use; what it finds is kept with the clip.
"""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.viewing import Viewing

USUAL = "dis"


def flow(clip: Viewing, extractor: Extractor | None = None) -> np.ndarray:
    """(T-1, H, W, 2) float32: pixel (x, y) of frame t is at (x, y) + flow[t, y, x] in frame t + 1; right and down."""
    using = extractor or load_extractor(USUAL)
    return clip.once(("flow", using.label), lambda: using.flow(clip.frames))


def back_flow(clip: Viewing, extractor: Extractor | None = None) -> np.ndarray:
    """(T-1, H, W, 2) float32: pixel (x, y) of frame t + 1 was at (x, y) + back_flow[t, y, x] in frame t."""
    using = extractor or load_extractor(USUAL)
    return clip.once(("back flow", using.label), lambda: using.flow(clip.frames[::-1])[::-1])


def occlusion(clip: Viewing, extractor: Extractor | None = None) -> np.ndarray:
    """(T-1, H, W) bool: pixels of frame t that frame t + 1 does not show, by going there and back.

    See `inconsistent`.
    """
    using = extractor or load_extractor(USUAL)

    def make() -> np.ndarray:
        ways = zip(flow(clip, using), back_flow(clip, using), strict=True)
        none = np.zeros((0, clip.height, clip.width), bool)
        return np.stack(found) if (found := [inconsistent(there, back) for there, back in ways]) else none

    return clip.once(("occlusion", using.label), make)


def inconsistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """(H, W) bool: |w + w'|^2 > 0.01 (|w|^2 + |w'|^2) + 0.5, or w leaves the picture.

    w is the flow `there` (H, W, 2) and w' the flow `back`, read where w leads. After Sundaram, Brox and Keutzer,
    "Dense point trajectories by GPU-accelerated large displacement optical flow", 2010.
    """
    height, width = there.shape[:2]
    x, y = _targets(there)
    returned = warp(back, there)
    off = np.square(there + returned).sum(-1)
    size = np.square(there).sum(-1) + np.square(returned).sum(-1)
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    found: np.ndarray = (off > 0.01 * size + 0.5) | outside
    return found


def warp(frame: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """The picture g with g(x) = frame(x + moves(x)), bilinear; beyond the border its edge pixels go on.

    With `moves` the flow from frame t and `frame` frame t + 1 this is frame t again, where both show it.
    frame: (H, W), (H, W, 2) or (H, W, 3), uint8 or float32, which it stays. moves: (H, W, 2) pixels.
    """
    cv2 = opencv()
    x, y = _targets(moves)
    found: np.ndarray = cv2.remap(np.ascontiguousarray(frame), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found


def _targets(moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel goes: columns and rows, (H, W) float32 each."""
    rows, columns = np.indices(moves.shape[:2], np.float32)
    return columns + moves[..., 0], rows + moves[..., 1]
