"""Faults of single pictures: noise, blur, light and colour."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.viewing import Viewing


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """Grey levels as floats, rounded and cut to 0..255."""
    found: np.ndarray = np.clip(np.rint(frames), 0, 255).astype(np.uint8)
    return found


@corruption("none")
def none(clip: Viewing, grade: float) -> Viewing:
    """Nothing: the same frames again."""
    return clip.but(frames=clip.frames.copy())


@corruption("noise")
def noise(clip: Viewing, grade: float) -> Viewing:
    """Normal noise, at grade 1 of 50 grey levels; drawn anew in every frame."""
    drawn = np.random.default_rng(0).standard_normal(clip.frames.shape, dtype=np.float32)
    return clip.but(frames=to_bytes(clip.frames + 50 * grade * drawn))


@corruption("blur")
def blur(clip: Viewing, grade: float) -> Viewing:
    """Gaussian blur, the same in every frame; sigma at grade 1 is 1/25 of the shorter side."""
    cv2 = opencv()
    sigma = grade * min(clip.height, clip.width) / 25
    return clip.but(frames=np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in clip.frames]))


@corruption("darker")
def darker(clip: Viewing, grade: float) -> Viewing:
    """Every frame darker by the same factor, 0.4 at grade 1."""
    return clip.but(frames=to_bytes(clip.frames * np.float32(1 - 0.6 * grade)))


@corruption("pale")
def pale(clip: Viewing, grade: float) -> Viewing:
    """Colours towards grey of the same lightness, all grey at grade 1."""
    grey = clip.frames @ np.array([0.299, 0.587, 0.114], np.float32)
    return clip.but(frames=to_bytes(clip.frames * np.float32(1 - grade) + np.float32(grade) * grey[..., None]))


@corruption("mirror")
def mirror(clip: Viewing, grade: float) -> Viewing:
    """Left and right change places, in the reference too; the grade changes nothing."""
    other = clip.reference
    return clip.but(
        frames=clip.frames[:, :, ::-1].copy(), reference=other and other.but(frames=other.frames[:, :, ::-1].copy())
    )
