"""AMT: frames between others, by the network that VBench's motion smoothness asks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import KinemaError, Unreachable
from kinema.layers.pixels import device
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.torchscript import program

STEP = 16  # both sides become a multiple of so many pixels


@extractor("amt", gives=("between",))
class Amt(Extractor):
    """AMT (Li et al. 2023, arXiv 2304.09790), or any other network for frames between two, as a TorchScript program.

    AMT's weights are published as a pickle for its own code: trace AMT-S there at t = 1/2 as a program of two frames
    (1, 3, H, W) in 0..1 that gives the one between, save it as `amt.pt`, and name it: amt@FILE. Frames are continued by
    their edge pixels to a multiple of 16, half above and left and half below and right, and come back cut.
    """

    def __init__(self, model: str) -> None:
        if not model:
            raise Unreachable(
                "extractor amt needs AMT-S as a TorchScript program, which nobody publishes; name the file with "
                "amt@FILE, or take dis, whose numbers are not VBench's"
            )
        super().__init__(model)
        self.network = program(self.name, model, "amt.pt", None, "")

    def between(self, frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        made = np.zeros((len(frames) - 1, height, width, 3), np.uint8)
        down, right = -height % STEP, -width % STEP
        ready = (self._ready(frame, (right // 2, right - right // 2, down // 2, down - down // 2)) for frame in frames)
        with torch.inference_mode():
            for i, (one, other) in enumerate(pairwise(ready)):
                middle = self.network(one, other)
                if not isinstance(middle, Tensor) or middle.shape != one.shape:
                    raise KinemaError(f"extractor {self.label}: the program gives no frame of the shape of its input")
                cut = middle[0, :, down // 2 : down // 2 + height, right // 2 : right // 2 + width]
                made[i] = (cut.clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
        return made

    def _ready(self, frame: np.ndarray, edges: tuple[int, int, int, int]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
        return F.pad(x, edges, mode="replicate").to(device())
