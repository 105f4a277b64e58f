"""A clip an event, from the inverted noise of the last frame."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from core.test_loop import ToTarget
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.events.mtvg import MTVG
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=4, seed=1, fps=8)
TWO = "a red ball rolls, then it bounces"


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


class Drift(ToTarget):
    """A model whose velocity is 2 everywhere, and whose autoencoder knows one clip."""

    name, frames_per_latent = "drift", 1

    def velocity(self, x, t, conditions, dropped):
        self.calls.append((round(float(t), 4), dropped))
        return torch.full_like(x, 2.0)

    def encode(self, video):
        return torch.full((1, 2, 3, 4, 4), 0.5)


def test_inversion_goes_up_the_flow_without_text():
    """With v = 2 everywhere x = 0.5 + 2 t, and its noise is 2.5, whatever the anchor draws to."""
    backbone, part = Drift(), MTVG(decay=0.0, structure=0.0)
    request = Request(prompt="a", num_frames=3, num_inference_steps=4, seed=0)
    with Run.open(backbone, request, [part], before=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8)) as run:
        run.conditions.num_frames = 3
        run.chunk = replace(run.chunk, index=1, count=2)
        noise, levels = part.init_noise(run, run.noise()), [round(step.t, 4) for step in run.schedule]
    torch.testing.assert_close(noise[:, :, 0], torch.full((1, 2, 4, 4), 2.5))
    assert backbone.calls == [(t, frozenset({"text"})) for t in [levels[-1], *reversed(levels[1:])]]


def test_the_first_frame_is_drawn_to_the_last_one_and_the_noise_of_others_decays(monkeypatch):
    """With v = x and without new noise: a frame i > 0 keeps a / sqrt(1 + a^2) of e in every step, a = 1 for the first
    of them and exp(-10) for the last; the estimate of frame 0 goes 0.3 of the way to 0.5, the last frame."""
    backbone, part = Drift(), MTVG(anchor=0.3)
    monkeypatch.setattr(backbone, "velocity", lambda x, t, *how: x)
    request = Request(prompt="a", num_frames=3, num_inference_steps=4, seed=0)
    with Run.open(backbone, request, [part], before=torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8)) as run:
        run.conditions.num_frames = 3
        run.chunk = replace(run.chunk, index=1, count=2)
        x = run.noise()
        monkeypatch.setattr(run, "noise", lambda: torch.zeros_like(x))
        noise, levels = part.init_noise(run, x), sorted({0.0, *(step.t for step in run.schedule)})

    def inverted(share, anchor=0.0):
        z = 0.5
        for t, s in pairwise(levels):
            e, clean = share * (z + (1 - t) * z), z - t * z
            z = (1 - s) * (clean + anchor * (0.5 - clean)) + s * e
        return e

    expected = [inverted(1.0, 0.3), inverted(0.5**0.5), inverted(math.exp(-10))]
    torch.testing.assert_close(noise.mean(dim=(0, 1, 3, 4)), torch.tensor(expected))


def test_later_frames_have_more_new_noise(backbone):
    part = MTVG()
    request = Request(prompt="a ball", num_frames=33, **SIZE)
    before = torch.randint(0, 255, (1, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with Run.open(backbone, request, [part], before=before) as run:
        run.chunk = replace(run.chunk, index=1, count=2)
        one, other = (part.init_noise(run, run.noise()) for _ in range(2))
    apart = (one - other).pow(2).mean(dim=(0, 1, 3, 4)).sqrt()
    assert apart[0] < 0.5 * apart[-1] and abs(apart[-1] - 2**0.5) < 0.25  # two independent unit normals
    assert abs(one[:, :, 1:].std() - 1) < 0.2


def test_frames_are_drawn_to_the_ones_ahead(backbone):
    part, x0 = MTVG(structure=0.5), torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1, 1)
    with Run.open(backbone, Request(prompt="a", num_frames=9, **SIZE), [part]) as run:
        assert torch.equal(part.clean(run.schedule[0], x0), x0), "nothing is ahead of the first clip"
        run.state[part] = torch.zeros(1, 1, 1, 1, 1)
        assert part.clean(run.schedule[0], x0).flatten().tolist() == [0.5, 1.25, 2.625]


def test_every_event_is_a_clip_of_its_own(backbone):
    rollout = Rollout(backbone, Request(prompt=TWO, num_frames=18, **SIZE), [MTVG()])
    found = [(c.request.prompt, c.request.num_frames, c.overlap, c.shown) for (c,) in rollout.chunks]
    assert found == [("a red ball rolls", 9, 0, 9), ("the red ball bounces", 13, 1, 9)]
    assert torch.cat(list(rollout.frames()), dim=1).shape[1] == 18
    with pytest.raises(KinemaError, match="mtvg makes a clip an event; let the events follow each other"):
        Rollout(backbone, Request(prompt="0-0.5s: a | 1-2s: b", num_frames=17, **SIZE), [MTVG()])
