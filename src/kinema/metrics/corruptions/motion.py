"""Faults in time: what flickers, jumps, stands still, comes in another order or slides away."""

from __future__ import annotations

import numpy as np

from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.corruptions.picture import to_bytes
from kinema.metrics.viewing import Viewing


@corruption("flicker")
def flicker(clip: Viewing, grade: float) -> Viewing:
    """The light changes from frame to frame, up and down by as much as 30% at grade 1."""
    gain = 1 + 0.3 * grade * np.random.default_rng(0).uniform(-1, 1, len(clip)).astype(np.float32)
    return clip.but(frames=to_bytes(clip.frames * gain[:, None, None, None]))


@corruption("shuffle")
def shuffle(clip: Viewing, grade: float) -> Viewing:
    """Frames change places with others: that share of all of them."""
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(clip))[: round(grade * len(clip))])
    order = np.arange(len(clip))
    order[chosen] = np.roll(rng.permutation(chosen), 1)
    return clip.but(frames=clip.frames[order])


@corruption("freeze")
def freeze(clip: Viewing, grade: float) -> Viewing:
    """The end stands still: that share of the frames repeats the one before it; all the first at grade 1."""
    last = max(0, len(clip) - 1 - round(grade * len(clip)))
    return clip.but(frames=clip.frames[np.minimum(np.arange(len(clip)), last)])


@corruption("shake")
def shake(clip: Viewing, grade: float) -> Viewing:
    """The picture jumps from frame to frame, at grade 1 by as much as a tenth of its shorter side."""
    most = 0.1 * grade * min(clip.height, clip.width)
    moves = np.rint(np.random.default_rng(0).uniform(-1, 1, (len(clip), 2)) * most).astype(int)
    return clip.but(frames=np.stack([_moved(f, *m) for f, m in zip(clip.frames, moves, strict=True)]))


@corruption("drift")
def drift(clip: Viewing, grade: float) -> Viewing:
    """The picture reddens and brightens steadily, by 80 grey levels of red in the last frame at grade 1."""
    ramp = np.linspace(0, 80 * grade, len(clip), dtype=np.float32)[:, None, None, None]
    return clip.but(frames=to_bytes(clip.frames + ramp * np.array([1, 0.3, -0.3], np.float32)))


@corruption("backwards")
def backwards(clip: Viewing, grade: float) -> Viewing:
    """The last frame first; the grade changes nothing."""
    return clip.but(frames=clip.frames[::-1].copy())


def _moved(frame: np.ndarray, down: int, right: int) -> np.ndarray:
    """A frame moved by whole pixels; its border repeats."""
    h, w = frame.shape[:2]
    rows, columns = np.clip(np.arange(h) - down, 0, h - 1), np.clip(np.arange(w) - right, 0, w - 1)
    return frame[rows][:, columns]
