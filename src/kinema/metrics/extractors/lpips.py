"""LPIPS' network: AlexNet with a learned weight for each channel, whose squared distance is the metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.extractors.extractor import Extractor, extractor

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of red, green and blue in -1..1
# AlexNet: name of the weights, stride and padding of each convolution; and whether a 3x3 pool of stride 2 is before it
CONVOLUTIONS = (
    ("net.slice1.0", 4, 2, False),
    ("net.slice2.3", 1, 2, True),
    ("net.slice3.6", 1, 1, True),
    ("net.slice4.8", 1, 1, False),
    ("net.slice5.10", 1, 1, False),
)
LEAST = 35  # pixels that the network needs a side; smaller pictures are continued by their edge


@extractor("lpips", gives=("frames",), usual="lpips-alex")
class Lpips(Extractor):
    """Features F(x) whose squared distance |F(a) - F(b)|^2 is LPIPS, version 0.1, of two pictures of one size.

    LPIPS(a, b) = sum over layers l of 1 / (H W) sum over places of w_l . (f_l(a) - f_l(b))^2 with AlexNet's five
    layers f_l after their ReLU, of length 1 over the channels, and learned weights w_l >= 0 (C); so F holds
    sqrt(w_l / (H W)) f_l of all layers. "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
    2018, arXiv:1801.03924.
    The model is a folder with a model.safetensors, or such a file, with the names of the package `lpips`: once, where
    that package is installed, `save_file({k: v.contiguous().clone() for k, v in
    lpips.LPIPS(net="alex").state_dict().items()}, "model.safetensors")`. kinema knows no hub model that has it.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(model)
        file = path / "model.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise Unreachable(
                f"LPIPS has no weights at {model!r}; save those of the package lpips as model.safetensors in a folder "
                "(see the docstring of kinema.metrics.extractors.lpips) and name it as lpips@FOLDER"
            )
        try:
            held = load_file(file)
            self.layers = [(held[f"{n}.weight"].float(), held[f"{n}.bias"].float()) for n, *_ in CONVOLUTIONS]
            self.weights = [held[f"lin{i}.model.1.weight"].float().flatten() for i in range(len(CONVOLUTIONS))]
        except (OSError, KeyError, SafetensorError) as error:
            raise KinemaError(f"{file} is not LPIPS with AlexNet; it should hold what lpips.LPIPS() does") from error
        if any(len(w) != len(bias) or (w < 0).any() for w, (_, bias) in zip(self.weights, self.layers, strict=True)):
            raise KinemaError(f"{file} has weights of LPIPS below 0, or not one a channel; it is damaged")

    @torch.inference_mode()
    def frames(self, frames: np.ndarray) -> np.ndarray:
        return np.concatenate([self._features(torch.from_numpy(frame)) for frame in frames])

    def _features(self, frame: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 -> (1, D), D the number of values of all five layers."""
        x = frame.permute(2, 0, 1)[None].float() / 127.5 - 1
        short = [max(0, LEAST - n) for n in x.shape[2:]]
        x = F.pad(x, (0, short[1], 0, short[0]), mode="replicate")
        x = (x - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        found = []
        for (_, stride, padding, pool), (kernel, bias), weight in zip(
            CONVOLUTIONS, self.layers, self.weights, strict=True
        ):
            x = F.max_pool2d(x, 3, 2) if pool else x
            x = F.relu(F.conv2d(x, kernel, bias, stride, padding))
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            found.append((unit * (weight / x[0, 0].numel()).sqrt()[:, None, None]).flatten(1))
        return torch.cat(found, 1).numpy()
