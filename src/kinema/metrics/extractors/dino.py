"""DINO: what a picture shows, learned without labels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from kinema.layers.hub import Source
from kinema.layers.pixels import by_chunks
from kinema.metrics.extractors.extractor import Extractor, extractor

KINDS = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",  # transformers prepares its frames with torchvision only
}


@extractor("dino", gives=("frames",), usual="facebook/dino-vitb16")
class Dino(Extractor):
    """The class token after the last normalisation of DINO (Caron et al. 2021, arXiv 2104.14294) or DINOv2.

    The usual one is the network of VBench's subject consistency. Every frame is prepared as the checkpoint says (DINO:
    squeezed to 224x224; VBench keeps the shape of the frame). Vectors are not unit length: who compares them divides by
    the length first.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        # The pooler of a ViT is no part of DINO, and its checkpoints have no weights for it.
        options = {"add_pooling_layer": False} if source.config.get("model_type") == "vit" else {}
        self.network, self.prepare = source.network(KINDS, **options), source.preparation()

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._features)

    def _features(self, frames: np.ndarray) -> Tensor:
        tokens: Tensor = self.network(self.prepare(frames)).last_hidden_state  # (T, 1 + patches, D), the class first
        return tokens[:, 0]
