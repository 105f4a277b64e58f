"""MUSIQ: technical quality of pictures, by a transformer over patches at three sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import KinemaError, Unreachable
from kinema.layers.pixels import device
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.tensors import tensors

PATCH = 32  # pixels
SIZES = (224, 384)  # pixels, longer sides of the picture beside its own
STEM = 64  # channels
HEAD = 64  # numbers of an attention head
BEST = 100.0  # of the scale
LONGEST = 512  # pixels, longer side that VBench lets a frame have


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around a picture as TensorFlow's "SAME" has them: the odd one right and below."""
    rows, columns = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class Convolution(nn.Conv2d):
    """With its weights made mean 0 and deviation 1 for each output."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(same(x, self.kernel_size[0], self.stride[0]), w, None, self.stride)


class Bottleneck(nn.Module):
    """The first block of a ResNet-50 with group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gn1 = Convolution(STEM, STEM, 1), nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv2, self.gn2 = Convolution(STEM, STEM, 3), nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv3, self.gn3 = Convolution(STEM, 4 * STEM, 1), nn.GroupNorm(32, 4 * STEM, eps=1e-4)
        self.conv_proj, self.gn_proj = Convolution(STEM, 4 * STEM, 1), nn.GroupNorm(32, 4 * STEM, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.gn1(self.conv1(x)))
        y = self.gn3(self.conv3(F.relu(self.gn2(self.conv2(y)))))
        return F.relu(y + self.gn_proj(self.conv_proj(x)))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        out: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return out


class Encoder(nn.Module):
    def __init__(self, width: int, hidden: int, layers: int, grid: int) -> None:
        super().__init__()
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, grid * grid, width)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(len(SIZES) + 1, width)})
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer = nn.ModuleDict({f"encoderblock_{i}": Block(width, hidden) for i in range(layers)})
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, cell: Tensor, scale: Tensor) -> Tensor:
        """(B, N, D) patches, the cell (N,) of the grid and the size (N,) they are of -> (B, D), the class token."""
        x = x + self.posembed_input["position_emb"][0][cell] + self.scaleembed_input["scale_emb"][scale]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for block in self.transformer.values():
            x = block(x)
        out: Tensor = self.encoder_norm(x[:, 0])
        return out


class Musiq(nn.Module):
    """The network with the sizes that the weights have."""

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        super().__init__()
        inner = "transformer_encoder."
        width = len(stored["embedding.bias"])
        layers = len({key.split(".")[2] for key in stored if key.startswith(f"{inner}transformer.")})
        self.grid = math.isqrt(stored[f"{inner}posembed_input.position_emb"].shape[1])
        self.conv_root, self.gn_root = Convolution(3, STEM, 7, 2), nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = Bottleneck()
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, width)
        hidden = len(stored[f"{inner}transformer.encoderblock_0.mlp.fc1.bias"])
        self.transformer_encoder = Encoder(width, hidden, layers, self.grid)
        self.head = nn.Linear(width, 1)
        self.load_state_dict({key: value.float() for key, value in stored.items()})

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in -1..1 -> (B,) scores."""
        parts = [self._patches(each) for each in (*(_longer(x, size) for size in SIZES), x)]
        cell = torch.cat([cells for _, cells in parts])
        scale = torch.cat([torch.full_like(cells, i) for i, (_, cells) in enumerate(parts)])
        patches = torch.cat([patch for patch, _ in parts], 1)  # (B, N, 3, 32, 32)
        y = F.relu(self.gn_root(self.conv_root(patches.flatten(0, 1))))
        y = self.block1(F.max_pool2d(same(y, 3, 2), 3, 2)).permute(0, 2, 3, 1).reshape(*patches.shape[:2], -1)
        score: Tensor = self.head(self.transformer_encoder(self.embedding(y), cell, scale))
        return score[:, 0]

    def _patches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> its patches (B, N, 3, 32, 32), row by row, and the cell of the grid that each lies in."""
        x = same(x, PATCH, PATCH)
        rows, columns = (n // PATCH for n in x.shape[-2:])
        patches = F.unfold(x, PATCH, stride=PATCH).transpose(1, 2).reshape(len(x), -1, 3, PATCH, PATCH)
        down, right = (torch.arange(n, device=x.device) * self.grid // n for n in (rows, columns))
        return patches, (down[:, None] * self.grid + right).flatten()


def _longer(x: Tensor, size: int) -> Tensor:
    height, width = x.shape[-2:]
    ratio = size / max(height, width)
    return F.interpolate(x, (round(height * ratio), round(width * ratio)), mode="bicubic", align_corners=False)


@extractor("musiq", gives=("quality",))
class MusiqExtractor(Extractor):
    """MUSIQ (Ke et al. 2021, arXiv 2108.05997), as a share of its scale of 100.

    Its weights, trained on SPAQ, are published as a pickle only (chaofengc/IQA-PyTorch-Weights, musiq_spaq_ckpt): write
    its tensors, by the same names, into `model.safetensors` and name the folder: musiq@FOLDER. A frame with a side
    above 512 pixels is made smaller, bilinear, no low pass, as in VBench. Nothing holds the score between 0 and 1.
    """

    def __init__(self, model: str) -> None:
        if not model:
            raise Unreachable(
                "extractor musiq needs MUSIQ's weights, which are published as a pickle only; "
                "write them as model.safetensors and name the folder: musiq@FOLDER"
            )
        super().__init__(model)
        stored = tensors(self.name, model, "model.safetensors")
        try:
            self.network = Musiq(stored)
        except (KeyError, ValueError, RuntimeError) as error:
            raise KinemaError(
                f"extractor {self.name}@{model}: model.safetensors holds no MUSIQ with one score"
            ) from error
        self.network.to(device()).eval().requires_grad_(False)

    def quality(self, frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.concatenate([self._score(frame) for frame in frames])

    def _score(self, frame: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
        height, width = frame.shape[:2]
        if max(height, width) > LONGEST:
            ratio = LONGEST / max(height, width)
            x = F.interpolate(x, (int(ratio * height), int(ratio * width)), mode="bilinear", align_corners=False)
        score: np.ndarray = (self.network((x / 127.5 - 1).to(device())) / BEST).float().cpu().numpy()
        return score
