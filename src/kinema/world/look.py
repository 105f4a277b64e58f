"""How the world looks: light, skies and grounds. Colours are sRGB, 0..1, and light multiplies them as they are.

Grounds carry a gentle pattern fixed to the world, so that a moving camera is seen to move. It repeats every
`PERIOD` metres, has low contrast, no detail finer than a few centimetres, and fades with distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kinema.world.vocabulary import GROUNDS, SKIES

PERIOD = 12.8  # metres after which a ground repeats
TEXELS = 512  # samples per period
WATER_DRIFT = 0.035  # metres a water pattern moves in one frame

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Sky:
    """Light of a time of day."""

    sun: Colour  # direction towards the light; any length
    direct: Colour  # light of the sun or moon on a surface that faces it
    ambient: Colour  # light from everywhere
    horizon: Colour
    zenith: Colour


@dataclass(frozen=True)
class Ground:
    """Colour of a ground and how far its pattern moves it: colour = base + pattern * swing, pattern in -1..1."""

    base: Colour
    swing: Colour


SKY_LOOKS: dict[str, Sky] = {
    "day": Sky((-0.5, -0.6, 0.85), (0.60, 0.58, 0.53), (0.48, 0.50, 0.54), (0.80, 0.89, 0.97), (0.30, 0.55, 0.90)),
    "sunset": Sky((-0.8, -0.6, 0.52), (0.62, 0.48, 0.34), (0.53, 0.46, 0.47), (1.00, 0.66, 0.36), (0.42, 0.32, 0.58)),
    "night": Sky((0.6, -0.6, 0.85), (0.30, 0.33, 0.42), (0.40, 0.42, 0.50), (0.14, 0.18, 0.34), (0.03, 0.04, 0.13)),
}

GROUND_LOOKS: dict[str, Ground] = {
    "grass": Ground((0.42, 0.54, 0.22), (0.07, 0.07, 0.04)),
    "sand": Ground((0.86, 0.75, 0.53), (0.06, 0.06, 0.06)),
    "snow": Ground((0.90, 0.93, 0.97), (0.05, 0.04, 0.03)),
    "stone": Ground((0.53, 0.53, 0.55), (0.08, 0.08, 0.08)),
    "wood": Ground((0.58, 0.37, 0.21), (0.09, 0.07, 0.05)),
    "water": Ground((0.12, 0.40, 0.55), (0.06, 0.08, 0.08)),
}


def _waves(count: int, low: int, high: int, seed: int, stretch: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """A periodic random field (TEXELS, TEXELS) of `count` plane waves with low..high cycles a period, about -1..1."""
    source = torch.Generator().manual_seed(seed)
    axis = torch.arange(TEXELS, dtype=torch.float64) * (2 * math.pi / TEXELS)
    field = torch.zeros(TEXELS, TEXELS, dtype=torch.float64)
    for _ in range(count):
        radius, angle, phase = torch.rand(3, generator=source, dtype=torch.float64).tolist()
        radius, angle = low + (high - low) * radius, 2 * math.pi * angle
        kx, ky = round(radius * math.cos(angle) * stretch[0]), round(radius * math.sin(angle) * stretch[1])
        field += torch.cos(kx * axis[None, :] + ky * axis[:, None] + 2 * math.pi * phase)
    return field * (0.5 / math.sqrt(0.5 * count))


def _cells(rows: int, columns: int, seed: int, joint: float, shift: bool) -> Tensor:
    """A periodic grid of tiles (TEXELS, TEXELS), each with its own tone, darker in joints `joint` metres wide."""
    source = torch.Generator().manual_seed(seed)
    tones = torch.rand(rows, columns, generator=source, dtype=torch.float64) * 1.2 - 0.5
    axis = (torch.arange(TEXELS, dtype=torch.float64) + 0.5) / TEXELS
    x = axis[None, :] * columns
    v = (axis * rows)[:, None].expand(TEXELS, TEXELS)
    row = v.floor().long()
    if shift:  # each row of tiles starts somewhere else, as floorboards do
        x = x + torch.rand(rows, generator=source, dtype=torch.float64)[row]
    x = x.expand(TEXELS, TEXELS)
    column = x.floor().long() % columns
    edge_x = (0.5 - (x % 1.0 - 0.5).abs()) * PERIOD / columns
    edge_y = (0.5 - (v % 1.0 - 0.5).abs()) * PERIOD / rows
    groove = 1 - (torch.minimum(edge_x, edge_y) / joint).clamp(0, 1)
    return tones[row, column] - 0.9 * groove


@lru_cache(maxsize=4)
def ground_atlas(device: torch.device) -> Tensor:
    """Patterns of all grounds in the order of GROUNDS: (G, TEXELS, TEXELS) float32 in -1..1, rows along y."""
    fields = {
        "grass": 0.8 * _waves(14, 4, 12, 1) + 0.5 * _waves(16, 14, 26, 2),
        "sand": 0.7 * _waves(8, 2, 6, 3) + 0.6 * torch.sin(2.2 * _waves(6, 2, 7, 4) + _ripples(16)),
        "snow": _waves(10, 2, 8, 5),
        "stone": _cells(10, 10, 6, 0.07, False) + 0.3 * _waves(12, 5, 16, 7),
        "wood": _cells(6, 32, 8, 0.05, False) + 0.35 * _waves(12, 6, 26, 9, (1.0, 0.15)),
        "water": 0.8 * _waves(10, 4, 10, 10, (0.6, 1.0)) + 0.5 * _waves(10, 10, 20, 11, (0.6, 1.0)),
    }
    return torch.stack([fields[name].clamp(-1, 1) for name in GROUNDS]).float().to(device)


def _ripples(cycles: int) -> Tensor:
    """Phase (TEXELS, TEXELS) of straight ripples along x, `cycles` a period."""
    axis = torch.arange(TEXELS, dtype=torch.float64) * (2 * math.pi * cycles / TEXELS)
    return axis[:, None].expand(TEXELS, TEXELS)


@lru_cache(maxsize=4)
def light_table(device: torch.device) -> dict[str, Tensor]:
    """The skies as tensors (S, 3) in the order of SKIES; `sun` has length 1."""
    looks = [SKY_LOOKS[name] for name in SKIES]
    table = {
        name: torch.tensor([getattr(look, name) for look in looks], device=device)
        for name in ("sun", "direct", "ambient", "horizon", "zenith")
    }
    table["sun"] = torch.nn.functional.normalize(table["sun"], dim=-1)
    return table


@lru_cache(maxsize=4)
def ground_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Base colour and swing of the grounds, two tensors (G, 3) in the order of GROUNDS."""
    looks = [GROUND_LOOKS[name] for name in GROUNDS]
    return (
        torch.tensor([look.base for look in looks], device=device),
        torch.tensor([look.swing for look in looks], device=device),
    )
