"""Distances to the world, and how copies show."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from kinema.backbones.load import load
from kinema.claims.adherence import LIST_SEED, Setup
from kinema.claims.training_data import TrainingClips, copies, distance, draw, measure, nearest, scenes, seen, table
from kinema.core.errors import KinemaError
from kinema.metrics.judge import Judge, JudgeNet
from kinema.training.judge import NetSettings, words_of
from kinema.world.curricula import get_curriculum
from kinema.world.prompts import read_prompts


def test_a_distance_lies_in_its_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(400, 3)), rng.normal([1.0, 0, 0], size=(600, 3))
    found = distance(a, b)
    assert found.value == pytest.approx(1.0, abs=0.2)  # the means are 1 apart, the covariances equal
    assert found.interval[0] < found.value < found.interval[1] < found.value + 0.4
    assert distance(a, a[::-1]).value == pytest.approx(0, abs=1e-9)
    wide = distance(a[:40], b[:60]).interval
    assert wide[1] - wide[0] > 2 * (found.interval[1] - found.interval[0])


def test_copies_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    training, held_out, fresh = (rng.normal(size=(n, 8)) for n in (300, 200, 200))
    copied = copies(training[:200] + 0.001 * rng.normal(size=(200, 8)), held_out, training)
    assert copied.ratio < 0.01 and copied.close.value == 1.0 and copied.which.tolist() == list(range(200))
    honest = copies(fresh, held_out, training)
    assert honest.ratio == pytest.approx(1, abs=0.1) and honest.close.value < 0.05
    near, which = nearest(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [4.0, 0.0]]))
    assert (near[0], which[0]) == (5.0, 1)


def test_prompts_are_those_of_the_list() -> None:
    assert [p.text for p in scenes(3, LIST_SEED)] == [p.text for p in read_prompts("adherence", 3)]


def test_a_whole_measurement(tiny_folder: Any, tmp_path: Any) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("kinema_mini"), folder)
    (folder / "card.json").write_text(json.dumps({"data": {"seeds": [0, 40]}, "training": {"steps": 12}}))
    torch.manual_seed(0)
    judge = Judge(
        JudgeNet(words_of(get_curriculum("first"), NetSettings(frames=5, size=32, channels=(8, 8, 8), width=16)))
    )
    backbone = load(folder, device="cpu")
    prompts = scenes(3, LIST_SEED)
    like = torch.empty(1, 1, 32, 32)
    held = seen(prompts, judge, 6, like).features
    training = TrainingClips(backbone, 4)
    assert training.which == [0, 10, 20, 30]
    setup = Setup(model="tiny", steps=1, num_frames=5, height=32, width=32, batch=3)
    result, pairs = measure(backbone, judge, prompts, held, setup, training)
    assert result.steps == 12 and len(pairs) == 3 and [p[0] for p in pairs] == sorted(p[0] for p in pairs)
    found = result.copies["features"]
    assert float(found.made.min()) == pytest.approx(pairs[0][0])
    draw(tmp_path / "closest.png", [(apart, made, made) for apart, made, _ in pairs])
    assert (tmp_path / "closest.png").is_file()
    assert "tiny, 12 steps" in table(result.made, [result], 3, 3) and json.dumps(result.to_dict())
    with pytest.raises(KinemaError, match="41 training clips are asked for, and there are 40"):
        TrainingClips(backbone, 41)
    with pytest.raises(KinemaError, match="does not say which seeds"):
        TrainingClips(load(tiny_folder("kinema_mini"), device="cpu"), 1)
