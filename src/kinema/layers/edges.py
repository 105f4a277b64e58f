"""Outlines of pictures, by OpenCV."""

from __future__ import annotations

import numpy as np

from kinema.core.optional import opencv

LOW, HIGH = 40, 120  # Canny's thresholds, grey levels of the 3x3 Sobel gradient


def edges(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 -> (T, H, W) bool, Canny edges of the grey picture.

    Raises: KinemaError when OpenCV is not installed.
    """
    cv2 = opencv()
    return np.stack([cv2.Canny(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), LOW, HIGH) > 0 for f in frames])
