"""EfficientNet-Lite0: what a picture shows, by a small network that ships with kinema."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.layers.pixels import by_chunks, device, resized
from kinema.layers.saved import unpacked
from kinema.metrics.extractors.extractor import Extractor, extractor

CHUNK = 4  # frames in one pass: twice as fast on a CPU as 16, whose maps do not fit into its cache
EMBEDDED = Path(__file__).parents[2] / "weights" / "efficientnet"


@dataclass(frozen=True, kw_only=True)
class LiteConfig:
    """Sizes of the network, as in `config.json`; the defaults are Lite0. The reference is Tan and Le 2019, table 1."""

    size: int = 224  # pixels, edge of the square it looks at
    stem: int = 32  # channels
    # of each stage: blocks, kernel, stride of the first block, expansion, channels
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": an odd pixel goes to the right and the bottom. Its kernel is odd."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, **options: Any) -> None:
        super().__init__(channels, out, kernel, stride, padding=kernel // 2 if stride == 1 else 0, **options)

    def forward(self, x: Tensor) -> Tensor:
        (k, _), (s, _) = self.kernel_size, self.stride
        if s > 1:
            rows, columns = (max((math.ceil(n / s) - 1) * s + k - n, 0) for n in x.shape[-2:])
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return nn.Conv2d.forward(self, x)


class Block(nn.Module):
    """Widen, look around within each channel, narrow; with a short cut where the shape stays."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = Convolution(channels, wide, 1) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = Convolution(wide, out, 1)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.shortcut else out


class Lite(nn.Module):
    """EfficientNet-Lite up to its last block: no squeeze and excitation, relu6.

    Batch normalisations are folded into the convolutions. What classifies, after the last block, is left out.
    """

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.stem = Convolution(3, config.stem, 3, 2)
        blocks = [
            (kernel, stride if i == 0 else 1, expansion, out)
            for count, kernel, stride, expansion, out in config.stages
            for i in range(count)
        ]
        widths = [config.stem, *(out for *_, out in blocks)]
        self.blocks = nn.Sequential(
            *(Block(a, b, k, s, e) for (a, b), (k, s, e, _) in zip(pairwise(widths), blocks, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) in about -1..1 -> (B, D): means over the map of the last block, of either sign."""
        found: Tensor = self.blocks(F.relu6(self.stem(x))).mean((2, 3))
        return found


@extractor("efficientnet", gives=("frames",))
class EfficientNet(Extractor):
    """EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; Lite: Google 2020), trained on ImageNet; 320 numbers.

    It ships with kinema and works offline, on real clips as well. Frames are squeezed to 224x224 (bilinear,
    antialiased) and scaled as (v - 127) / 128. Features are the means over the map of the last block, which is linear,
    not of unit length. They have either sign: after the relu6 that usually follows, features that are 0 most of the
    time hide how a clip moves, and STREAM hardly told shuffled frames from blurred ones. The weights are rounded to
    8 bits; `weights/efficientnet/card.json` says how near they stay. Its numbers are comparable with each other only,
    not with those of Inception or CLIP.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        folder = Path(model).expanduser() if model else EMBEDDED
        self.config, self.network = load(folder, self.name if not model else f"{self.name}@{model}")

    def frames(self, frames: np.ndarray) -> np.ndarray:
        return by_chunks(frames, self._features, CHUNK)

    def _features(self, frames: np.ndarray) -> Tensor:
        pixels = resized(frames, self.config.size, antialias=True).to(device())
        found: Tensor = self.network(((pixels - 127) / 128).contiguous(memory_format=torch.channels_last))
        return found


def load(folder: Path, name: str) -> tuple[LiteConfig, Lite]:
    """The network of a folder with config.json and model.safetensors. Raises: KinemaError, one sentence."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = LiteConfig(**values | {"stages": tuple(tuple(stage) for stage in values["stages"])})
        network = Lite(config)
        network.load_state_dict(unpacked(load_file(folder / "model.safetensors")))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise KinemaError(
            f"extractor {name}: {folder} cannot be read; give a folder with config.json and model.safetensors, "
            "as tools/convert_efficientnet.py writes it"
        ) from error
    placed: Any = network.to(device())
    placed.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    return config, network.eval().requires_grad_(False)
