"""Optical flow of pictures without a network: dense inverse search, by OpenCV."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kinema.core.optional import opencv

LEAST = 16  # pixels a side; OpenCV crashes on pictures with a side below 12


def dense_inverse_search(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T-1, H, W, 2) float32, how far each pixel moves to the next frame: right and down.

    DIS of "Fast Optical Flow using Dense Inverse Search", 2016, arXiv:1603.03590: OpenCV's, preset medium. It reads
    lightness only; where a picture has no texture, what it says is little more than its surroundings' motion.
    Raises: KinemaError when OpenCV is not installed.
    """
    cv2 = opencv()
    height, width = frames.shape[1:3]
    below, beside = max(0, LEAST - height), max(0, LEAST - width)
    found = np.zeros((len(frames) - 1, height, width, 2), np.float32)
    if not len(found):
        return found
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
    if below or beside:
        grey = (cv2.copyMakeBorder(one, 0, below, 0, beside, cv2.BORDER_REPLICATE) for one in grey)
    for i, (one, other) in enumerate(pairwise(grey)):
        if not np.array_equal(one, other):  # what stands still has exactly no flow
            found[i] = search.calc(one, other, None)[:height, :width]
    return found
