"""Rendered clips painted anew by a video model, for readers of what models make to learn from.

A clip gets a little noise, from which the model brings it back, guided by its caption. At so little noise what is where
and when is mostly settled, so that what is true of the rendered clip still holds; but textures and edges are now the
model's, with the faults of its guidance. How far that goes is measured by `python -m kinema.claims.camera_reader`,
which also has the model told of another camera than the clip's. It is SDEdit, "SDEdit: Guided Image Synthesis and
Editing with Stochastic Differential Equations", 2022, arXiv:2108.01073, with levels far below those that edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.core.footage import as_video
from kinema.training.captions import CaptionSettings, draw_captions
from kinema.training.denoising import Predictor
from kinema.world.spec import SceneSpec

NOISE = (0.15, 0.45)  # levels that clips are brought back from, least and most
GUIDANCE = (3.0, 6.0)  # weights of the text, least and most
CAPTIONS = CaptionSettings(dense_share=1.0, strange_share=0.0)  # which mostly name what the camera does
STEPS = 5


@dataclass(frozen=True)
class Painter:
    """Paints latents (B, C, T, h, w) of scenes anew, each by its own amount."""

    predictor: Predictor

    @classmethod
    def of(cls, model: str, device: str | torch.device | None = None) -> Painter:
        from kinema.backbones.load import load

        return cls(Predictor(load(model, device)))

    @torch.no_grad()
    def __call__(self, z: Tensor, scenes: Sequence[SceneSpec | str], generator: torch.Generator) -> Tensor:
        """scenes: or what shall be said of them. What comes back is where z is; chance is of the CPU."""
        device = self.predictor.backbone.device
        prompts = [one if isinstance(one, str) else draw_captions([one], CAPTIONS, generator)[0] for one in scenes]
        level, weight = (
            low + (high - low) * torch.rand(len(z), 1, 1, 1, 1, generator=generator) for low, high in (NOISE, GUIDANCE)
        )
        noise, level, weight = (u.to(device) for u in (torch.randn(z.shape, generator=generator), level, weight))
        x = (1 - level) * z.to(device) + level * noise
        for i in range(STEPS):
            t = level.flatten() * (1 - i / STEPS)
            with torch.autocast(device.type, torch.bfloat16):
                v, plain = (self.predictor.velocity(x, t, said).float() for said in (prompts, [""] * len(z)))
            x = x - level / STEPS * (plain + weight * (v - plain))
        return x.to(z.device)

    def frames(self, frames: Tensor, scenes: Sequence[SceneSpec | str], generator: torch.Generator) -> Tensor:
        """Frames (B, T, H, W, 3) uint8 after the autoencoder, painted anew on the way."""
        backbone = self.predictor.backbone
        found: Tensor = backbone.decode(self(backbone.encode(as_video(frames)), scenes, generator))
        return found
