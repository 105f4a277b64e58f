"""Attention with a bias towards near frames, and texts between texts."""

from types import SimpleNamespace

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.positions import Positions
from kinema.core.run import Run
from kinema.core.technique import Step
from kinema.events.vstar import VSTAR, centres, synopsis
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=2, seed=1, fps=8)
THREE = "a red ball, then a blue cube, then a green ring"


def plain(same=None):
    """Attention of q and k as they are, or with logits that are all `same`."""

    def turned(q, k, positions):
        one = torch.full_like(q, (same / q.shape[-1] ** 0.5) ** 0.5)
        return one, torch.full_like(k, one.flatten()[0])

    def attend(q, k, v, positions, bias):
        logits = q @ k.mT / q.shape[-1] ** 0.5
        return (logits + (0 if bias is None else bias)).softmax(-1) @ v

    return Attention.of(turned if same else lambda q, k, p: (q, k), attend)


def step(shape, patch=(1, 1, 1), t=0.9):
    run = SimpleNamespace(conditions=SimpleNamespace(shape=shape), backbone=SimpleNamespace(patch=patch))
    return Step(0, 1, t, 0.0, run=run, branch="cond")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("deviation", [0.7, 2.0])
def test_over_frames_the_bias_is_the_row_maximum_times_a_gaussian(deviation):
    q, k = normal(4, 2, 5, 8), normal(4, 2, 5, 8, seed=1)
    eye = torch.eye(5, dtype=torch.float64).expand(4, 2, 5, 5)
    part = VSTAR(scale=1.5, deviation=deviation)
    found = part.attend(step((1, 4, 5, 2, 2)), Site(0, "temporal", 2, 8), q, k, eye, None, plain())
    logits = q @ k.mT / 8**0.5
    distance = torch.tensor([[abs(i - j) for j in range(5)] for i in range(5)], dtype=torch.float64)
    near = torch.exp(-(distance**2) / (2 * deviation**2))
    torch.testing.assert_close(found, (logits + 1.5 * near * logits.max(-1, keepdim=True).values).softmax(-1))


@pytest.mark.parametrize("kind, words", [("self", 0), ("joint", 3)])
def test_in_one_sequence_equal_logits_become_the_softmax_of_the_gaussian(kind, words):
    frames, cells, largest = 4, 6, 0.8  # every logit is 0.8, so that m is, too
    count = words + frames * cells
    q, eye = torch.zeros(2, 2, count, 8, dtype=torch.float64), torch.eye(count, dtype=torch.float64)
    places = torch.zeros(frames * cells, 3)
    found = VSTAR(scale=2.0, deviation=1.3).attend(
        step((1, 4, frames, 4, 6), (1, 2, 2)), Site(0, kind, 2, 8), q, q, eye.expand(2, 2, -1, -1),
        Positions(places, places, first=words), plain(largest),
    )  # fmt: skip
    frame = torch.arange(frames).repeat_interleave(cells).double()
    bias = torch.zeros(count, count, dtype=torch.float64)
    bias[words:, words:] = 2.0 * largest * (torch.exp(-((frame[:, None] - frame) ** 2) / (2 * 1.3**2)) - 1)
    torch.testing.assert_close(found, bias.softmax(-1).expand_as(found))


def test_rests_outside_its_range_and_on_coarse_levels():
    q, site = normal(4, 2, 5, 8), Site(0, "temporal", 2, 8)
    same = plain()(q, q, q, None)
    for part, at in [
        (VSTAR(), step((1, 4, 5, 2, 2), t=0.5)),
        (VSTAR(), step((1, 4, 5, 4, 3))),  # 2 x 2 places are one level down from 4 x 3
        (VSTAR(coarse_deviation=8.0), step((1, 4, 5, 7, 7))),  # and two from 7 x 7
    ]:
        assert torch.equal(part.attend(at, site, q, q, q, None, plain()), same)
    acted = VSTAR(coarse_deviation=8.0).attend(step((1, 4, 5, 4, 3)), site, q, q, q, None, plain())
    assert not torch.equal(acted, same)


def test_texts_stand_at_even_distances_with_lines_between():
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert synopsis(3, 5).tolist() == expected
    assert synopsis(1, 3).tolist() == [[1.0]] * 3
    assert synopsis(2, 4, torch.tensor([1.0, 2.0])).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert centres(torch.tensor([[True, True, True, False], [False, False, False, True]])).tolist() == [1.0, 3.0]


def test_every_frame_reads_its_mixture(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    request = Request(prompt=THREE, num_frames=17, **SIZE)  # 5 latent frames
    with Run.open(backbone, request, [part := VSTAR(scale=0.0)]) as run:
        table = part.context(run.schedule[0], backbone.sites[0], 5)
        assert table.shape == (5, 5) and table.sum(dim=0).tolist() == [1] * 5 == table.sum(dim=1).tolist()
        x = run.noise()
        v = run.velocity(run.schedule[0], x, "cond")
    with Run.open(backbone, request.changed(prompt="a red ball"), [VSTAR(scale=0.0)]) as run:
        alone = run.velocity(run.schedule[0], x, "cond")
    assert (v - alone).abs().max() > 1e-4


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(deviation=0.0), "use more than 0"),
        (dict(regularized_range=(0.2, 0.5)), "two noise levels from 1 down to 0"),
    ],
)
def test_refuses_values_out_of_range(tiny_wan, fields, says):
    with pytest.raises(KinemaError, match=says):
        denoise(load(tiny_wan, device="cpu"), Request(prompt="a ball", num_frames=5, **SIZE), [VSTAR(**fields)])
