"""BLIP: says in a sentence what a picture shows."""

from __future__ import annotations

import numpy as np
import torch

from kinema.layers.hub import Source
from kinema.layers.pixels import CHUNK
from kinema.metrics.extractors.extractor import Extractor, extractor

LONGEST = 30  # tokens of a caption


@extractor("blip", gives=("captions",), usual="Salesforce/blip-image-captioning-large")
class Blip(Extractor):
    """Captions of BLIP (Li et al. 2022, arXiv 2201.12086): the likeliest word after word, at most 30 tokens."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({"blip": "BlipForConditionalGeneration"})
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()

    def captions(self, frames: np.ndarray) -> list[str]:
        said: list[str] = []
        with torch.inference_mode():
            for first in range(0, len(frames), CHUNK):
                pixels = self.prepare(frames[first : first + CHUNK])
                tokens = self.network.generate(
                    pixel_values=pixels, max_new_tokens=LONGEST, do_sample=False, num_beams=1
                )
                said += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [sentence.strip().lower() for sentence in said]
