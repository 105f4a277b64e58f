"""X-CLIP: clips and sentences in one space."""

from __future__ import annotations

import numpy as np
import torch

from kinema.layers.pixels import spread
from kinema.metrics.extractors.extractor import extractor
from kinema.metrics.extractors.joint import Joint


@extractor("xclip", gives=("clip", "text"), usual="microsoft/xclip-base-patch32")
class XClip(Joint):
    """Video and text embeddings of an X-CLIP model (Ni et al. 2022, arXiv 2208.02816).

    It looks at as many frames as it was trained with (8 for the usual one), spread evenly over the clip; a shorter clip
    is refused. `fps` is not used. Vectors are not unit length: who compares them divides by the length first.
    Departure: the model shifts a sentence towards the clip that it is compared with; here a sentence has one vector,
    without that shift.
    """

    kind = ("xclip", "XCLIPModel")

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        pixels = self.prepare(spread(frames, self.network.config.vision_config.num_frames, self.name))
        with torch.inference_mode():
            found = self.network.get_video_features(pixels[None])
        vector: np.ndarray = found.pooler_output[0].float().cpu().numpy()
        return vector
