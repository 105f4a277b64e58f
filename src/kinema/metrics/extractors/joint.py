"""What CLIP, SigLIP and X-CLIP share: a network of transformers that puts pictures and sentences into one space."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.layers.hub import Source
from kinema.layers.pixels import by_chunks, device
from kinema.metrics.extractors.extractor import Extractor


class Joint(Extractor):
    """Vectors are not unit length: who compares them divides by the length first."""

    kind: ClassVar[tuple[str, str]]  # model type of a checkpoint, and its class in transformers

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network(dict([self.kind]))
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._features)

    def _features(self, frames: np.ndarray) -> Tensor:
        found: Tensor = self.network.get_image_features(self.prepare(frames)).pooler_output
        return found

    def text(self, prompt: str) -> np.ndarray:
        longest = self.network.config.text_config.max_position_embeddings
        words = self.words(prompt, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            found = self.network.get_text_features(**{name: each.to(device()) for name, each in words.items()})
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector

    def words(self, prompt: str, **options: Any) -> dict[str, Tensor]:
        """What the text encoder is given of a sentence; one too long for it is cut."""
        found = self.tokenizer([prompt], **options)
        return {name: found[name] for name in ("input_ids", "attention_mask")}
