"""Faults of a clip that should follow another: its picture slides or turns, or its camera does."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.viewing import Viewing


@corruption("offset")
def offset(clip: Viewing, grade: float) -> Viewing:
    """The picture slides steadily to the right, at grade 1 by 3/20 of its shorter side in the last frame."""
    far = 0.15 * grade * min(clip.height, clip.width)
    return _warped(clip, [np.array([[1, 0, far * u], [0, 1, 0], [0, 0, 1]]) for u in _progress(clip)])


@corruption("turn")
def turn(clip: Viewing, grade: float) -> Viewing:
    """The picture turns steadily about its centre, clockwise, at grade 1 by 10 degrees in the last frame."""
    turns = []
    for angle in np.deg2rad(10.0) * grade * _progress(clip):
        c, s = np.cos(angle), np.sin(angle)
        turns.append(_about_centre(clip, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])))
    return _warped(clip, turns)


@corruption("sidestep")
def sidestep(clip: Viewing, grade: float) -> Viewing:
    """The lower half slides sideways, the more the lower it is, as a floor does under a camera that steps aside.

    The bottom row moves at grade 1 by a quarter of the shorter side in the last frame; the upper half stays.
    """
    cv2 = opencv()
    x, y = np.meshgrid(np.arange(clip.width, dtype=np.float32), np.arange(clip.height, dtype=np.float32))
    lean = np.clip(2 * y / clip.height - 1, 0, None) * np.float32(0.25 * grade * min(clip.height, clip.width))
    moved = [
        cv2.remap(f, x - lean * np.float32(u), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for f, u in zip(clip.frames, _progress(clip), strict=True)
    ]
    return clip.but(frames=np.stack(moved))


def _progress(clip: Viewing) -> np.ndarray:
    """0 in the first frame to 1 in the last."""
    return np.linspace(0, 1, len(clip))


def _about_centre(clip: Viewing, matrix: np.ndarray) -> np.ndarray:
    """A map of the plane (3, 3) about (0, 0), made one about the centre of the picture, in pixels from the first."""
    to = np.array([[1, 0, (clip.width - 1) / 2], [0, 1, (clip.height - 1) / 2], [0, 0, 1]])
    back = to.copy()
    back[:2, 2] *= -1
    centred: np.ndarray = to @ matrix @ back
    return centred


def _warped(clip: Viewing, maps: list[np.ndarray]) -> Viewing:
    """Each frame moved by its own map (3, 3) of old to new pixels; the border mirrors what is inside."""
    cv2, size = opencv(), (clip.width, clip.height)
    moved = [
        cv2.warpAffine(f, m[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for f, m in zip(clip.frames, maps, strict=True)
    ]
    return clip.but(frames=np.stack(moved))
