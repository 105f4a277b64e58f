"""Sight: a small network that sees which pixels of a frame are objects and how near everything is.

It looks at single frames, so that neither order nor rate of the frames matters. It is trained on rendered frames of
`kinema.world` only (`kinema train sight`) and measured again by `python -m kinema.claims.sight`. It is a U-Net
(Ronneberger et al., 2015, arXiv:1505.04597) with residual blocks and one step that sees the whole picture at once;
four pixels are folded into the channels of one at its entry and unfolded at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.metrics.judge import ChannelNorm
from kinema.metrics.saved import read_network, write_network

METRES = 5.0  # the network's unit of nearness is one over this; what it gives is in 1 / metre
FOLD = 2  # pixels a side that are folded into one


@dataclass(frozen=True, kw_only=True)
class SightConfig:
    """Sizes of the network. Saved as `config.json` beside the weights."""

    size: int = 128  # pixels, longer edge of what it looks at
    channels: tuple[int, ...] = (24, 40, 64, 96)  # at 1/2, 1/4, 1/8 and 1/16 of that

    def __post_init__(self) -> None:
        if not self.channels or self.size < self.multiple or self.size % self.multiple:
            raise ValueError(f"size is {self.size}, channels {self.channels}; use a multiple of {self.multiple}")

    @property
    def multiple(self) -> int:
        """Both edges of what it looks at are multiples of this many pixels."""
        return int(FOLD * 2 ** (len(self.channels) - 1))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SightConfig:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns at which a picture of height x width is looked at; each edge is bent by a few percent."""
        scale, step = self.size / max(height, width), self.multiple
        rows, columns = (max(step, step * round(edge * scale / step)) for edge in (height, width))
        return rows, columns


class _Block(nn.Module):
    """A residual 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.conv(F.silu(self.norm(x)))
        return made


class SightNet(nn.Module):
    """The network; see the head of this file."""

    def __init__(self, config: SightConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        steps = list(pairwise(widths))
        self.stem = nn.Conv2d(3 * FOLD**2 + 1, widths[0], 3, padding=1)  # and the row
        self.down_blocks = nn.ModuleList([_Block(c) for c in widths])
        self.down = nn.ModuleList([nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in steps])
        self.whole = nn.Linear(widths[-1], widths[-1])  # what the whole picture says to each place
        self.bottom = _Block(widths[-1])
        self.up = nn.ModuleList([nn.Conv2d(coarse, fine, 1) for fine, coarse in steps])
        self.up_blocks = nn.ModuleList([_Block(c) for c in widths[:-1]])
        self.norm = ChannelNorm(widths[0])
        self.out = nn.Conv2d(widths[0], 2 * FOLD**2, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (F, 3, H, W) in 0..1, edges multiples of `config.multiple` -> (F, 2, H, W).

        The log odds that a pixel is of an object, and nearness in 1 / METRES (which may fall below 0 in the sky).
        """
        x = F.pixel_unshuffle(frames * 2 - 1, FOLD)
        row = torch.linspace(-1, 1, x.shape[-2], device=x.device)[:, None].expand_as(x[:, :1])
        x = self.stem(torch.cat([x, row], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for block, down in zip(self.down_blocks, self.down, strict=False):  # the last block has no way further down
            x = block(x)
            kept.append(x)
            x = down(x)
        x = self.down_blocks[-1](x)
        x = self.bottom(x + self.whole(x.mean((-2, -1)))[..., None, None])
        for up, block, skip in reversed(list(zip(self.up, self.up_blocks, kept, strict=True))):
            x = block(skip + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), FOLD)


def resized(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pictures (F, C, H, W) at another size (F, C, *shape), bilinear with a low pass where they shrink."""
    if tuple(x.shape[-2:]) == shape:
        return x
    return F.interpolate(x, shape, mode="bilinear", align_corners=False, antialias=True)


class Sight:
    """Sees objects and nearness. `Sight.load()` gives the network that ships with kinema."""

    def __init__(self, net: SightNet, card: dict[str, Any] | None = None) -> None:
        self.net = net.eval()
        self.config = net.config
        self.card = card or {}

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> Sight:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder.

        Without a path: the network inside the package.
        Raises: KinemaError when a file is missing, damaged or does not fit.
        """
        net, card = read_network("sight", path, lambda config: SightNet(SightConfig.from_dict(config)))
        return cls(nn.Module.to(net, device, memory_format=torch.channels_last), card)  # type: ignore[call-overload]

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (float16) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.config, self.card)

    @torch.inference_mode()
    def see(self, frames: Any, batch: int = 25) -> tuple[np.ndarray, np.ndarray]:
        """Frames (T, H, W, 3) uint8 -> how surely a pixel is of an object, 0..1, and nearness in 1 / metre, 0 or more.

        Both (T, H, W) float32. Raises: ValueError when the frames have another shape or type.
        """
        array = torch.as_tensor(np.ascontiguousarray(frames))
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != torch.uint8 or not array.numel():
            raise ValueError(f"frames are {tuple(array.shape)} {array.dtype}; use (T, H, W, 3) uint8, one at least")
        height, width = array.shape[1:3]
        shape = self.config.shape(height, width)
        device = self.net.out.weight.device
        parts = []
        for part in torch.split(array, batch):
            x = resized(part.to(device).permute(0, 3, 1, 2).float() / 255, shape)
            logit, near = torch.split(self.net(x.contiguous(memory_format=torch.channels_last)), 1, 1)
            seen = resized(torch.cat([logit.sigmoid(), near.clamp_min(0) / METRES], 1), (height, width))
            parts.append(seen.cpu())
        mask, nearness = torch.cat(parts).float().unbind(1)
        return mask.clamp(0, 1).numpy(), nearness.numpy()
