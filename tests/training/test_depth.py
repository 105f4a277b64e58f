"""Training of the depth network: what it is shown has the answers that belong to it, and it resumes exactly."""

from __future__ import annotations

import signal
from itertools import pairwise

import numpy as np
import pytest
import torch

from kinema.claims.depth import measure, scores
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.layers.depth import Depth, DepthConfig, DepthNet
from kinema.training import depth as training
from kinema.training.repaint import recoloured, repainted, with_cards
from kinema.training.trainer import TrainerSettings, seeded

TINY = dict(size=32, channels=(8, 8, 16))
WORDS = "depth.net={size: 32, channels: [8, 8, 16]} depth.shapes=[[32,32]] depth.trainer.batch_size=2"
WORDS += " depth.trainer.precision=fp32 depth.trainer.tensorboard=false"


@pytest.fixture
def tiny() -> Depth:
    torch.manual_seed(0)
    return Depth(DepthNet(DepthConfig(**TINY)))


@pytest.fixture(scope="module")
def stage() -> training.DepthStage:
    net, trainer = training.NetSettings(**TINY), TrainerSettings(steps=1, batch_size=4, precision="fp32")
    shares = dict(worse_share=0.0, painted_share=0.0, carded_share=0.0, coloured_share=0.0)
    return training.DepthStage(training.DepthSettings(trainer=trainer, net=net, shapes=((32, 32),), **shares))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("height, width", [(8, 8), (20, 50), (130, 70)])
def test_sees_any_size_frame_by_frame(tiny: Depth, height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    near = tiny.nearness(frames)
    assert near.shape == (3, height, width) and near.dtype == np.float32 and near.min() >= 0
    np.testing.assert_allclose(tiny.nearness(frames[2:])[0], near[2], atol=1e-5)
    with pytest.raises(ValueError, match=r"use \(T, H, W, 3\) uint8, one at least"):
        tiny.nearness(frames[0])


def test_saved_and_loaded_is_the_same_bit_for_bit(tiny: Depth, tmp_path) -> None:
    tiny.save(tmp_path / "a")
    Depth.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("model.safetensors", "config.json", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(KinemaError, match=r"has no config\.json; make it with `kinema train depth"):
        Depth.load(tmp_path)


def test_answers_are_cut_out_mirrored_and_enlarged_with_the_picture(stage: training.DepthStage) -> None:
    batch = stage.batch(0, seeded(0, 0, 0))
    shown = batch["near"] / batch["near"].max()
    batch["frames"] = (shown[..., None] * 255).expand(*shown.shape, 3).round().byte()
    picture, near = stage.prepare(batch, seeded(0, 1, 0))
    zoom = (near.flatten(1) / (5 * picture[:, :, 0] * batch["near"].max()).flatten(1)).nanmedian(1).values
    assert ((zoom > 0.99) & (zoom < 2.01)).all() and zoom.max() - zoom.min() > 0.1
    expected = 5 * picture[:, :, 0] * batch["near"].max() * zoom[:, None, None, None]
    torch.testing.assert_close(near, expected, atol=0.05, rtol=0.02)


def test_the_loss_of_the_truth_is_nothing_and_forgets_no_pumping() -> None:
    near = noise(2, 3, 16, 16)
    torch.testing.assert_close(training.standardised(4 * near + 1), training.standardised(near))
    pumping = near * torch.tensor([1.0, 2.0, 1.0])[:, None, None]
    off = training.standardised(pumping) - training.standardised(near)
    assert off.abs().mean() > 0.1 and training.unevenness(off) > 0.1
    assert training.unevenness(torch.ones(1, 1, 16, 16)) == 0


def test_things_are_painted_whole_and_nothing_moves() -> None:
    x, thing = torch.full((2, 1, 3, 32, 32), 0.5), torch.zeros(2, 1, 32, 32, dtype=torch.int8)
    thing[..., :8, :], thing[..., 20:, 10:20] = -1, 1
    found = repainted(x, thing, seeded(0, 0, 0), 1.0)
    assert found.shape == x.shape and found.min() >= 0 and found.max() <= 1
    colours = [found[0, 0][:, thing[0, 0] == i].mean(1) for i in (-1, 0, 1)]
    assert all((a - b).abs().max() > 0.02 for a, b in pairwise(colours))
    assert torch.equal(repainted(x, thing, seeded(0, 0, 0), 0.0), x)
    grey = recoloured(x, seeded(0, 0, 1), 1.0)  # what has no hue gets none
    assert (grey - grey.mean(2, keepdim=True)).abs().max() < 1e-5 and not torch.equal(grey, x)


def test_cards_stand_on_the_ground_and_hide_what_is_farther() -> None:
    ground = torch.linspace(-1, 1, 40).clamp_min(0)[:, None].expand(40, 40)  # sky above
    near = ground.expand(8, 1, 40, 40).clone()
    near[..., 10:30, 18:22] = 5.0  # a pole nearer than all ground
    x = torch.zeros(8, 1, 3, 40, 40)
    pictures, found = with_cards(x, near, seeded(0, 0, 3), 1.0)
    changed = found != near
    assert changed.any() and (found >= near).all() and (found[..., 10:30, 18:22] == 5).all()
    assert set(found[changed].tolist()) <= set(ground[:, 0].tolist())  # as near as some row of the ground
    assert (pictures.amax(2)[found == 5] == 0).all() and (pictures.amax(2)[changed] > 0).any()


def test_resumed_is_unbroken(tmp_path, monkeypatch, capsys) -> None:
    words = ["train", "depth", *_words(), "--steps", "3", "--device", "cpu"]
    assert run([*words, "--out", str(tmp_path / "whole")]) == 0

    class Stopped(training.DepthStage):
        def batch(self, step, generator):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            return super().batch(step, generator)

    with monkeypatch.context() as patch:
        patch.setattr(training, "DepthStage", Stopped)
        assert run([*words, "--out", str(tmp_path / "broken")]) == 130
    assert not (tmp_path / "broken" / "depth").exists()
    assert run([*words, "--out", str(tmp_path / "broken")]) == 0
    a, b = (Depth.load(tmp_path / name / "depth") for name in ("whole", "broken"))
    for one, other in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert a.card["steps"] == b.card["steps"] == 3 and a.card["frames"] == 6
    assert list((tmp_path / "whole").glob("sheet-*.png"))
    begun = DepthNet(DepthConfig(**TINY)).state_dict()
    assert not torch.equal(begun["out.weight"], a.net.state_dict()["out.weight"])


def _words() -> list[str]:
    """WORDS, of which one has spaces in it."""
    first, rest = WORDS.split("} ")
    return [first + "}", *rest.split()]


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(zoom=0.5), "zoom is 0.5; use 1 to 8"),
        (dict(painted_share=2.0), "painted_share is 2.0; use 0 to 1"),
        (dict(weights={"near": 1.0}), "use exactly near, relative, edges"),
        (dict(shapes=()), "use rows and columns of at least 8"),
    ],
)
def test_settings_are_checked(bad, says) -> None:
    with pytest.raises(ValueError, match=says):
        training.DepthSettings(trainer=TrainerSettings(steps=1), **bad)


def test_scores_of_the_truth_and_of_what_is_turned_round() -> None:
    near = 0.1 + noise(2, 16, 16)
    near[:, :2] = 0
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    found = scores(frames, 3 * near.numpy(), near)
    assert found == pytest.approx(dict(abs_rel=0, delta=1, spearman=1, structure=0), abs=1e-5)
    turned = scores(frames, (1.2 - near).numpy(), near)
    assert turned["spearman"] == pytest.approx(-1) and turned["abs_rel"] > 0.5 and turned["structure"] > 0.3
    frames[1], near[1] = frames[0], near[0]
    assert scores(frames, near.numpy(), near)["flicker"] == 0


def test_what_ships_sees_rendered_frames() -> None:
    found = measure({"depth": Depth.load().nearness}, 6, "full", 77_000)["depth"]
    assert found["spearman"] > 0.93 and found["abs_rel"] < 0.25 and found["flicker"] < 0.01
