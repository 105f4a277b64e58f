"""VideoMAE: clips, learned by filling in what is hidden, then told which action it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kinema.layers.hub import Source
from kinema.layers.pixels import spread
from kinema.metrics.extractors.extractor import Extractor, extractor


@extractor("videomae", gives=("clip", "logits"), usual="MCG-NJU/videomae-base-finetuned-kinetics")
class VideoMAE(Extractor):
    """Features before the classifier, and its log odds, of a fine-tuned VideoMAE (Tong et al. 2022, arXiv 2203.12602).

    It looks at as many frames as it was trained with (16), spread evenly over the clip; a shorter clip is refused.
    `fps` is not used. Every frame is prepared as the checkpoint says (shorter edge to 224 bilinear, centre crop).
    Features: the mean of all tokens, normalised by the layer before the classifier. The content-debiased FVD (Ge et al.
    2024, arXiv 2404.12391) uses those of VideoMAE v2 ViT-g fine-tuned on Something-Something v2, of pixels in 0..1 that
    are not normalised. It is published as a pickle only; written as safetensors in the layout of transformers, with a
    preprocessor_config.json that says so, it loads here from a folder.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({"videomae": "VideoMAEForVideoClassification"})
        self.prepare = source.preparation()

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = self.of(self._pixels(frames))[0].float().cpu().numpy()
        return found

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = self.network.classifier(self.of(self._pixels(frames)))[0].float().cpu().numpy()
        return found

    def of(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W) as prepared -> (B, D), what the classifier reads."""
        tokens: Tensor = self.network.videomae(clips).last_hidden_state
        if self.network.fc_norm is None:
            return tokens[:, 0]
        normed: Tensor = self.network.fc_norm(tokens.mean(1))
        return normed

    def _pixels(self, frames: np.ndarray) -> Tensor:
        return self.prepare(spread(frames, self.network.config.num_frames, self.name))[None]
