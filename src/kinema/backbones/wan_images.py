"""How Wan models see pictures: as clean latent frames (TI2V), channels and CLIP tokens (I2V), or control (VACE)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.backbones import given
from kinema.backbones.wan_vace import control_latents
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from kinema.backbones.protocol import Conditions
    from kinema.backbones.wan import WanBackbone
    from kinema.request import Request


def condition(
    backbone: WanBackbone, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]
) -> None:
    """Enters the pictures of a batch into its conditions. size: frames, height and width of the video, pixels.

    Pictures are stretched to the size, as diffusers does; cut them to its proportions before.
    Raises: KinemaError when a picture or clip cannot be read, or is asked for where the model knows none.
    """
    if backbone.time_per_frame:
        given.condition(backbone, conditions, requests, size)
        return
    frames, height, width = size
    first = [open_picture(r.image, "image") for r in requests]
    last = [open_picture(r.last_image, "last_image") for r in requests if r.last_image is not None]
    pixels = _pixels(backbone, first, height, width)
    video = torch.cat([pixels, pixels.new_zeros(*pixels.shape[:2], frames - 1, height, width)], dim=2)
    there = torch.zeros(len(requests), frames, device=backbone.device)
    there[:, 0] = 1
    if last:
        video[:, :, -1:] = _pixels(backbone, last, height, width)
        there[:, -1] = 1
    mask = given_mask(there, backbone.frames_per_latent)[..., None, None].expand(-1, -1, -1, *conditions.shape[3:])
    conditions.inputs["picture"] = torch.cat([mask, backbone.encode(video)], dim=1)
    if backbone.transformer.config.image_dim is not None:
        of_one = [list(pictures) for pictures in zip(*([first, last] if last else [first]), strict=True)]
        conditions.inputs["image_tokens"] = torch.cat([_tokens(backbone, pictures) for pictures in of_one])


def control(backbone: WanBackbone, conditions: Conditions, requests: Sequence[Request]) -> Tensor:
    """Control latents of a VACE model: given pictures are frames that stay, everything else is to be made."""
    batch, _, latent_frames, *cells = conditions.shape
    frames = 1 + backbone.frames_per_latent * (latent_frames - 1)
    height, width = (n * backbone.pixels_per_cell for n in cells)
    video = torch.zeros(batch, 3, frames, height, width, device=backbone.device)
    mask = torch.ones_like(video[:, :1])
    for each in given.given(requests, frames, 1) if requests else ():
        part = each.part
        shown = given.pixels(backbone, each.frames, height, width)
        video[:, :, part.first : part.stop] = shown[:, :, part.first - part.stop :]
        mask[:, :, part.first : part.stop] = 0
    return control_latents(backbone.encode, video, mask, latent_frames, backbone.pixels_per_cell)


def given_mask(there: Tensor, frames_per_latent: int) -> Tensor:
    """Which frames are given, (B, 1 + k (T - 1)) of 0 and 1, by latent frame: (B, k, T), one channel a frame of it."""
    k = frames_per_latent
    spread = torch.cat([there[:, :1].repeat(1, k), there[:, 1:]], dim=1)  # the first frame fills its latent frame
    return spread.reshape(there.shape[0], -1, k).transpose(1, 2)


def _pixels(backbone: WanBackbone, pictures: list[Any], height: int, width: int) -> Tensor:
    """One picture of each sample, (B, 3, 1, height, width) in -1..1."""
    return given.pixels(backbone, [[picture] for picture in pictures], height, width)


def _tokens(backbone: WanBackbone, pictures: list[Any]) -> Tensor:
    """CLIP's last but one layer for the pictures of one video, (number of pictures, tokens, D)."""
    encoder = backbone.image_encoder
    inputs = backbone.image_processor(images=pictures, return_tensors="pt").to(backbone.device, encoder.dtype)
    seen: Tensor = encoder(**inputs, output_hidden_states=True).hidden_states[-2]
    return seen.to(backbone.dtype)
