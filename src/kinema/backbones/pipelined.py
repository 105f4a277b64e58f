"""What the families share that open a diffusers pipeline and prepare with its own methods."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from kinema.backbones.base import DiffusersBackbone
from kinema.backbones.codec import Codec

if TYPE_CHECKING:
    from kinema.backbones.folder import Folder
    from kinema.backbones.protocol import Defaults


class PipelineBackbone(DiffusersBackbone):
    """One with a transformer in a diffusers pipeline, whose methods prepare prompts and pictures.

    Only those are called: the loop, the guidance and the scheduler's steps are kinema's.
    """

    def __init__(self, *, folder: Folder, pipeline: Any, **parts: Any) -> None:
        self.pipeline, self.transformer = pipeline, pipeline.transformer
        vae, config = pipeline.vae, self.transformer.config
        self.codec = Codec.of(vae)
        self.channels, self.frames_per_latent = self.codec.channels, self.codec.frames_per_latent
        self.pixels_per_cell = self.codec.pixels_per_cell
        self.patch = (getattr(config, "patch_size_t", None) or 1, config.patch_size, config.patch_size)
        super().__init__(folder=folder, vae=vae, scheduler=pipeline.scheduler, defaults=self.recommended(), **parts)

    @abstractmethod
    def recommended(self) -> Defaults:
        """What the model was trained for, or its authors recommend."""
