"""CLIP: pictures and sentences in one space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.hub import Source
from kinema.metrics.extractors.pixels import by_chunks, device


@extractor("clip", gives=("frames", "text"), usual="openai/clip-vit-base-patch32")
class Clip(Extractor):
    """Projected image and text embeddings of a CLIP model (Radford et al. 2021, arXiv 2103.00020).

    Every frame is prepared as the checkpoint says (CLIP: shorter edge to 224 bicubic, centre crop). Vectors are not
    unit length: CLIPSIM and its like divide by the length first. A sentence longer than the text encoder reads
    (77 tokens) is cut.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({"clip": "CLIPModel"})
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._features)

    def _features(self, frames: np.ndarray) -> Tensor:
        found: Tensor = self.network.get_image_features(self.prepare(frames)).pooler_output
        return found

    def text(self, prompt: str) -> np.ndarray:
        longest = self.network.config.text_config.max_position_embeddings
        words = self.tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt").to(device())
        with torch.inference_mode():
            found = self.network.get_text_features(words["input_ids"], attention_mask=words["attention_mask"])
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector
