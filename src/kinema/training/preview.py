"""Pictures of a training: clips from the model as it is, on a contact sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor


def generate(folder: Path, prompts: Sequence[str], seed: int, device: torch.device) -> Tensor:
    """Clips (B, T, H, W, 3) uint8 of prompts, as `kinema generate --model FOLDER` would make them; one seed for all."""
    from kinema.backbones.load import load
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance
    from kinema.request import Request

    backbone = load(folder, device=str(device))
    requests = [Request(prompt=prompt, seed=seed) for prompt in prompts]
    return sample(backbone, requests, plain_guidance(backbone.defaults)).cpu()


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
