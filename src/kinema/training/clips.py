"""Where the clips of a training come from: anything that draws micro-batches of latents with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from kinema.models.autoencoder import GROUP
from kinema.training.captions import CaptionSettings, draw_captions
from kinema.training.latents import Filler, LatentCache
from kinema.training.lessons import Lesson, Timetable, check_order

REFRESH = 25  # micro-batches between looks for new shards


class Drawn(NamedTuple):
    """A micro-batch: latents (B, C, T, H, W) float32 in the units of the model's x, and a prompt for each clip."""

    latents: Tensor
    prompts: list[str]


class Clips(Protocol):
    """A source of micro-batches, each of one size and length: whole clips, shorter ones, pictures (T = 1)."""

    def draw(self, step: int, size: int, generator: torch.Generator) -> Drawn:
        """Micro-batch `step` of `size` clips, a function of the arguments alone once the source is complete."""


@dataclass(frozen=True, kw_only=True)
class LengthSettings:
    """Which share of the micro-batches is how long; the others are whole clips."""

    image_share: float = 0.1  # single frames, 0..1
    short_share: float = 0.1  # longer than an image and shorter than a clip, 0..1

    def __post_init__(self) -> None:
        if min(self.image_share, self.short_share) < 0 or self.image_share + self.short_share > 1:
            raise ValueError("image_share and short_share must be 0 or more, and together at most 1")

    def draw(self, whole: int, generator: torch.Generator) -> int:
        """Latent frames of a micro-batch of clips of `whole`."""
        choice = float(torch.rand(1, generator=generator))
        if choice < self.image_share or whole == 1:
            return 1
        if choice < self.image_share + self.short_share and whole > 2:
            return int(torch.randint(2, whole, (1,), generator=generator))
        return whole


class WorldClips:
    """Rendered clips out of a cache that may still grow, with captions drawn anew each time a clip is seen.

    With a cache that still grows, which clips a step sees depends on how far it has grown.
    """

    def __init__(
        self,
        cache: LatentCache,
        full: int,
        *,
        lengths: LengthSettings,
        captions: CaptionSettings,
        lessons: Sequence[Lesson] = (),
        filler: Filler | None = None,
    ) -> None:
        """full: clips at which the cache stops growing. filler: the process that fills it."""
        check_order(lessons)
        self.cache, self.filler = cache, filler
        self.lengths, self.captions = lengths, captions
        self.timetable = Timetable(lessons, cache, full)
        if not len(cache):
            raise ValueError("the latent cache is empty; fill it first")

    @property
    def latent_frames(self) -> int:
        """Of a whole clip."""
        return int(self.cache.shards[0].shape[2])

    @property
    def num_frames(self) -> int:
        """Of a whole clip."""
        return GROUP * (self.latent_frames - 1) + 1

    def draw(self, step: int, size: int, generator: torch.Generator) -> Drawn:
        if step % REFRESH == 0:
            if self.filler is not None:
                self.filler.check()
            self.cache.refresh()
        frames = self.lengths.draw(self.latent_frames, generator)
        indices = self.timetable.draw(step * size, size, generator)
        scenes = [self.cache.scene(i) for i in indices]
        return Drawn(self.cache.latents(indices, frames), draw_captions(scenes, self.captions, generator))
