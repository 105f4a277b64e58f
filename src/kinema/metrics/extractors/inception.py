"""Inception v3 of 2015: the network of the Frechet inception distance and of the Inception Score."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from kinema.layers.pixels import by_chunks, device, log_mean
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.torchscript import on_web, program

FILE = "inception-2015-12-05.pt"
ADDRESS = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


@extractor("inception", gives=("frames", "logits"), usual=ADDRESS)
class Inception(Extractor):
    """2048 features before the classifier, and its log odds (Szegedy et al. 2015, arXiv 1512.00567).

    The weights are those of TensorFlow's graph of 2015-12-05, which FID (Heusel et al. 2017, arXiv 1706.08500) and the
    Inception Score (Salimans et al. 2016, arXiv 1606.03498) are defined with, in the TorchScript of StyleGAN2-ADA
    (NVIDIA). It is fetched from there by its SHA-256, or run from the file or folder in `inception@/path` that you
    trust as a program. The program itself squeezes frames to 299x299 as TensorFlow did.
    `logits` are of 1008 classes, without the bias of the last layer, as the Inception Score has it: the logarithm of
    the mean probability over all frames; `fps` is not used.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        fetched = functools.partial(on_web, self.name, ADDRESS, SHA256)
        self.network = program(self.name, model, FILE, fetched if model == ADDRESS else None, SHA256)

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, lambda some: self.network(_pixels(some), return_features=True))

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        chances = by_chunks(frames, lambda some: self.network(_pixels(some), no_output_bias=True))
        return log_mean(torch.from_numpy(chances).clamp_min(1e-30).log()).numpy()


def _pixels(frames: np.ndarray) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, H, W) uint8, on the device."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).contiguous().to(device())
