"""One subject through many shots: later ones read some tokens of the first ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.chunk_prompts import one_an_event

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.backbones.protocol import Backbone
    from kinema.core.attention import Positions, Site
    from kinema.core.chunks import Chunk
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.request import Request

LATER = 0.696  # noise level below which more of the layers read the other shots: step 20 of 50


@dataclass(eq=False)
class Bank:
    """What a shot keeps for the next ones, and where in a call of the network it is."""

    kept: dict[str, Tensor] = field(default_factory=dict)  # name of a layer in a step -> keys and values
    call: tuple[int, str] = (-1, "")
    layers: dict[Site, int] = field(default_factory=dict)  # attentions of each site so far in the call


@technique("story_diffusion", paper="arXiv:2405.01434", base="Stable Diffusion XL", neutral=dict(rate=0.0))
@dataclass(frozen=True, kw_only=True)
class StoryDiffusion(Technique):
    """Queries of a shot read its own keys and, of one frame of each of the first shots, a random `rate` of the tokens.

    Every event of the prompt is a shot of its own, made one after the other, with a cut between them. What is borrowed
    is of the same step and layer; each sample draws its tokens anew in each step, and a layer reads them with a
    probability of `early`, below level 0.7 of `late`.
    Paper: "StoryDiffusion: Consistent Self-Attention for Long-Range Image and Video Generation", 2024,
    arXiv:2405.01434, its self-attention. Departures: the first images of the paper are one batch that see each other,
    here each sees those ahead of it; the shots are videos, of which a frame in the middle is shared; steps 0 to 4 of
    50, which read nothing, are the levels above 0.893 (Stable Diffusion's schedule). The up blocks of a UNet are its
    last half, of a transformer the last third, unless `block_range` says otherwise; where all frames are one sequence
    the borrowed tokens stand `distance` latent frames ahead of the clip, as a memory and not as neighbours. The
    trained predictor of motion between two images is left out.
    Shapes: keys and values (B, N, L, D), with L longer by rate x tokens of a frame x shots.
    Raises: KinemaError before the first shot, for values out of range, and for events that do not follow each other; in
    its first step behind a technique that passes some of the tokens.
    """

    conflicts = ("token_merging",)  # it takes keys for frames that are none

    noise_range: tuple[float, float] = (0.893, 0.0)
    rate: float = 0.5  # share of a frame's tokens that is borrowed, 0..1
    shots: int = 3  # first shots that the later ones read, 1 or more
    early: float = 0.7  # probability that a layer reads them, 0..1
    late: float = 0.9  # the same in the later steps
    distance: float = 8.0  # latent frames from the borrowed tokens to the clip's first, more than 0

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        if not all(0 <= share <= 1 for share in (self.rate, self.early, self.late)):
            raise KinemaError(f"rate, early and late of {self.name} are shares; use 0 to 1")
        if self.shots < 1 or self.distance <= 0:
            raise KinemaError(f"{self.name} has {self.shots} shots at distance {self.distance}; use 1 and more than 0")
        return one_an_event(backbone, request, self.name)

    def start(self, run: Run) -> None:
        unet = any(site.kind == "spatial" for site in run.backbone.sites)
        if run.chunk.count > 1 and not unet and "positions" not in run.backbone.hooks:
            raise KinemaError(
                f"{self.name} gives what it lends a place, and those of the {run.backbone.family} family are fixed"
            )
        blocks = 1 + max(site.block for site in run.backbone.sites)
        decoder = blocks // 2 if unet else blocks - -(-blocks // 3)
        run.state[self] = Bank(), decoder if self.block_range is None else 0

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "spatial")

    def attend(
        self,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        next: Callable[..., Tensor],
    ) -> Tensor:
        assert step.run is not None
        bank, decoder = step.run.state[self]
        chunk, handed = step.run.chunk, step.run.carried[self]
        if self.rate == 0 or chunk.count == 1 or site.block < decoder:
            return next(q, k, v, positions)
        if positions is not None and positions.k_part is not None:
            raise KinemaError(f"{self.name} needs all tokens of the video; put it ahead of what passes some of them")
        name = layer_of(bank, step, site)
        seeds = [generator.initial_seed() + 1000 * step.index for generator in step.run.generators]
        if chunk.index < self.shots and chunk.index < chunk.count - 1:
            tokens, places, read = self._lent(step, k, v, positions, seeds)
            kept = f"{chunk.index}.{name}"
            bank.kept |= {kept: tokens, f"{kept}.places": places, f"{kept}.read": read}
        lent = [key for i in range(self.shots) if (key := f"{i}.{name}") in handed]
        reads = drawn([seed + site.block + 1 for seed in seeds], 1) < (self.early if step.t > LATER else self.late)
        if not lent or not reads.any():
            return next(q, k, v, positions)
        tokens = torch.cat([handed[key] for key in lent], dim=3).to(k)
        places = torch.cat([handed[f"{key}.places"] for key in lent])
        read = torch.cat([handed[f"{key}.read"] for key in lent], dim=1).to(k.device) & reads.to(k.device)
        return next(q, *self._borrowed(tokens, places, read, k, v, positions))

    def _lent(
        self, step: Step, k: Tensor, v: Tensor, positions: Positions | None, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (2, B, N, n, D) of some tokens of the frame in the middle, where they stand, (n, 3), and
        which of them each sample reads, (B, n) bool: it draws its own, and places are the same for all."""
        assert step.run is not None
        if positions is None:  # a UNet's layer sees one frame at a time: they stand in the batch
            frames = step.run.conditions.shape[2] if step.window is None else step.window.stop - step.window.first
            one = torch.stack([k, v]).reshape(2, -1, frames, *k.shape[1:])[:, :, frames // 2]
            read = (drawn(seeds, k.shape[2]) < self.rate).to(k.device)
            some = read.any(dim=0)
            return one[:, :, :, some], torch.zeros(int(some.sum()), 3), read[:, some]
        places = positions.k[: len(positions.k) - positions.extra]
        frame = (places[:, 0] == places[len(places) // 2, 0]).nonzero().flatten()  # that of the token in the middle
        read = (drawn(seeds, len(frame)) < self.rate).to(frame.device)
        some = read.any(dim=0)
        chosen = frame[some]
        return torch.stack([k, v])[:, :, :, positions.placed_keys[chosen]], places[chosen], read[:, some]

    def _borrowed(
        self, lent: Tensor, places: Tensor, read: Tensor, k: Tensor, v: Tensor, positions: Positions | None
    ) -> tuple[Tensor, Tensor, Positions | None, Tensor | None]:
        """Keys, values and positions with the tokens that are lent (2, B, N, n, D) behind those of the video, and what
        hides from a sample those that it does not read."""
        each = k.shape[0] // lent.shape[1]  # frames, where they are the batch
        lent, read = lent.repeat_interleave(each, dim=1), read.repeat_interleave(each, dim=0)
        behind = k.shape[2] if positions is None else positions.first + len(positions.k)
        bias = None
        if not read.all():
            bias = k.new_zeros(len(k), 1, 1, k.shape[2] + read.shape[1])
            bias[:, 0, 0, behind : behind + read.shape[1]].masked_fill_(~read, -torch.inf)
        k, v = (
            torch.cat([u[:, :, :behind], new, u[:, :, behind:]], dim=2) for u, new in zip((k, v), lent, strict=True)
        )
        if positions is None:
            return k, v, None, bias
        away = places.to(positions.k)
        placed = positions.with_lent(torch.cat([torch.full_like(away[:, :1], -self.distance), away[:, 1:]], dim=1))
        return k, v, placed, bias

    def carry(self, run: Run, x: Tensor) -> Mapping[str, Tensor]:
        return {**run.carried[self], **run.state[self][0].kept}


def drawn(seeds: Sequence[int], count: int) -> Tensor:
    """Random numbers 0..1 of each seed, (seeds, count) float32."""
    return torch.stack([torch.rand(count, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def layer_of(bank: Bank, step: Step, site: Site) -> str:
    """The name of the attention that is asked now: a step, a branch of the guidance, and a layer of the network."""
    if bank.call != (step.index, step.branch):
        bank.call, bank.layers = (step.index, step.branch), {}
    nth = bank.layers[site] = bank.layers.get(site, -1) + 1
    return f"{step.index}.{step.branch}.{site.block}.{site.kind}.{nth}"
