"""Judge scores in a training: counted rightly, and the same each time."""

from __future__ import annotations

import pytest
import torch

from kinema.backbones.load import load
from kinema.metrics.agreement import Row
from kinema.metrics.judge import Judge, JudgeNet
from kinema.training.evaluating import judge_scores, shares
from kinema.training.judge import NetSettings, words_of
from kinema.world.curricula import get_curriculum


def row(attribute: str, asked: str | None, right: bool | None) -> Row:
    return Row(attribute=attribute, asked=asked, read="", confidence=1.0, right=right)


def test_shares() -> None:
    clips = [
        [row("kind", "ball", True), row("colour", "red", False), row("camera", None, None)],
        [row("kind", "cube", True), row("colour", "blue", True), row("camera", None, None)],
    ]
    assert shares(clips) == {"kind": 1.0, "colour": 0.5, "all": 0.5}


def test_scores_of_a_model(tiny_folder) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    judge = Judge(JudgeNet(words_of(get_curriculum("first"), NetSettings(frames=5, size=32, channels=(8, 8, 8)))))
    backbone = load(tiny_folder("kinema_mini"), device="cpu")
    backbone.defaults = backbone.defaults.__class__(
        **{**vars(backbone.defaults), "num_frames": 5, "height": 32, "width": 32}
    )
    scores = judge_scores(backbone, 4, seed=7, steps=1, batch=2, judge=judge)
    assert set(scores) == {"kind", "colour", "ground", "sky", "events", "camera", "all"}
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores == judge_scores(backbone, 4, seed=7, steps=1, batch=2, judge=judge)
    with pytest.raises(ValueError, match="use 1 to 200"):
        judge_scores(backbone, 201, judge=judge)
