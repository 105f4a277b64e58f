"""Pictures of a training: clips from the model as it is, on a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kinema.files import replacing
from kinema.video import rows_sheet


def generate(folder: Path, prompts: Sequence[str], seed: int, device: torch.device) -> Tensor:
    """Clips (B, T, H, W, 3) uint8 of prompts, as `kinema generate --model FOLDER` would make them; one seed for all."""
    from kinema.backbones.load import load
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance
    from kinema.request import Request

    backbone = load(folder, device=str(device))
    requests = [Request(prompt=prompt, seed=seed) for prompt in prompts]
    return sample(backbone, requests, plain_guidance(backbone.defaults)).cpu()


def contact_sheet(path: Path, frames: Tensor, labels: Sequence[str]) -> None:
    """A PNG with a row of seven frames for each clip of (B, T, H, W, 3) uint8, its label above."""
    sheet = rows_sheet(list(frames.numpy()), labels, columns=7)
    with replacing(path) as temporary:
        sheet.save(temporary)
