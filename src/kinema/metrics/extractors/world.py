"""kinema's own judge as an extractor: it ships with kinema and knows the world's clips, nothing else."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.judge import Judge


@extractor("world", gives=("clip", "logits"))
class World(Extractor):
    """Features of `kinema.metrics.judge`: 13 frames spread evenly over the clip, 64 pixels a side, 128 numbers.

    Its classes are the judge's event words, first event slot. Its numbers are comparable with each other only.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.judge = Judge.load(model or None)

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        return self.judge.features([frames])[0].numpy()

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        found: np.ndarray = self.judge.logits([frames])["event"][0, 0].numpy()
        return found
