"""Depth Anything and MiDaS: how near each pixel is, from single pictures."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.hub import Source
from kinema.metrics.extractors.pixels import by_chunks

KINDS = {"depth_anything": "AutoModelForDepthEstimation", "dpt": "AutoModelForDepthEstimation"}


@extractor("depth_anything", gives=("depth",), usual="depth-anything/Depth-Anything-V2-Small-hf")
class DepthAnything(Extractor):
    """Nearness up to scale and shift, frame by frame: Depth Anything V2, 2024, arXiv:2406.09414, or MiDaS (DPT).

    A checkpoint whose configuration says that it gives metres is turned into nearness by 1 / metres.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network, self.prepare = source.network(KINDS), source.preparation()
        self.metres = source.config.get("depth_estimation_type") == "metric"

    def depth(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._nearness)

    def _nearness(self, frames: np.ndarray) -> Tensor:
        """(T, H, W, 3) uint8 -> (T, H, W)."""
        seen: Tensor = self.network(self.prepare(frames)).predicted_depth.float()
        if self.metres:
            seen = 1 / seen.clamp_min(1e-3)
        return F.interpolate(seen[:, None], frames.shape[1:3], mode="bicubic", align_corners=False)[:, 0]
