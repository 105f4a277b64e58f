"""VBench, motion smoothness: whether every other frame can be told from its neighbours."""

from __future__ import annotations

from itertools import starmap

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import back_flow, flow, warp
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def half_way(one: np.ndarray, other: np.ndarray, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The frame half way between two (H, W, 3) uint8, by the optical flow (H, W, 2) from one to the other and back.

    F_to_one = (back - there) / 4, F_to_other = -F_to_one, and the mean of both frames warped along them: equation 4 of
    "Super SloMo", 2018, arXiv:1712.00080, at t = 1/2, without its networks.
    """
    moves = (back - there) / np.float32(4)
    mean = (warp(one, moves).astype(np.float32) + warp(other, -moves).astype(np.float32)) / 2
    found: np.ndarray = np.rint(mean).astype(np.uint8)
    return found


def smoothness(frames: np.ndarray, made: np.ndarray) -> float:
    """(255 - mean |I - I_made|) / 255 over frames 1, 3, 5 ... and what was made in their places."""
    odd = frames[1 : 2 * len(made) : 2].astype(np.int16)
    return float((255 - np.mean([np.abs(a - b).mean(dtype=np.float64) for a, b in zip(odd, made, strict=True)])) / 255)


@metric(
    "vbench_motion_smoothness",
    unit="share of the range",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982; without AMT: "Super SloMo", 2018, arXiv:1712.00080, equation 4',
    extractor="dis",
    sees="shake",
    ignores="mirror",
)
def motion_smoothness(clip: Viewing, extractor: Extractor) -> float | None:
    """How well every second frame can be made again from the two beside it; 1 when it is the same.

    (255 - mean |I - I_made|) / 255 over those frames. VBench makes them with the network AMT-S: extractor `amt`. The
    usual one here is not VBench's, and its numbers are not comparable with published ones: along the optical flow of
    `dis` (or `raft`). None for fewer than 3 frames.
    """
    if len(clip) < 3:
        return None
    even = clip.but(frames=clip.frames[::2])
    if "between" in extractor.gives:
        made = extractor.between(even.frames)
    else:
        ways = zip(even.frames[:-1], even.frames[1:], flow(even, extractor), back_flow(even, extractor), strict=True)
        made = np.stack(list(starmap(half_way, ways)))
    return smoothness(clip.frames, made)
