"""AV-Align: whether onsets of the sound and peaks of motion come together."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.flow import flow
from kinema.metrics.metric import metric
from kinema.metrics.onsets import onsets
from kinema.metrics.viewing import Viewing

LEAST = 0.1  # pixels, mean over the picture; less motion is no peak


def motion_peaks(flow: np.ndarray, fps: float) -> np.ndarray:
    """(T-1, H, W, 2) flow -> seconds of the frames towards which more moves than before and after, 0.1 pixels at least.

    The mean |flow| towards a frame is its motion; the first frame has that of the second, and no peak.
    """
    motion = np.linalg.norm(flow, axis=-1).mean((1, 2), dtype=np.float64)
    motion = np.concatenate([motion[:1], motion])
    inner = motion[1:-1]
    found: np.ndarray = 1 + np.flatnonzero((inner > motion[:-2]) & (inner > motion[2:]) & (inner >= LEAST))
    return found / fps


def shared(heard: np.ndarray, seen: np.ndarray, fps: float) -> float | None:
    """Intersection over union of two ordered lists of seconds; None where both are empty.

    Shared is what is heard less than one frame from something seen, the first one that nothing before it has taken.
    """
    both, free = 0, list(seen)
    for time in heard:
        near = next((i for i, other in enumerate(free) if abs(time - other) < 1 / fps), None)
        if near is not None:
            del free[near]
            both += 1
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
    """Intersection over union of onsets of the sound and peaks of optical flow, less than one frame from each other.

    As in the released code: onsets as librosa finds them; peaks of the mean length of Farneback's flow, at least 0.1
    pixels of the clip; each in one pair only. So compare clips of one size and frame rate. None where nothing is heard
    or seen, where that code divides by 0. What comes a fifth of a second late is told on rendered clips (of 24, 0.19
    falls to 0.04), in a film with music over it not at all.
    """
    return shared(onsets(clip), motion_peaks(flow(clip, extractor), clip.fps), clip.fps)
