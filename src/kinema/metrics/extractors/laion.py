"""LAION's aesthetic score: how beautiful people would find a picture, by a linear head on CLIP features."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.layers.hub import Source
from kinema.layers.pixels import by_chunks, device
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.tensors import tensors

BEST = 10.0  # of the scale


@extractor("laion", gives=("quality",), usual="shunk031/aesthetics-predictor-v1-vit-large-patch14")
class Laion(Extractor):
    """LAION-Aesthetics V1 (LAION, 2022): w . f / |f| + b, f of CLIP ViT-L/14, as a share of its scale of 10.

    The model holds a vision tower of CLIP with its projection, in the layout of transformers, and the head beside it as
    `predictor.weight` (1, D) and `predictor.bias` (1,). Frames are prepared as the checkpoint says. Nothing holds the
    score between 0 and 1.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        kind = "CLIPVisionModelWithProjection"
        self.network = source.network({"clip_vision_model": kind, "aesthetics_predictor": kind})
        self.prepare = source.preparation()
        stored = tensors(self.name, model, "model.safetensors")
        if not {"predictor.weight", "predictor.bias"} <= set(stored):
            raise KinemaError(f"extractor {self.name}@{model}: there is no predictor.weight and predictor.bias in it")
        self.weight, self.bias = (stored[f"predictor.{name}"].float().to(device()) for name in ("weight", "bias"))

    def quality(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._score)

    def _score(self, frames: np.ndarray) -> Tensor:
        features = F.normalize(self.network(self.prepare(frames)).image_embeds, dim=-1)
        return F.linear(features, self.weight, self.bias)[:, 0] / BEST
