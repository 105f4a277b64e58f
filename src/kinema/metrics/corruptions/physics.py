"""Faults of physics: objects cut out of their frames and put back elsewhere, larger, or not at all.

They work on what kinema's own sight takes for objects, so on clips of the world; elsewhere they move, enlarge and take
away whatever it takes for one.
"""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.objects import SURE
from kinema.metrics.viewing import Viewing

RIM = 2  # pixels around an object that go with it when it is cut out


@corruption("vanish")
def vanish(clip: Viewing, grade: float) -> Viewing:
    """Objects are gone for a while in the middle of the clip, at grade 1 for half of it."""
    middle, half = (len(clip) - 1) / 2, grade * len(clip) / 4
    gone = np.abs(np.arange(len(clip)) - middle) <= half
    return _put(clip, np.zeros((len(clip), 2)), np.where(gone, 0.0, 1.0))


@corruption("hover")
def hover(clip: Viewing, grade: float) -> Viewing:
    """Objects rise in the middle of the clip and stay up there, at grade 1 by a quarter of the picture's height."""
    risen = np.clip((np.arange(len(clip)) / max(len(clip) - 1, 1) - 0.4) / 0.15, 0, 1)
    moves = np.stack([np.zeros(len(clip)), -risen * grade * clip.height / 4], -1)
    return _put(clip, moves, np.ones(len(clip)))


@corruption("teleport")
def teleport(clip: Viewing, grade: float) -> Viewing:
    """Objects are elsewhere from the middle of the clip on, at grade 1 a quarter of the picture's height aside."""
    later = np.arange(len(clip)) >= len(clip) // 2
    mask = _seen(clip)[later]
    columns = np.nonzero(mask)[2]
    way = -1 if len(columns) and columns.mean() > clip.width / 2 else 1
    moves = np.stack([later * way * grade * clip.height / 4, np.zeros(len(clip))], -1)
    return _put(clip, moves, np.ones(len(clip)))


@corruption("swell")
def swell(clip: Viewing, grade: float) -> Viewing:
    """Objects grow steadily, at grade 1 to twice their size."""
    return _put(clip, np.zeros((len(clip), 2)), 1 + grade * np.linspace(0, 1, len(clip)))


def _seen(clip: Viewing) -> np.ndarray:
    """Where objects are, (T, H, W) bool."""
    world = load_extractor("world")
    return clip.once(("mask", world.label), lambda: world.mask(clip.frames)) > SURE


def _put(clip: Viewing, moves: np.ndarray, sizes: np.ndarray) -> Viewing:
    """Objects moved by (T, 2) pixels, x and y, and enlarged about their feet by (T,); 0 takes them away."""
    made = [
        _redrawn(frame, mask, move, float(size)) if mask.any() and (move.any() or size != 1) else frame
        for frame, mask, move, size in zip(clip.frames, _seen(clip), moves, sizes, strict=True)
    ]
    return clip.but(frames=np.stack(made))


def _redrawn(frame: np.ndarray, mask: np.ndarray, move: np.ndarray, size: float) -> np.ndarray:
    """One frame with its objects taken out, the hole filled from its border, and put in again."""
    cv2 = opencv()
    rim = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
    empty: np.ndarray = cv2.inpaint(frame, rim, 3, cv2.INPAINT_TELEA)
    if size == 0:
        return empty
    rows, columns = np.nonzero(mask)
    foot = np.array([columns.mean(), rows.max()])
    place = np.array([[size, 0, 0], [0, size, 0]], np.float64)
    place[:, 2] = foot + move - size * foot
    edges = frame.shape[1], frame.shape[0]
    where = cv2.warpAffine(mask.astype(np.float32), place, edges, flags=cv2.INTER_LINEAR)[..., None]
    drawn = cv2.warpAffine(frame, place, edges, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found: np.ndarray = np.rint(where * drawn + (1 - where) * empty).astype(np.uint8)
    return found
