"""SigLIP: pictures and sentences in one space, trained with a sigmoid for each pair."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.hub import Source
from kinema.metrics.extractors.pixels import by_chunks, device


@extractor("siglip", gives=("frames", "text"), usual="google/siglip2-base-patch16-224")
class Siglip(Extractor):
    """Image and text embeddings of SigLIP (Zhai et al. 2023, arXiv 2303.15343) or SigLIP 2 (2025, arXiv 2502.14786).

    Checkpoints of one resolution (model type "siglip"; SigLIP 2 has them as well). Every frame is prepared as the
    checkpoint says (squeezed to a square). Sentences are lower-cased and filled up to the 64 tokens the encoder was
    trained with; longer ones are cut. Vectors are not unit length: who compares them divides by the length first.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({"siglip": "SiglipModel"})
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._features)

    def _features(self, frames: np.ndarray) -> Tensor:
        found: Tensor = self.network.get_image_features(self.prepare(frames)).pooler_output
        return found

    def text(self, prompt: str) -> np.ndarray:
        longest = self.network.config.text_config.max_position_embeddings
        options = dict(padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        words = self.tokenizer([prompt.lower()], **options)["input_ids"].to(device())
        with torch.inference_mode():  # without a mask, as it was trained: the filling is read, too
            found = self.network.get_text_features(words)
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector
