"""Dense inverse search: optical flow by OpenCV, without a network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.optional import opencv

LEAST = 16  # pixels a side; OpenCV crashes on pictures with a side below 12


@extractor("dis", gives=("flow",))
class DenseInverseSearch(Extractor):
    """DIS of "Fast Optical Flow using Dense Inverse Search", 2016, arXiv:1603.03590: OpenCV's, preset medium.

    It reads lightness only; where a picture has no texture, what it says is little more than its surroundings' motion.
    """

    def __init__(self, model: str) -> None:
        if model:
            raise KinemaError(f'extractor "dis" has no other models such as {model!r}; leave "@{model}" out')
        super().__init__(model)
        opencv()  # says at once when it is missing

    def flow(self, frames: np.ndarray) -> np.ndarray:
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
