"""How fast what moves in a clip moves, from its frames alone."""

from __future__ import annotations

import numpy as np

from kinema.layers.optical_flow import dense_inverse_search

ROWS = 64  # of the pictures that are looked at; finer ones would cost more and tell the same
FASTEST = 0.05  # share of the pixels that counts as what moves


def pace(frames: np.ndarray, fps: float) -> float:
    """Mean speed of the fastest twentieth of the picture, over all pairs of frames; picture heights per second.

    frames (T, H, W, 3) uint8. Neither size nor frame rate of the same clip changes it, and nothing that moves is 0.
    Raises: KinemaError when OpenCV is not installed.
    """
    if len(frames) < 2:
        return 0.0
    small = shrunk(frames)
    lengths = np.linalg.norm(dense_inverse_search(small), axis=-1).reshape(len(small) - 1, -1)
    count = max(1, round(FASTEST * lengths.shape[1]))
    fastest = np.partition(lengths, -count, axis=1)[:, -count:]
    return float(fastest.mean(dtype=np.float64) * fps / len(small[0]))


def shrunk(frames: np.ndarray) -> np.ndarray:
    """Frames of at most `ROWS` rows, by means of areas."""
    from kinema.core.optional import opencv

    rows, columns = frames.shape[1:3]
    if rows <= ROWS:
        return frames
    size = (max(1, round(columns * ROWS / rows)), ROWS)
    return np.stack([opencv().resize(frame, size, interpolation=opencv().INTER_AREA) for frame in frames])
