"""Clips painted anew: what the model says brings them back, and readers find again what is kept of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kinema.core.footage import as_video
from kinema.training.event_times import EventTimesSettings, EventTimesStage
from kinema.training.kept import kept
from kinema.training.painting import GUIDANCE, NOISE, STEPS, Painter
from kinema.training.trainer import TrainerSettings
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec


def test_a_model_that_knows_the_clip_brings_it_back() -> None:
    """On the straight path of z the velocity is (x - z) / t at every level; what the text adds to it is weighed."""
    z, seen = torch.randn(3, 2, 2, 4, 4, generator=torch.Generator().manual_seed(0)), []

    def velocity(x: torch.Tensor, t: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        seen.append((t, prompts))
        return (x - z) / t[:, None, None, None, None] + (0.1 if prompts[0] else 0.0)

    paint = Painter(SimpleNamespace(velocity=velocity, backbone=SimpleNamespace(device=torch.device("cpu"))))  # type: ignore[arg-type]
    found = paint(z, ["a", "b", "c"], torch.Generator().manual_seed(1))
    first, prompts = seen[0]
    weights = STEPS * (z - found) / (0.1 * first[:, None, None, None, None])  # all but the last step's is taken back
    assert ((weights > GUIDANCE[0] - 0.01) & (weights < GUIDANCE[1] + 0.01)).all()
    torch.testing.assert_close(weights, weights[:, :1, :1, :1, :1].expand_as(weights), atol=1e-3, rtol=0)
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


def test_what_is_kept_belongs_to_what_it_was_made_of(tmp_path: Path) -> None:
    made = [torch.eye(3), torch.zeros(3)]
    path = tmp_path / "new" / "a.safetensors"
    for _ in range(2):
        assert torch.equal(kept(path, ["a", 1], lambda: {"u": made.pop(0)})["u"], torch.eye(3))
    assert len(made) == 1
    with pytest.raises(ValueError, match="made of other clips or settings"):
        kept(path, ["a", 2], lambda: {"u": made.pop(0)})


def test_painting_changes_a_clip_and_little(tmp_path: Path) -> None:
    """Half of what a clip is above its mean colour stays, and more is changed than by the autoencoder alone."""
    specs = [sample_spec(seed, "cameras") for seed in (1, 2)]
    clips, paint = render_frames(simulate(specs)[0]), Painter.of("mini", "cpu")
    backbone = paint.predictor.backbone
    decoded = backbone.decode(backbone.encode(as_video(clips))).float()
    painted = paint.frames(clips, specs, torch.Generator().manual_seed(0)).float()
    off = [(each - clips.float()).square().mean((1, 2, 3, 4)) for each in (decoded, painted)]
    assert (off[0] < off[1]).all() and (off[1] < 0.5 * clips.float().var((1, 2, 3, 4))).all()
