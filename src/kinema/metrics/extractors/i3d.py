"""I3D: the network of the Frechet video distance."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from kinema.layers.pixels import device, first, resized
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.torchscript import on_hub, program

FILE = "i3d_torchscript.pt"
REPOSITORY, REVISION = "flateon/FVD-I3D-torchscript", "1c2d61711c52571ad617a1063e6fa691b212e184"
SHA256 = "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2"
FRAMES, SIZE = 16, 224


@extractor("i3d", gives=("clip", "logits"), usual=REPOSITORY)
class I3D(Extractor):
    """The 400 log odds of I3D trained on Kinetics-400 (Carreira and Zisserman 2017, arXiv 1705.07750).

    These are the features of FVD (Unterthiner et al. 2018, arXiv 1812.01717), so `clip` and `logits` are the same. The
    network is the TorchScript port of StyleGAN-V (Skorokhodov et al. 2022, arXiv 2112.14683; the weights are
    DeepMind's, Apache-2.0), which equals the one of tensorflow hub; other ports give other numbers. It is fetched from
    the hub by its SHA-256, or run from the file or folder in `i3d@/path` that you trust as a program.
    It looks at the first 16 consecutive frames; a shorter clip is refused; `fps` is not used. Frames are squeezed to
    224x224 (bilinear, not antialiased) and scaled to -1..1, here and not in the program.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        fetched = functools.partial(on_hub, self.name, REPOSITORY, REVISION, FILE)
        self.network = program(self.name, model, FILE, fetched if model == REPOSITORY else None, SHA256)

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        pixels = resized(first(frames, FRAMES, self.name), SIZE, antialias=False) / 127.5 - 1
        found: np.ndarray = self.of(pixels.movedim(0, 1)[None])[0]
        return found

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        return self.clip(frames, fps)

    def of(self, clips: Tensor) -> np.ndarray:
        """(B, 3, T, 224, 224) float32 in -1..1 -> (B, 400) float32."""
        with torch.inference_mode():
            found = self.network(clips.to(device()), rescale=False, resize=False, return_features=True)
        vectors: np.ndarray = found.float().cpu().numpy()
        return vectors
