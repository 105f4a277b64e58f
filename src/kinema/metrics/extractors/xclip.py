"""X-CLIP: clips and sentences in one space."""

from __future__ import annotations

import numpy as np
import torch

from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.hub import Source
from kinema.metrics.extractors.pixels import device, spread


@extractor("xclip", gives=("clip", "text"), usual="microsoft/xclip-base-patch32")
class XClip(Extractor):
    """Video and text embeddings of an X-CLIP model (Ni et al. 2022, arXiv 2208.02816).

    It looks at as many frames as it was trained with (8 for the usual one), spread evenly over the clip; a shorter clip
    is refused. `fps` is not used. Vectors are not unit length: who compares them divides by the length first.
    Departure: the model shifts a sentence towards the clip that it is compared with; here a sentence has one vector,
    without that shift.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({"xclip": "XCLIPModel"})
        self.prepare, self.tokenizer = source.preparation(), source.tokenizer()

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        pixels = self.prepare(spread(frames, self.network.config.vision_config.num_frames, self.name))
        with torch.inference_mode():
            found = self.network.get_video_features(pixels[None])
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector

    def text(self, prompt: str) -> np.ndarray:
        longest = self.network.config.text_config.max_position_embeddings
        words = self.tokenizer([prompt], truncation=True, max_length=longest, return_tensors="pt").to(device())
        with torch.inference_mode():
            found = self.network.get_text_features(words["input_ids"], attention_mask=words["attention_mask"])
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector
