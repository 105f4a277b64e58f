"""What a training tells of its own model on the way: what the judge reads in clips of a few fixed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinema.metrics.agreement import ATTRIBUTES, Row, all_right, compare
from kinema.metrics.judge import Judge
from kinema.world.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone


def judge_scores(
    backbone: Backbone,
    prompts: int | Sequence[Prompt] = 24,
    seed: int = 7,
    steps: int | None = 10,
    *,
    batch: int = 8,
    judge: Judge | None = None,
) -> dict[str, float]:
    """Shares of the prompts, 0..1, whose clips show what they ask for: of each attribute, and "all" of them at once.

    prompts: how many of the list "adherence", from its start, or the prompts themselves. Clip i has the seed
    `seed` + i. steps: of the solver; None is the model's own number. batch: clips made together. An attribute that no
    prompt asks for is left out. With few steps the numbers are lower than those of `kinema.claims.adherence`, and of
    24 prompts they vary by about 0.1: they are for the course of one training.
    """
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance
    from kinema.request import Request

    chosen = read_prompts("adherence", prompts) if isinstance(prompts, int) else prompts
    judge = judge or Judge.load()
    requests = [Request(prompt=p.text, seed=seed + i, num_inference_steps=steps) for i, p in enumerate(chosen)]
    rows: list[list[Row]] = []
    for first in range(0, len(chosen), batch):
        part = slice(first, first + batch)
        frames = sample(backbone, requests[part], plain_guidance(backbone.defaults))
        readings = judge.read_batch(list(frames.cpu()))
        rows += [compare(p.asked, reading) for p, reading in zip(chosen[part], readings, strict=True)]
    return shares(rows)


def shares(rows: Sequence[Sequence[Row]]) -> dict[str, float]:
    """Share of right readings of each attribute that is asked for, and of the clips in which all are right."""
    told = {name: [r.right for each in rows for r in each if r.attribute == name and r.asked] for name in ATTRIBUTES}
    found = {name: sum(map(bool, rights)) / len(rights) for name, rights in told.items() if rights}
    return {**found, "all": sum(map(all_right, rows)) / len(rows)}
