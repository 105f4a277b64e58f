"""Depth Anything and MiDaS: how near each pixel is, from single pictures."""

from __future__ import annotations

import numpy as np

from kinema.layers.depth_anything import NAME, USUAL, DepthAnything
from kinema.metrics.extractors.extractor import Extractor, extractor


@extractor(NAME, gives=("depth",), usual=USUAL)
class DepthAnythingDepth(Extractor):
    """Nearness up to scale and shift, frame by frame; see `kinema.layers.depth_anything`."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.network = DepthAnything(model)

    def depth(self, frames: np.ndarray) -> np.ndarray:
        return self.network.nearness(frames)
