"""Depth Anything and MiDaS: how near each pixel is, from single pictures, by a model from the hub or a folder."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kinema.layers.hub import Source
from kinema.layers.pixels import by_chunks

NAME = "depth_anything"  # before the @ of a model's name
USUAL = "depth-anything/Depth-Anything-V2-Small-hf"
KINDS = {"depth_anything": "AutoModelForDepthEstimation", "dpt": "AutoModelForDepthEstimation"}


class DepthAnything:
    """Nearness up to scale and shift, frame by frame: Depth Anything V2, 2024, arXiv:2406.09414, or MiDaS (DPT).

    A checkpoint whose configuration says that it gives metres is turned into nearness by 1 / metres.
    Raises: Unreachable when the weights cannot be had, KinemaError when they do not fit.
    """

    def __init__(self, model: str = USUAL) -> None:
        source = Source.open(NAME, model)
        self.network, self.prepare = source.network(KINDS), source.preparation()
        self.metres = source.config.get("depth_estimation_type") == "metric"

    def nearness(self, frames: np.ndarray) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 -> (T, H, W) float32."""
        return by_chunks(frames, self._nearness)

    def _nearness(self, frames: np.ndarray) -> Tensor:
        seen: Tensor = self.network(self.prepare(frames)).predicted_depth.float()
        if self.metres:
            seen = 1 / seen.clamp_min(1e-3)
        return F.interpolate(seen[:, None], frames.shape[1:3], mode="bicubic", align_corners=False)[:, 0]
