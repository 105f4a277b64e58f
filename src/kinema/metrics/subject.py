"""The subject of a clip of one thing: whether it stays what it was in the first second, and how far it goes.

The extractor's mask says which pixels are of things; all of them in a frame are the subject. A thing that comes up
beside it therefore changes its colour, its size and its place, as it should.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.objects import SURE
from kinema.metrics.viewing import Viewing

LEAST = 0.002  # of the picture; with less in its mask a frame shows no subject
DARK = 25.0  # lightness in CIELAB below which a tint is no longer told from noise
LOST = 60.0  # CIELAB units, what a frame without a subject counts: as far as two colours of the world
STRIDE = 0.125  # of the picture's diagonal from one frame to the next; nothing in the world moves faster


@dataclass(frozen=True, eq=False)
class Subject:
    """What the masks of a clip's frames hold; NaN in frames that show no subject."""

    colour: np.ndarray  # (T, 2) median a* and b* in CIELAB at lightness 50, so that shadow changes them little
    area: np.ndarray  # (T,) share of the picture, 0 where there is none
    centre: np.ndarray  # (T, 2) x and y in diagonals of the picture

    @property
    def seen(self) -> np.ndarray:
        """(T,) bool."""
        return self.area > 0


def subject(clip: Viewing, extractor: Extractor) -> Subject:
    """The subject of a clip. Raises: KinemaError when the extractor gives no masks."""

    def find() -> Subject:
        sure = clip.once(("mask", extractor.label), lambda: extractor.mask(clip.frames))
        return measured(clip.frames, sure > SURE)

    return clip.once(("subject", extractor.label), find)


def measured(frames: np.ndarray, mask: np.ndarray) -> Subject:
    """Of frames (T, H, W, 3) uint8 by which pixels are of things, (T, H, W) bool."""
    cv2 = opencv()
    count, height, width = mask.shape
    area = mask.mean((1, 2))
    area = np.where(area < LEAST, 0.0, area)
    colour, centre = np.full((count, 2), np.nan), np.full((count, 2), np.nan)
    for t in np.flatnonzero(area):
        lab = cv2.cvtColor(frames[t].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lightness, *tint = np.median(lab[mask[t]], axis=0)
        colour[t] = np.array(tint) * 50 / max(lightness, DARK)
        rows, columns = np.nonzero(mask[t])
        centre[t] = np.array([columns.mean(), rows.mean()]) / np.hypot(height, width)
    return Subject(colour, area, centre)


def hue_drift(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean distance of the subject's colour from that of the first second, in CIELAB a* and b*, over all later frames.

    A frame without a subject counts 60. None where the first second shows none, or is all there is.
    """
    found, second = subject(clip, extractor), round(clip.fps)
    if not found.seen[:second].any() or len(clip) <= second:
        return None
    first = np.nanmean(found.colour[:second], axis=0)
    far = np.linalg.norm(found.colour[second:] - first, axis=1)
    return float(np.nan_to_num(far, nan=LOST).mean())


def area_drift(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean |log2| of the subject's area over that of the first second, over all later frames; 1 is twice or half.

    A frame without a subject counts 2. None where the first second shows none, or is all there is.
    """
    found, second = subject(clip, extractor), round(clip.fps)
    if not found.seen[:second].any() or len(clip) <= second:
        return None
    first = found.area[:second][found.seen[:second]].mean()
    later = found.area[second:]
    far = np.abs(np.log2(np.where(later > 0, later, first) / first))
    return float(np.where(later > 0, far, 2.0).mean())


def backdrop_drift(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean distance in CIELAB of what stands behind the subject from the first second, over all later frames.

    Of the picture shrunk to 16 by 16, where the mask shows nothing in either. None for a clip of a second or less, and
    where the subject hides everything.
    """
    second = round(clip.fps)
    if len(clip) <= second:
        return None
    cv2, cells = opencv(), (16, 16)
    sure = clip.once(("mask", extractor.label), lambda: extractor.mask(clip.frames))
    hidden = np.array([cv2.resize((m > SURE).astype(np.float32), cells, interpolation=cv2.INTER_AREA) for m in sure])
    small = [cv2.resize(frame, cells, interpolation=cv2.INTER_AREA) for frame in clip.frames]
    lab = np.array([cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame in small])
    free = (hidden[second:] == 0) & (hidden[:second] == 0).all(axis=0)
    far = np.linalg.norm(lab[second:] - lab[:second].mean(axis=0), axis=-1)
    return float(far[free].mean()) if free.any() else None


def path(clip: Viewing, extractor: Extractor) -> float | None:
    """How far the subject's centre goes, diagonals of the picture a second, as `motion` in "FreeNoise" and its like.

    Only steps between frames that both show it count, and none longer than what can move in the world. None where
    there are no such steps.
    """
    steps = _steps(subject(clip, extractor))
    steps = steps[steps <= STRIDE]
    return float(steps.mean() * clip.fps) if len(steps) else None


def jumps(clip: Viewing, extractor: Extractor) -> float:
    """Times that the subject is somewhere else in the next frame, further than it can move, or is gone or there."""
    found = subject(clip, extractor)
    return float((_steps(found) > STRIDE).sum() + np.count_nonzero(np.diff(found.seen)))


def repeat(clip: Viewing, extractor: Extractor, least: int = 25) -> float | None:
    """Largest correlation of the subject's path with itself `least` frames later or more; 1 comes back exactly.

    None for clips shorter than three times that, and where the subject stands still or is not always seen.
    """
    centre = subject(clip, extractor).centre
    if len(centre) < 3 * least or np.isnan(centre).any() or (centre.std(axis=0) < 1e-3).all():
        return None
    return max(_correlation(centre[lag:], centre[:-lag]) for lag in range(least, len(centre) - least + 1))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def _steps(found: Subject) -> np.ndarray:
    """(N,) lengths between neighbouring frames that both show the subject, diagonals."""
    lengths = np.linalg.norm(np.diff(found.centre, axis=0), axis=1)
    both: np.ndarray = lengths[~np.isnan(lengths)]
    return both
