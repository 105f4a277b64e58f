"""OWLv2: finds things in pictures by any words for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kinema.layers.hub import Source
from kinema.layers.pixels import device
from kinema.metrics.extractors.extractor import Box, Extractor, extractor

SURE = 0.2  # least sigmoid that counts as found; ours, the model's page takes 0.1
WORDS = 16  # tokens of a phrase that the model was trained with


@extractor("owlv2", gives=("boxes",), usual="google/owlv2-base-patch16-ensemble")
class Owlv2(Extractor):
    """Open-vocabulary detection by OWLv2 (Minderer et al. 2023, arXiv 2306.09683) or OWL-ViT (2022, arXiv 2205.06230).

    Each phrase is asked as "a photo of a PHRASE"; a box has the phrase that suits it best, and counts from a sigmoid of
    0.2 on. Boxes of one thing may overlap.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        kinds = {"owlv2": "Owlv2ForObjectDetection", "owlvit": "OwlViTForObjectDetection"}
        self.network = source.network(kinds)
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()
        self.square = source.config.get("model_type") == "owlv2"  # it looks at the frame continued to a square

    def boxes(self, frames: np.ndarray, phrases: Sequence[str]) -> list[list[Box]]:
        asked = [f"a photo of a {phrase}" for phrase in phrases]
        longest = min(WORDS, self.network.config.text_config.max_position_embeddings)
        words = self.tokenizer(asked, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        words = words.to(device())
        height, width = frames.shape[1:3]
        scale = [max(height, width)] * 4 if self.square else [width, height] * 2
        with torch.inference_mode():
            return [self._of_frame(frame, words, phrases, torch.tensor(scale), (height, width)) for frame in frames]

    def _of_frame(
        self, frame: np.ndarray, words: dict[str, torch.Tensor], phrases: Sequence[str], scale: torch.Tensor,
        shape: tuple[int, int],
    ) -> list[Box]:  # fmt: skip
        seen = self.network(pixel_values=self.prepare(frame[None]), **words)
        score, best = seen.logits[0].sigmoid().cpu().max(-1)
        x, y, w, h = (seen.pred_boxes[0].cpu() * scale).unbind(-1)
        edges = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clamp_min(0)
        edges = edges.minimum(torch.tensor([shape[1], shape[0]] * 2))
        sure = torch.nonzero(score >= SURE).flatten().tolist()
        return [Box(phrases[int(best[i])], tuple(edges[i].tolist()), float(score[i])) for i in sure]
