"""Texts that hand over to each other along the clip, and read by some blocks only early and late."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.events import Mixtures, events_of

if TYPE_CHECKING:
    from kinema.core.attention import Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

DECODER = 2 / 3  # of the blocks of a transformer: those behind are its decoder
UNET_DECODER = 1 / 2  # of the blocks of a UNet


@technique(
    "prompt_schedule",
    paper="arXiv:2310.15169",
    base="VideoCrafter 1, AnimateDiff, LaVie",
    neutral=dict(),
)
@dataclass(frozen=True, kw_only=True)
class PromptSchedule(Technique):
    """Each latent frame reads its event's text, mixed with the next one's near the border; other blocks read one text.

    Within `mixed_range` every block reads the mixture; before and after it only the decoder does, and the others read
    the text of the event `base`.
    Paper: "FreeNoise: Tuning-Free Longer Video Diffusion via Noise Rescheduling", 2023, arXiv:2310.15169, section 3.3,
    motion injection: two prompts, frames 0 to 3/8 the first, from 5/8 the second, a line between them. Departures: any
    number of events of any length, whose texts mix over `mixing` of the shorter of two neighbours around their border;
    a mixture is one of `levels` between its texts. The paper's base is the first prompt, its code takes the last, and
    so does this. Steps 5 to 15 of 50 are noise levels here (those of Stable Diffusion's schedule); the decoder of a
    transformer is the last third of its blocks, that of a UNet what comes behind its middle.
    Shapes: (texts, T) bool, which latent frame reads which of the texts and their mixtures.
    Raises: KinemaError at start, for values out of range, several prompts in a batch, and events that overlap.
    """

    mixing: float = 0.5  # of the shorter event's length, 0..1; 0 is a hard border
    levels: int = 4  # mixtures between two texts, 1 or more
    base: Literal["first", "last"] = "last"  # whose text the other blocks read outside mixed_range
    mixed_range: tuple[float, float] = (0.893, 0.755)  # noise levels, from high to low

    def start(self, run: Run) -> None:
        if not 0 <= self.mixing <= 1 or self.levels < 1:
            raise KinemaError(f"{self.name} has mixing {self.mixing} and levels {self.levels}; use 0..1 and 1 or more")
        if self.base not in ("first", "last"):
            raise KinemaError(f"base of {self.name} is {self.base!r}; use first or last")
        found = events_of(run, self.name)
        if (found.frames.sum(dim=0) > 1).any():
            raise KinemaError(f"{self.name} lets events follow each other, and some overlap here; part them in time")
        read = Mixtures.of(found.texts, mixed(found.frames, self.mixing, self.levels))
        ends = read.weights[:, 0 if self.base == "first" else -1]
        other = torch.zeros_like(read.frames)
        other[int(ends.argmax())] = True
        run.state[self] = read.frames, other, self._decoder(run)
        run.read_texts(read.texts if len(found.texts) > 1 else [])

    def _decoder(self, run: Run) -> int:
        """The first block of the decoder."""
        blocks = 1 + max(site.block for site in run.backbone.sites)
        unet = any(site.kind == "temporal" for site in run.backbone.sites)
        return int(blocks * (UNET_DECODER if unet else DECODER))

    def context(self, step: Step, site: Site, frames: int) -> Tensor | None:
        assert step.run is not None
        table, other, decoder = step.run.state[self]
        everywhere = self.mixed_range[0] >= step.t >= self.mixed_range[1]
        read: Tensor = table if everywhere or site.block >= decoder else other
        return read


def mixed(frames: Tensor, mixing: float, levels: int) -> Tensor:
    """How much of each event's text each latent frame reads, (T, events) from events (events, T) bool.

    Around the border of two events end to end the weight of the second grows in a line over `mixing` of the shorter
    one's frames, in steps of 1 / (levels + 1).
    """
    weights = frames.T.double()
    events = [row.nonzero().flatten() for row in frames]
    for i, (before, after) in enumerate(pairwise(events)):
        if after[0] != before[-1] + 1:
            continue
        width = mixing * min(len(before), len(after))
        border = int(after[0])
        for frame in range(int(before[0]), int(after[-1]) + 1):
            along = (frame + 0.5 - border) / width + 0.5 if width else float(frame >= border)
            if 0 < along < 1:
                w = round(along * (levels + 1)) / (levels + 1)
                weights[frame, i], weights[frame, i + 1] = 1 - w, w
    return weights
