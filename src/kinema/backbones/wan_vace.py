"""How Wan-VACE models are told what is given: a second stream of control latents.

Jiang et al., "VACE: All-in-One Video Creation and Editing", 2025, arXiv:2503.07598, section 3.3. A given video and a
mask of what is to be made are split into what stays and what changes, each is encoded, and the mask follows as one
channel a pixel of a latent cell. With nothing given it is plain text to video; given pictures are frames that stay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pixel_unshuffle


def control_latents(
    encode: Callable[[Tensor], Tensor], video: Tensor, mask: Tensor, frames: int, pixels_per_cell: int
) -> Tensor:
    """Control (B, 2 C + p^2, T, H, W) for video (B, 3, F, H p, W p) in -1..1 and mask (B, 1, F, H p, W p).

    encode: video -> normalised latents (B, C, T, H, W). The mask is 1 where the model makes the pixel, 0 where it
    keeps it; of the frames of a latent frame the nearest one counts, as in diffusers.
    """
    stays, changes = encode(video * (1 - mask)), encode(video * mask)
    cells = pixel_unshuffle(mask[:, 0], pixels_per_cell)  # (B, F * p^2, H, W)
    batch, _, rows, columns = cells.shape
    cells = cells.reshape(batch, video.shape[2], pixels_per_cell**2, rows, columns).transpose(1, 2)
    cells = interpolate(cells, size=(frames, *cells.shape[3:]), mode="nearest-exact")
    return torch.cat([stays, changes, cells], dim=1)
