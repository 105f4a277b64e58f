"""Farneback's optical flow, without a network: what AV-Align uses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import opencv
from kinema.metrics.extractors.extractor import Extractor, extractor


@extractor("farneback", gives=("flow",))
class Farneback(Extractor):
    """Farneback, "Two-frame motion estimation based on polynomial expansion", 2003, as in AV-Align's code.

    3 levels, each half as large, windows of 15 pixels, 3 rounds, polynomials over 5 pixels smoothed by 1.2.
    """

    def __init__(self, model: str) -> None:
        if model:
            raise KinemaError(f'extractor "farneback" has no other models such as {model!r}; leave "@{model}" out')
        super().__init__(model)
        opencv()  # says at once when it is missing

    def flow(self, frames: np.ndarray) -> np.ndarray:
        cv2 = opencv()
        found = np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
        grey = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
        for i, (one, other) in enumerate(pairwise(grey)):
            found[i] = cv2.calcOpticalFlowFarneback(one, other, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        return found
