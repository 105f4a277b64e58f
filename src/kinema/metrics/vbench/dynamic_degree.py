"""VBench, dynamic degree: whether something moves."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

RATE = 8  # frames per second that VBench looks at


def threshold(height: int, width: int) -> float:
    """Pixels that the fastest part of a frame has to move: 6 for a shorter side of 256."""
    return 6.0 * min(height, width) / 256


def pairs_needed(frames: int) -> int:
    """How many pairs of that many frames have to move: a quarter of them, rounded; at least 1.

    VBench asks for none where there are 2 frames, and calls all such clips dynamic.
    """
    return max(1, round(4 * frames / 16))


def fastest(flow: np.ndarray) -> np.ndarray:
    """(T, H, W, 2) flow -> (T,) pixels: the mean length of the longest 5% of the vectors."""
    length = np.linalg.norm(flow, axis=-1).reshape(len(flow), -1)
    count = int(length.shape[1] * 0.05)
    found: np.ndarray = np.partition(length, length.shape[1] - count, axis=1)[:, -count:].mean(1, dtype=np.float64)
    return found


def is_dynamic(flow: np.ndarray) -> bool:
    """Whether enough pairs of neighbouring frames move, by their flow (T-1, H, W, 2)."""
    moving = fastest(flow) > threshold(*flow.shape[1:3])
    return bool(moving.sum() >= pairs_needed(len(flow) + 1))


@metric(
    "vbench_dynamic_degree",
    unit="share of clips",
    low=0,
    high=1,
    better=None,
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="dis",
    sees="freeze",
    ignores="mirror",
)
def dynamic_degree(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when in at least a quarter of 8 pairs a second the fastest 5% of the pixels move by 6 pixels of 256, else 0.

    VBench takes the flow of RAFT with 20 updates and its authors' weights: extractor `raft@C_T_V1`; the usual one here
    is `dis`. None for a single frame.
    """
    every = max(1, round(clip.fps / RATE))
    seen = clip if every == 1 else clip.but(frames=clip.frames[::every])
    return float(is_dynamic(flow(seen, extractor))) if len(seen) > 1 else None
