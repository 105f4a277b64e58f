"""Frames between frames: what a clip shows halfway from one picture to another."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.layers.optical_flow import dense_inverse_search


def blended(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The mean of two pictures (H, W, 3) uint8."""
    mean: np.ndarray = ((one.astype(np.uint16) + other + 1) // 2).astype(np.uint8)
    return mean


def followed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The picture halfway between two (H, W, 3) uint8 along their optical flow.

    Both are brought there and their mean is taken, with the flows from the middle, F_0 = (F_10 - F_01) / 4 and
    F_1 = -F_0, of those between the two: "Super SloMo", 2018, arXiv:1712.00080, eq. 4 at t = 1/2, without its networks.
    Raises: KinemaError when OpenCV is not installed.
    """
    (there,), (back,) = dense_inverse_search(np.stack([one, other])), dense_inverse_search(np.stack([other, one]))
    to_one = torch.from_numpy(back - there) / 4
    found = (moved(one, to_one) + moved(other, -to_one)) / 2
    picture: np.ndarray = found.round().clamp(0, 255).to(torch.uint8).numpy()
    return picture


def moved(picture: np.ndarray, flow: Tensor) -> Tensor:
    """At each place (x, y) of a picture (H, W, 3) what it shows at (x, y) + flow (H, W, 2), right and down in pixels.

    Between pixels it is mixed; beyond the border the border goes on.
    """
    height, width = picture.shape[:2]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns + flow[..., 0] + 0.5) * 2 / width - 1
    y = (rows + flow[..., 1] + 0.5) * 2 / height - 1
    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    found = F.grid_sample(image, torch.stack([x, y], dim=-1)[None], padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0)
