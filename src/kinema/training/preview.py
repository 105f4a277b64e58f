"""Pictures of a training: clips from the model as it is, on a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kinema.files import replacing
from kinema.video import rows_sheet


@dataclass(frozen=True, kw_only=True)
class PreviewSettings:
    """The sample sheets drawn during the training, and what a request takes that does not say otherwise."""

    prompts: tuple[str, ...] = (
        "a red ball rolls to the left on the grass",
        "a small blue cube slides to the right on the snow at night",
        "a yellow cone grows on the sand while the camera zooms in",
        "a purple ring bounces on the stone, then rolls away from the camera",
        "a green cylinder jumps on the wood at sunset while the camera pans left",
        "a large white ball falls into the water, then rolls to the right",
    )
    steps: int = 20
    guidance_scale: float = 4.0
    seed: int = 0
    num_frames: int | None = None  # None, and below: what the model says
    height: int | None = None  # pixels
    width: int | None = None


def generate(backbone: Any, settings: PreviewSettings) -> Tensor:
    """Clips (B, T, H, W, 3) uint8 of the prompts, from a loaded model; one seed for all."""
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance
    from kinema.request import Request

    s = settings
    size = dict(num_frames=s.num_frames, height=s.height, width=s.width)
    requests = [Request(prompt=prompt, seed=s.seed, num_inference_steps=s.steps, **size) for prompt in s.prompts]
    return sample(backbone, requests, plain_guidance(backbone.defaults, settings.guidance_scale)).cpu()


def contact_sheet(path: Path, frames: Tensor, labels: Sequence[str]) -> None:
    """A PNG with a row of seven frames for each clip of (B, T, H, W, 3) uint8, its label above."""
    sheet = rows_sheet(list(frames.numpy()), labels, columns=7)
    with replacing(path) as temporary:
        sheet.save(temporary)
