"""Rendered frames given other looks, so that what is learned from them does not hang on the world's own.

Things, and whole pictures, get other colours and patterns, and flat cards stand about, with which the ground does not
always reach to the sky.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = (3, 6, 12, 24, 48)  # along a picture, of the noises of which a pattern is made
CARDS = 2  # in a picture that has any


def repainted(x: Tensor, thing: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Clips x (B, K, 3, H, W) in 0..1, of `share` of them each thing in a colour and pattern of its own.

    thing (B, K, H, W) is -1 for the sky, 0 for the ground, i + 1 for object i. Light and shade stay visible.
    """
    chosen = (torch.rand(len(x), generator=generator, device=x.device) < share).nonzero().flatten()
    if not len(chosen):
        return x
    old, kinds = x[chosen], thing[chosen].long() + 1
    b, _, _, h, w = old.shape
    patterns = _patterns(b, int(kinds.max()) + 1, (h, w), generator)
    at = kinds[:, :, None].expand_as(old)
    new = torch.stack([torch.gather(patterns[:, :, c], 1, at[:, :, c]) for c in range(3)], 2)
    strength = 0.3 + 0.7 * torch.rand(b, 1, 1, 1, 1, generator=generator, device=x.device)
    new = new * (0.5 + old.mean(2, keepdim=True))
    return x.index_copy(0, chosen, (old + strength * (new - old)).clamp(0, 1))


def _patterns(clips: int, kinds: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(clips, kinds, 3, *size): a colour, and noise of several grains, every third time with hard edges."""
    device = generator.device
    count = clips * kinds

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    noise = torch.zeros(count, 3, *size, device=device)
    for cells in CELLS:
        grain = draw(3, cells, cells) - 0.5
        grain = grain * draw(3, 1, 1) * (draw(1, 1, 1) < 0.4)  # of three colours in differing parts, or none at all
        noise = noise + F.interpolate(grain, size, mode="bilinear", align_corners=False)
    noise = torch.where(draw(1, 1, 1) < 0.33, 0.25 * noise.sign(), noise)
    return torch.unflatten(draw(3, 1, 1) + 2 * draw(1, 1, 1) * noise, 0, (clips, kinds))


def with_cards(x: Tensor, near: Tensor, generator: torch.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Clips (B, K, 3, H, W) in 0..1 and their nearness (B, K, H, W), `share` of them with flat patterned cards.

    A card stands upright on the ground, facing the camera, so that all of it is as near as the ground in its lowest
    row; its upper edge is uneven. It hides what is farther away, and is hidden by what is nearer.
    """
    chosen = (torch.rand(len(x), generator=generator, device=x.device) < share).nonzero().flatten()
    if not len(chosen):
        return x, near
    picture, depth = x[chosen], near[chosen]
    b, k, _, h, w = picture.shape
    rows = torch.arange(h, device=x.device)[:, None] + 0.5
    columns = (torch.arange(w, device=x.device) + 0.5) / w

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=generator, device=x.device)

    for _ in range(CARDS):
        base = (draw(0.25, 1.0, 1) * h).long().clamp_max(h - 1)  # (b, 1)
        ground = depth.amin(-1).gather(2, base[:, None].expand(-1, k, -1))[..., None]  # nothing in a row is farther
        edge = F.interpolate(draw(0.2, 1, 1, 8), w, mode="linear") * draw(0.1, 0.8, 1, 1) * h  # above the base
        across = (columns - draw(0, 1, 1)).abs() < draw(0.05, 0.8, 1)
        base = base[:, None]
        inside = (rows <= base + 1) & (rows > base + 1 - edge) & across[:, None]
        seen = inside[:, None] & (ground >= depth)
        pattern = _patterns(b, 1, (h, w), generator).clamp(0, 1)
        picture = torch.where(seen[:, :, None], pattern, picture)
        depth = torch.where(seen, ground, depth)
    return x.index_copy(0, chosen, picture), near.index_copy(0, chosen, depth)


def recoloured(x: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Clips (B, K, 3, H, W) in 0..1, `share` of them with other hues, paler or stronger, lighter or darker; some grey.

    Hues are turned about the grey axis by an angle a: R = cos a I + sin a K + (1 - cos a) G, with K the cross product
    by (1, 1, 1) / sqrt 3 and G the mean of the channels.
    """
    b, device = len(x), x.device

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, generator=generator, device=device)

    angle, strength = draw(-math.pi, math.pi), draw(-0.3, 1.5).clamp_min(0)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=device) / math.sqrt(3)
    grey = torch.full((3, 3), 1 / 3, device=device)
    turn = angle.cos() * torch.eye(3, device=device) + angle.sin() * cross + (1 - angle.cos()) * grey
    mix = grey + strength * (turn - grey)
    power = draw(-0.7, 0.7).exp()[..., None, None]
    other = torch.einsum("bij,bkjhw->bkihw", mix, x.clamp(0, 1) ** power).clamp(0, 1)
    return torch.where(draw(0, 1)[..., None, None] < share, other, x)
