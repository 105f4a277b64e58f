"""Whether things are where they were planned to be, go where they were to go, and stay what they were.

Plain readers for checks that know what was planned; what sees the things is an extractor that gives masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinema.metrics.control.layout_iou import layout_overlap
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.objects import ObjectTrack, objects
from kinema.metrics.viewing import Viewing

STILL = 0.01  # of the shorter side, root mean square about the mean place: what moves less stands still
HUES = 12  # bins of hue


def path_cosine(clip: Viewing, reference: Viewing, extractor: Extractor) -> float | None:
    """Whether the largest thing goes as that of the reference does, -1..1, wherever it is and however far it goes.

    The cosine of the displacements between all pairs of frames, which is that of the places about their mean; over the
    frames in which both are seen. A thing that stands still counts as one that moves by chance, about 0, and so does
    one that is not there. None where the reference's is not seen or stands still.
    """
    own, wanted = _path(clip, extractor), _path(reference, extractor)
    if wanted is None or _spread(wanted) < STILL:
        return None
    if own is None:
        return 0.0
    both = ~np.isnan(own[:, 0]) & ~np.isnan(wanted[:, 0])
    if both.sum() < 2:
        return 0.0
    a, b = (places[both] - places[both].mean(0) for places in (own, wanted))
    least = STILL * np.sqrt(both.sum())
    return float((a * b).sum() / (max(np.linalg.norm(a), least) * max(np.linalg.norm(b), least)))


def box_overlap(clip: Viewing, planned: np.ndarray, extractor: Extractor) -> float | None:
    """How well the boxes of the clip's things cover planned ones (M, T, 4) in shares of the picture; see layout_iou."""
    whole = np.array([clip.width, clip.height] * 2)
    found = np.array([thing.boxes / whole for thing in objects(clip, extractor)]).reshape(-1, len(clip), 4)
    return layout_overlap(found, planned)


def size_wobble(clip: Viewing, extractor: Extractor) -> float | None:
    """How unsteadily the largest thing changes its size: root mean square second difference of log2 of its edge.

    A thing that grows or comes nearer at one rate has 0. Only frames in which it is seen apart from the border count,
    three neighbours at a time; None where there are none.
    """
    thing = _largest(clip, extractor)
    if thing is None:
        return None
    left, top, right, bottom = thing.boxes.T
    free = thing.seen & (left > 0) & (top > 0) & (right < clip.width) & (bottom < clip.height)
    edge = np.where(free, 0.5 * np.log2(np.maximum(thing.area, 1)), np.nan)
    bends = np.diff(edge, 2)
    bends = bends[~np.isnan(bends)]
    return float(np.sqrt(np.square(bends).mean())) if len(bends) else None


def hues_apart(shots: Sequence[Viewing], extractor: Extractor) -> float | None:
    """How unlike the largest thing is coloured from shot to shot, 0..1, over all pairs of shots that show one.

    Half of the L1 distance of histograms of hue in which a pixel counts by its colourfulness, 12 hues, each pixel in
    shares to the two nearest. None where fewer than two shots show a coloured thing.
    """
    found = [hues(shot.frames[thing.mask]) for shot in shots if (thing := _largest(shot, extractor)) is not None]
    known = [histogram for histogram in found if histogram is not None]
    pairs = [0.5 * np.abs(a - b).sum() for i, a in enumerate(known) for b in known[:i]]
    return float(np.mean(pairs)) if pairs else None


def hues(pixels: np.ndarray) -> np.ndarray | None:
    """Histogram of hue, (HUES,), of pixels (P, 3) uint8; None when all are grey."""
    values = pixels.astype(np.float64) / 255
    red, green, blue = values.T
    chroma = np.ptp(values, axis=1)
    angle = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi) * HUES % HUES
    low = np.floor(angle).astype(int)
    found: np.ndarray = np.bincount(low % HUES, chroma * (1 - (angle - low)), HUES)
    found = found + np.bincount((low + 1) % HUES, chroma * (angle - low), HUES)
    return found / found.sum() if found.sum() > 0 else None


def unchanged(frames: np.ndarray, sketch: np.ndarray, within: int) -> float:
    """Share of the pixels of frames (T, H, W, 3) uint8 that differ from a sketch's by at most `within` grey levels."""
    apart = np.abs(frames.astype(np.int16) - sketch.astype(np.int16)).max(-1)
    return float((apart <= within).mean())


def _largest(clip: Viewing, extractor: Extractor) -> ObjectTrack | None:
    return next(iter(objects(clip, extractor)), None)


def _path(clip: Viewing, extractor: Extractor) -> np.ndarray | None:
    """Places (T, 2) of the largest thing in shorter sides; NaN where it is not seen."""
    thing = _largest(clip, extractor)
    return None if thing is None else thing.centre / min(clip.height, clip.width)


def _spread(places: np.ndarray) -> float:
    """Root mean square distance from the mean place."""
    return float(np.sqrt(np.nansum(np.square(places - np.nanmean(places, axis=0))) / max(len(places), 1)))
