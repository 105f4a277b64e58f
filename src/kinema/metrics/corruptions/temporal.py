"""Faults along a clip: cuts, borders of chunks, a picture that melts or loses its sharpness."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.corruptions.picture import to_bytes
from kinema.metrics.viewing import Viewing

CHUNK = 8  # frames from seam to seam


@corruption("spliced")
def spliced(clip: Viewing, grade: float) -> Viewing:
    """Cuts, at grade 1 five: every other piece is upside down and a negative."""
    piece = np.arange(len(clip)) * (1 + round(5 * grade)) // len(clip)
    other = (piece % 2 == 1)[:, None, None, None]
    return clip.but(frames=np.where(other, 255 - clip.frames[:, ::-1], clip.frames))


@corruption("seams")
def seams(clip: Viewing, grade: float) -> Viewing:
    """Chunks of 8 frames that do not fit: each is lighter or darker than the one before, by 40% at grade 1."""
    side = np.arange(len(clip)) // CHUNK % 2 * 2 - 1
    gain = 1 + np.float32(0.2 * grade) * side.astype(np.float32)
    return clip.but(frames=to_bytes(clip.frames * gain[:, None, None, None]))


@corruption("wobble")
def wobble(clip: Viewing, grade: float) -> Viewing:
    """The picture melts: smooth local moves, drawn anew in every frame, at grade 1 of 1/100 of its shorter side."""
    cv2 = opencv()
    rng = np.random.default_rng(0)
    size = grade * min(clip.height, clip.width) / 100
    rows, columns = np.indices((clip.height, clip.width), np.float32)
    found = []
    for frame in clip.frames:
        coarse = rng.standard_normal((6, 6, 2)).astype(np.float32) * np.float32(size)
        moves = cv2.resize(coarse, (clip.width, clip.height), interpolation=cv2.INTER_CUBIC)
        found.append(cv2.remap(frame, columns + moves[..., 0], rows + moves[..., 1], cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_REPLICATE))  # fmt: skip
    return clip.but(frames=np.stack(found))


@corruption("tremble")
def tremble(clip: Viewing, grade: float) -> Viewing:
    """The whole picture trembles by parts of a pixel and more, at grade 1 by as much as 1/50 of its shorter side."""
    cv2 = opencv()
    most = grade * min(clip.height, clip.width) / 50
    found = []
    for frame, (x, y) in zip(clip.frames, np.random.default_rng(0).uniform(-most, most, (len(clip), 2)), strict=True):
        move = np.array([[1, 0, x], [0, 1, y]])
        found.append(cv2.warpAffine(frame, move, (clip.width, clip.height), borderMode=cv2.BORDER_REPLICATE))
    return clip.but(frames=np.stack(found))


@corruption("soften")
def soften(clip: Viewing, grade: float) -> Viewing:
    """The picture blurs steadily; sigma in the last frame at grade 1 is 1/80 of the shorter side."""
    cv2 = opencv()
    sigmas = grade * min(clip.height, clip.width) / 80 * np.linspace(0, 1, len(clip))
    pairs = zip(clip.frames, sigmas, strict=True)
    return clip.but(frames=np.stack([cv2.GaussianBlur(f, (0, 0), s) if s else f for f, s in pairs]))
