"""A small network from pictures to maps of the same size, and pictures at the sizes that it looks at.

A U-Net (Ronneberger et al., 2015, arXiv:1505.04597) with residual blocks and one step that sees the whole picture at
once; four pixels are folded into the channels of one at its entry and unfolded at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLD = 2  # pixels a side that are folded into one


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """Sizes of a network."""

    size: int  # pixels, longer edge of what it looks at
    channels: tuple[int, ...]  # at 1/2, 1/4, 1/8 ... of that

    def __post_init__(self) -> None:
        if not self.channels or self.size < self.multiple or self.size % self.multiple:
            raise ValueError(f"size is {self.size}, channels {self.channels}; use a multiple of {self.multiple}")

    @property
    def multiple(self) -> int:
        """Both edges of what it looks at are multiples of this many pixels."""
        return int(FOLD * 2 ** (len(self.channels) - 1))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns at which a picture of height x width is looked at; each edge is bent by a few percent."""
        scale, step = self.size / max(height, width), self.multiple
        rows, columns = (max(step, step * round(edge * scale / step)) for edge in (height, width))
        return rows, columns


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (F, C, H, W); on a CPU several times faster than group normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = nn.LayerNorm.forward(self, x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A residual 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.conv(F.silu(self.norm(x)))
        return made


class PictureNet(nn.Module):
    """The network; see the head of this file."""

    def __init__(self, config: PictureConfig, maps: int) -> None:
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
        self.out = nn.Conv2d(widths[0], maps * FOLD**2, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (F, 3, H, W) in 0..1, edges multiples of `config.multiple` -> (F, maps, H, W)."""
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

    @torch.inference_mode()
    def look(self, frames: Any, batch: int = 25) -> Tensor:
        """Frames (T, H, W, 3) uint8 -> maps (T, maps, h, w) on its own device, at the shape at which it looks.

        Raises: ValueError when the frames have another shape or type.
        """
        array = torch.as_tensor(np.ascontiguousarray(frames))
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != torch.uint8 or not array.numel():
            raise ValueError(f"frames are {tuple(array.shape)} {array.dtype}; use (T, H, W, 3) uint8, one at least")
        shape, device = self.config.shape(*array.shape[1:3]), self.out.weight.device
        parts = (part.to(device).permute(0, 3, 1, 2).float() / 255 for part in torch.split(array, batch))
        return torch.cat([self(resized(x, shape).contiguous(memory_format=torch.channels_last)) for x in parts])


def resized(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Pictures (F, C, H, W) at another size (F, C, *shape), bilinear with a low pass where they shrink."""
    if tuple(x.shape[-2:]) == shape:
        return x
    return F.interpolate(x, shape, mode="bilinear", align_corners=False, antialias=True)
