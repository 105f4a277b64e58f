"""Dense inverse search: optical flow by OpenCV, without a network."""

from __future__ import annotations

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import opencv
from kinema.layers.optical_flow import dense_inverse_search
from kinema.metrics.extractors.extractor import Extractor, extractor


@extractor("dis", gives=("flow",))
class DenseInverseSearch(Extractor):
    """DIS, 2016, arXiv:1603.03590, as `kinema.layers.optical_flow` has it."""

    def __init__(self, model: str) -> None:
        if model:
            raise KinemaError(f'extractor "dis" has no other models such as {model!r}; leave "@{model}" out')
        super().__init__(model)
        opencv()  # says at once when it is missing

    def flow(self, frames: np.ndarray) -> np.ndarray:
        return dense_inverse_search(frames)
