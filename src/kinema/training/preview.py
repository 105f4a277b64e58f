"""Pictures of a training: plain Euler sampling with guidance, and contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kinema.core.path import shift_times
from kinema.training.rectified_flow import TIMESTEPS


@torch.no_grad()
def euler_sample(
    transformer: Any,
    text: Tensor,
    empty: Tensor,
    noise: Tensor,
    *,
    steps: int = 20,
    guidance_scale: float = 4.0,
    shift: float = 3.0,
) -> Tensor:
    """Clean latents (B, C, T, H, W) from noise of that shape, by `steps` equal steps of shifted time.

    text, empty: embeddings (B, P, D) of the prompts and of the empty prompt; both go through the model in one
    batch, v = v_empty + guidance_scale * (v_text - v_empty) ("Classifier-Free Diffusion Guidance", Ho and
    Salimans, 2022, arXiv:2207.12598).
    """
    times = shift_times(torch.linspace(1, 0, steps + 1), shift)
    both = torch.cat([text, empty])
    x = noise
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        level = torch.full((2 * len(x),), t * TIMESTEPS, device=x.device)
        v_text, v_empty = transformer(torch.cat([x, x]), level, both, return_dict=False)[0].float().chunk(2)
        x = x + (t_next - t) * (v_empty + guidance_scale * (v_text - v_empty))
    return x


def contact_sheet(path: Path, frames: Tensor, labels: Sequence[str], columns: int = 7, line: int = 14) -> None:
    """A PNG with a row of `columns` evenly spaced frames for each clip of (B, T, H, W, 3) uint8, its label below."""
    clips, count, height, width = frames.shape[:4]
    chosen = torch.linspace(0, count - 1, min(columns, count)).round().long()
    wrapped = [textwrap.wrap(label, max(20, len(chosen) * width // 6)) or [""] for label in labels]
    sheet_width = len(chosen) * (width + 2)
    sheet_height = sum(height + 4 + line * len(lines) for lines in wrapped)
    sheet = Image.new("RGB", (sheet_width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for clip, lines in zip(range(clips), wrapped, strict=True):
        for column, t in enumerate(chosen.tolist()):
            sheet.paste(Image.fromarray(frames[clip, t].numpy()), (column * (width + 2), top))
        for i, text in enumerate(lines):
            draw.text((2, top + height + 1 + i * line), text, fill="black")
        top += height + 4 + line * len(lines)
    temporary = path.with_suffix(".tmp.png")
    sheet.save(temporary)
    temporary.replace(path)
