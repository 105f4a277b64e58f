"""Clips painted anew: what the model says brings them back, and readers find again what is kept of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from kinema.training.event_times import EventTimesSettings, EventTimesStage
from kinema.training.painting import NOISE, Painter
from kinema.training.trainer import TrainerSettings


def test_a_model_that_knows_the_clip_brings_it_back() -> None:
    """On the straight path of z the velocity is (x - z) / t at every level, whatever the weight of the text."""
    z, seen = torch.randn(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0)), []

    def velocity(x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.append((t, prompts))
        return (x - z) / t[:, None, None, None, None]

    paint = Painter(SimpleNamespace(velocity=velocity))  # type: ignore[arg-type]
    found = paint(z, ["a", "b", "c"], torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, z, atol=1e-5, rtol=0)
    first, prompts = seen[0]
    assert prompts == ["a", "b", "c"] and seen[1][1] == ["", "", ""]
    assert (first > NOISE[0]).all() and (first < NOISE[1]).all() and len(set(first.tolist())) == 3


def test_what_the_judge_makes_of_painted_clips_is_kept(tmp_path: Path) -> None:
    trainer = TrainerSettings(steps=1, batch_size=2)
    stage = EventTimesStage(EventTimesSettings(trainer=trainer, batches=1, painted=1, painted_share=1.0), tmp_path)
    made = stage.batch(0, torch.Generator())
    stage.known.clear()
    del stage.painter  # is not asked for again
    again = stage.batch(0, torch.Generator())
    assert "painter" not in vars(stage) and set(made) == set(again)
    for name, u in made.items():
        torch.testing.assert_close(again[name], u, atol=0, rtol=0, equal_nan=True)
    assert not torch.equal(stage.make(1)["token"], made["token"])  # of the same scenes as they are rendered
