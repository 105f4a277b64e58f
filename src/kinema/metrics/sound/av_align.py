"""AV-Align: whether onsets of the sound and peaks of motion come together."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow
from kinema.metrics.metric import metric
from kinema.metrics.onsets import onsets
from kinema.metrics.viewing import Viewing


def motion_peaks(flow: np.ndarray, fps: float) -> np.ndarray:
    """(T-1, H, W, 2) flow -> seconds of the frames towards which more moves than before and after.

    The mean |flow| towards a frame is its motion; the first frame has that of the second, and no peak.
    """
    motion = np.linalg.norm(flow, axis=-1).mean((1, 2), dtype=np.float64)
    motion = np.concatenate([motion[:1], motion])
    return (1 + np.flatnonzero((motion[1:-1] > motion[:-2]) & (motion[1:-1] > motion[2:]))) / fps


def shared(heard: np.ndarray, seen: np.ndarray, fps: float) -> float | None:
    """Intersection over union of two lists of seconds: those heard within one frame of one seen are shared.

    None where both are empty.
    """
    near = np.abs(heard[:, None] - seen) < 1 / fps
    both = int(near.any(1).sum())
    union = len(heard) + len(seen) - both
    return both / union if union else None


@metric(
    "av_align",
    unit="share of peaks",
    low=0,
    high=1,
    better="higher",
    source='"Diverse and Aligned Audio-to-Video Generation via Text-to-Video Model Adaptation", 2023, arXiv:2309.16429',
    extractor="farneback",
    needs=("sound",),
    sees="unseen_sound",
    ignores="mirror",
)
def av_align(clip: Viewing, extractor: Extractor) -> float | None:
    """Intersection over union of onsets of the sound and peaks of optical flow, within one frame of each other.

    Onsets as librosa finds them, peaks of the mean length of Farneback's flow. None where nothing is heard or seen.
    """
    return shared(onsets(clip), motion_peaks(flow(clip, extractor), clip.fps), clip.fps)
