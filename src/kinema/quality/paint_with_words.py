"""Words of the prompt drawn to the places where they are to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.logits import in_groups, largest_logit
from kinema.layers.regions import Region, read_regions

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step


@dataclass(frozen=True, eq=False)
class Painting:
    """What a run paints where."""

    regions: tuple[Region, ...]
    frames: Tensor  # (regions, T) bool
    tokens: list[list[list[int]]]  # by sample and region: which tokens of the text its words are

    def shares(self, step: Step, rows: int, columns: int, every: int = 1) -> Tensor:
        """How much of each token lies in each region, (tokens, regions), 0..1; every: latent frames of a token, one
        of which is enough."""
        boxes = torch.stack([region.share(rows, columns) for region in self.regions])
        frames = self.frames if step.window is None else self.frames[:, step.window.first : step.window.stop]
        there = torch.unflatten(frames, 1, (-1, every)).any(dim=2)
        found: Tensor = (there[..., None, None] * boxes[:, None]).flatten(1).T
        return found

    def words(self, keys: Tensor, positions: Positions | None) -> Tensor:
        """Which keys (B, N, L, D) are the words of a region, (samples, regions, L), 0 or 1."""
        marks = keys.new_zeros(len(self.tokens), len(self.regions), keys.shape[2])
        for sample, regions in enumerate(self.tokens):
            for region, tokens in enumerate(regions):
                marks[sample, region, tokens if positions is None else positions.text_keys(tokens)] = 1
        return marks


@technique(
    "paint_with_words",
    paper="arXiv:2211.01324",
    base="eDiff-I",
    neutral=dict(weight=0.0, regions="red ball: 0 0 0.5 1"),
)
@dataclass(frozen=True, kw_only=True)
class PaintWithWords(Technique):
    """logits + w A, with A_ij the share of token i in the box of word j and w = weight * log(1 + sigma) * max(logits).

    sigma = t / (1 - t), the noise in units of the signal, so that boxes count most while the picture is laid out. A box
    may belong to a part of the video; a thing that moves has several, one behind the other.
    Paper: "eDiff-I: Text-to-Image Diffusion Models with an Ensemble of Expert Denoisers", 2022, arXiv:2211.01324,
    paint-with-words. Departures: boxes for painted masks, and frames may have boxes of their own. The paper chooses its
    weight by hand. The maximum is that of each head, over the tokens of the video and all of the text, and sigma counts
    as no more than `most_sigma`. Where video and text are one sequence, only what the video reads of the text is
    painted, and nothing is in branches of the guidance that read another text.
    Shapes: q, k, v (B, N, L, D); A (L, P); w (B, N, 1, 1).
    Raises: KinemaError at start, for no boxes, boxes outside the picture, words that the prompt does not say, times
    that the video does not have, and beside a technique that lets frames or windows read texts of their own.
    """

    regions: str = ""  # "words: left top right bottom @ times; ...", from 0 to 1, see layers/regions.py
    weight: float = 0.2  # no unit; 0 or more, 0 paints nothing
    most_sigma: float = 80.0  # no unit; more than 0

    def start(self, run: Run) -> None:
        if self.weight < 0 or self.most_sigma <= 0:
            raise KinemaError(
                f"{self.name} has weight {self.weight} and most_sigma {self.most_sigma}; use 0 or more, and above 0"
            )
        several = any(request.events is not None and len(request.events) > 1 for request in run.requests)
        for t in run.techniques:
            if t.overrides("context") or (t.windowed and several):
                raise KinemaError(
                    f"{self.name} paints words of the prompt, and with {t.name} frames read others; use one"
                )
        name = f"regions of {self.name}"
        regions = read_regions(self.regions, name)
        try:
            tokens = [[run.backbone.word_tokens(r.text, region.words) for region in regions] for r in run.requests]
        except KinemaError as error:
            raise KinemaError(f"{name}: {error}") from None
        run.state[self] = Painting(regions, torch.stack([region.frames(run, name) for region in regions]), tokens)

    def wants(self, site: Site) -> bool:
        return site.kind in ("cross", "joint")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        run = step.run
        assert run is not None
        if self.weight == 0 or not run.reads_prompt(step.branch):
            return next(q, k, v, positions)
        painting: Painting = run.state[self]
        marks = painting.words(k, positions)
        strength = self.weight * math.log1p(min(step.t / max(1 - step.t, 1e-9), self.most_sigma))
        sizes, patch = run.conditions.shape[3:], run.backbone.patch
        if positions is None:  # a UNet: frames in the batch, each level half as large as the one above
            rows, columns = sizes
            while rows * columns > q.shape[2]:
                rows, columns = -(-rows // 2), -(-columns // 2)
            shares = painting.shares(step, rows, columns).to(k).reshape(-1, rows * columns, len(painting.regions))
            marks = marks.repeat_interleave(shares.shape[0], dim=0)
            w = strength * largest_logit(next, q, k, None)
            return next(q, k, v, None, w * _either(shares.repeat(len(painting.tokens), 1, 1), marks)[:, None])
        rows, columns = (size // p for size, p in zip(sizes, patch[1:], strict=True))
        shares = painting.shares(step, rows, columns, patch[0]).to(k)
        number = (
            torch.arange(q.shape[2], device=q.device) if positions.q_part is None else positions.q_part.within(None)
        )
        inside = (number >= positions.first) & (number < positions.first + len(shares))
        if not inside.any():
            return next(q, k, v, positions)
        kinds, kind = torch.unique(shares, dim=0, return_inverse=True)
        group = torch.full_like(number, -1)
        group[inside] = kind[number[inside] - positions.first]
        is_text = torch.ones(k.shape[2], dtype=torch.bool, device=k.device)
        is_text[positions.placed_keys] = False
        w = strength * largest_logit(next, q, k, positions, inside.nonzero().flatten(), is_text.nonzero().flatten())
        return in_groups(next, q, k, v, positions, group, w * _either(kinds[None], marks)[:, None])


def _either(shares: Tensor, marks: Tensor) -> Tensor:
    """A, (B, L, P), from shares (B or 1, L, regions) and marks (B, regions, P): of two boxes of a word the larger."""
    return (shares[..., None] * marks[:, None]).amax(dim=2)
