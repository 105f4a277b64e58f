"""Faults of what a clip shows: it turns into another clip, or its colours turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.corruptions.picture import to_bytes
from kinema.metrics.viewing import Viewing


@corruption("becomes_another", of="set")
def becomes_another(clips: Sequence[Viewing], grade: float) -> list[Viewing]:
    """Each clip fades into the next one of the set, more from frame to frame, at grade 1 wholly in its last frame."""
    return [_faded(clip, clips[(i + 1) % len(clips)], grade) for i, clip in enumerate(clips)]


def _faded(clip: Viewing, other: Viewing, grade: float) -> Viewing:
    cv2 = opencv()
    count, height, width = clip.frames.shape[:3]
    chosen = other.frames[np.linspace(0, len(other) - 1, count).round().astype(int)]
    fits = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in chosen])
    share = grade * np.linspace(0, 1, count, dtype=np.float32)[:, None, None, None]
    return clip.but(frames=to_bytes(clip.frames * (1 - share) + fits * share))


@corruption("turning_hues")
def turning_hues(clip: Viewing, grade: float) -> Viewing:
    """From some frame on every hue is another, a third of the circle further; grade is the share of such frames."""
    cv2 = opencv()
    frames = clip.frames.copy()
    for frame in frames[len(frames) - round(grade * len(frames)) :]:
        hsv = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + 60) % 180  # OpenCV counts hues in steps of two degrees
        frame[:] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return clip.but(frames=frames)
