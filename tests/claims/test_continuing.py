"""Motion that goes on, and how well given frames are kept."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from kinema.backbones.load import load
from kinema.claims.adherence import Setup
from kinema.claims.continuing import Row, add, goes_on, lead, measure, rendered, scenes, table, tasks, way
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.world.motion import simulate


def test_tasks_divide_the_frames() -> None:
    going_on, fill = tasks(25, 4)
    assert (going_on.keep, going_on.made) == ("0:5", tuple(range(5, 25)))
    assert (fill.keep, fill.kept, fill.made) == ("0:1,-4:", (0, 21, 22, 23, 24), tuple(range(1, 21)))


def test_a_way_is_the_slope_of_a_line() -> None:
    t = np.arange(25.0)
    centre = np.stack([10 + 2 * t, 50 - t], -1)
    assert way(centre, range(5, 25)) == pytest.approx([38, -19])
    centre[10:14] = np.nan
    assert way(centre, range(5, 25)) == pytest.approx([38, -19])
    centre[7:20] = np.nan
    assert way(centre, range(5, 25)) is None and way(None, range(5, 25)) is None


def test_right_is_45_degrees_and_a_third() -> None:
    true = np.array([30.0, 0.0])

    def turned(degrees: float, length: float) -> np.ndarray:
        return length * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    assert goes_on(turned(44, 11), true) and goes_on(turned(-44, 90), true)
    assert not goes_on(turned(46, 30), true) and not goes_on(turned(0, 9), true) and not goes_on(turned(180, 30), true)
    assert not goes_on(None, true) and not goes_on(np.zeros(2), true)


def test_scenes_have_constant_speed_in_all_directions() -> None:
    prompts = scenes(5, 25, 128, 128)
    assert [p.spec.events[0].direction for p in prompts[:4]] == ["left", "right", "towards", "away"]
    assert len({p.spec.seed for p in prompts}) == 5 and lead(25) == 4
    place = simulate([p.spec for p in prompts])[0].centre[:, lead(25) : lead(25) + 25, 0]
    speed = place.diff(dim=1)
    torch.testing.assert_close(speed, speed[:, :1].expand_as(speed), atol=1e-5, rtol=0)
    assert bool((speed.norm(dim=-1) > 0.02).all())


def test_the_true_clip_is_kept_and_goes_on() -> None:
    drawn, true = rendered(scenes(1, 25, 128, 128), 25)
    task, world = tasks(25, 4)[0], load_extractor("world")
    row, back = Row(task.name, "caption"), Row(task.name, "caption")
    add(row, task, drawn, drawn, true, world, 8.0)
    assert row.psnr == [100.0] and row.right == [True]
    add(back, task, drawn.flip(1), drawn, true, world, 8.0)
    assert back.right == [False] and back.psnr[0] < 40


class Bright(Extractor):
    """Takes bright pixels for things; quicker than eyes, and as good for an untrained model."""

    name, gives, usual = "bright", frozenset({"mask"}), ""

    def mask(self, frames: np.ndarray) -> np.ndarray:
        return (frames.mean(-1) > 128).astype(np.float32)


def test_a_whole_measurement(tiny_folder: Any, tmp_path: Any) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("kinema_mini"), folder)
    (folder / "card.json").write_text(json.dumps({"given": {"first_k": 0.5, "first_and_last": 0.5}}))
    backbone = load(folder, device="cpu")
    setup = Setup(steps=1, num_frames=9, height=32, width=32, batch=2)
    prompts = scenes(2, 9, 32, 32)
    rows = measure(backbone, Bright(""), prompts, setup, 9)
    assert len(rows) == 10 and all(len(row.right) == 2 for row in rows)
    kept = {row.clips: row.psnr for row in rows if row.task == "continue"}
    # An untrained autoencoder is bad, and what is kept is exactly as bad where nothing else is looked back to.
    assert kept["caption"] == pytest.approx(kept["through the autoencoder"], abs=1e-3) == kept["no words"]
    assert "fill: frames 0:1,-4: stay, 4 are made" in table(rows, tasks(9, 4))
    assert json.dumps([row.to_dict() for row in rows])
