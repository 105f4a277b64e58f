"""How text flows through attention, and that the word which shows least comes to show more."""

import math

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.core.technique import Technique
from kinema.events.talc import TALC
from kinema.guidance.cfg_zero_star import CFGZeroStar
from kinema.layers.flow import smoothed, soft_min_max
from kinema.layers.frames import FrameTokens
from kinema.quality.vico import Reading, Vico, on_grid, shares_of_words, through, words_in
from kinema.request import Request
from kinema.speed.linear_leap import LinearLeap

REQUEST = Request(
    prompt="a red ball rolls on the blue cube", height=32, width=32, num_frames=9, num_inference_steps=3, seed=1
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def test_the_soft_flow_tends_to_the_widest_path():
    a, b = normal(2, 5, 4).softmax(-1), normal(2, 4, 3, seed=1).softmax(1)
    widest = torch.minimum(a[..., None], b[:, None]).amax(dim=2)
    errors = [(soft_min_max(a, b, tau) - widest).abs().max() for tau in (0.1, 0.01, 1e-4)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3
    one = soft_min_max(torch.tensor([[[0.3]]]), torch.tensor([[[0.7]]]), 0.1)
    torch.testing.assert_close(one, torch.tensor([[[-0.1 * math.log(math.exp(-3) + math.exp(-7))]]]))


def test_smoothing_keeps_what_is_even_and_the_sum_inside():
    torch.testing.assert_close(smoothed(torch.full((1, 2, 3, 4), 0.7)), torch.full((1, 2, 3, 4), 0.7))
    point = torch.zeros(1, 5, 5, 5)
    point[0, 2, 2, 2] = 1
    side = math.exp(-2)
    found = smoothed(point)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0))
    torch.testing.assert_close(found[0, 2, 2, 2], torch.tensor((1 / (1 + 2 * side)) ** 3))
    torch.testing.assert_close(found[0, 2, 2, 3] / found[0, 2, 2, 2], torch.tensor(side))


def test_the_share_of_a_word_is_that_of_its_tokens_where_it_is_most():
    reading = Reading((0,), [[4, 5, 6]], [[[0], [1, 2]]], {})
    flow = torch.zeros(1, 1, 1, 1, 3)
    flow[..., 0] = 0.02  # exp(2), exp(0), exp(0)
    total = math.exp(2) + 2
    torch.testing.assert_close(shares_of_words(flow, reading), torch.tensor([[math.exp(2) / total, 2 / total]]))
    assert on_grid(normal(2, 3, 16, 24, 5)).shape == (2, 3, 8, 8, 5)
    assert words_in("A red ball's 2nd roll, a ball") == ["a", "red", "ball's", "2nd", "roll", "ball"]


@pytest.mark.parametrize("in_batch", [True, False])
def test_a_flow_goes_on_by_the_widest_path_of_attention(in_batch):
    """Over frames at each place, or among all tokens: max_r min(((A + 1) / 2)_ir, C_rk), A the mean of heads."""
    frames, rows, columns, words = 3, 2, 2, 5
    batch, count = (2 * rows * columns, frames) if in_batch else (2, frames * rows * columns)
    q, k = normal(batch, 2, count, 8), normal(batch, 2, count, 8, seed=1)
    frame = torch.arange(count) // (1 if in_batch else rows * columns)
    tokens = FrameTokens(frames, rows, columns, frame, frame, in_batch=in_batch)
    flow = normal(2, frames, rows, columns, words, seed=2).sigmoid()
    plain = Attention.of(lambda q, k, positions: (q, k), lambda *given: given[2])
    found = through(tokens, flow, q, k, None, plain, tau=1e-4)
    edges = ((q @ k.mT / 8**0.5).softmax(-1).mean(1) + torch.eye(count)) / 2
    if in_batch:
        edges = edges.reshape(2, rows, columns, frames, frames)
        widest = torch.minimum(edges[..., None], flow.permute(0, 2, 3, 1, 4)[:, :, :, None]).amax(dim=4)
        expected = widest.permute(0, 3, 1, 2, 4)
    else:
        expected = torch.minimum(edges[..., None], flow.flatten(1, 3)[:, None]).amax(dim=2).reshape(flow.shape)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_an_update_raises_the_word_that_shows_least(backbone):
    part = Vico(words=("ball", "blue cube"), lr=0.02, targets=(0.0,) * 3)
    with torch.no_grad(), Run.open(backbone, REQUEST, [part]) as run:
        step, x = run.schedule[0], run.noise()
        before = part._shown(step, x)
        moved = part.before_step(step, x)
        after = part._shown(step, moved)
        assert before.shape == (1, 2) and not moved.requires_grad
        assert after.amin() > before.amin() + 1e-4
        # A velocity that is asked for afterwards is the model's own.
        plain = run.velocity(step, x, "cond")
    with torch.no_grad(), Run.open(backbone, REQUEST, []) as run:
        torch.testing.assert_close(run.velocity(run.schedule[0], x, "cond"), plain)


def test_updates_follow_the_plan(backbone, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Vico, "_shown", lambda self, step, x: asked.append(step.index) or (x.sum() * 0 + 0.1).expand(1, 2)
    )
    denoise(backbone, REQUEST, [Vico(noise_range=(1.0, 0.0), levels=(1.0, 0.7), targets=(0.95, 0.5), iterations=4)])
    with Run.open(backbone, REQUEST, []) as run:
        second = next(step.index for step in run.schedule if step.t <= 0.7)
    # 1 - 0.1 is below 0.95 at once, and never below 0.5.
    assert asked.count(0) == 1 and asked.count(second) == 4 and len(asked) == 5 + 3 - 2


@pytest.mark.parametrize("other", [LinearLeap(at=0.3), CFGZeroStar(zero_steps=2)])
def test_asks_nothing_in_a_step_in_which_the_model_rests(backbone, other, monkeypatch):
    asked, shown = [], Vico._shown
    monkeypatch.setattr(Vico, "_shown", lambda self, step, x: asked.append(step.index) or shown(self, step, x))
    part = Vico(lr=0.02, noise_range=(1.0, 0.0), levels=(1.0,), targets=(0.0,), iterations=1)
    denoise(backbone, REQUEST, [part, other])
    assert asked == ([0, 1] if isinstance(other, LinearLeap) else [2])


def test_a_sample_that_shows_enough_stays_while_others_move(backbone, monkeypatch):
    """As in a run of its own, where it would not be asked again."""

    def shown(self, step, x):
        least = x.flatten(1)[:, 0] + torch.tensor([0.0, 0.5])  # rises with x, and the second is there at once
        return torch.stack([least, torch.ones(2)], dim=1)

    monkeypatch.setattr(Vico, "_shown", shown)
    part = Vico(lr=0.1, levels=(1.0,), targets=(0.35,), iterations=5)
    with Run.open(backbone, [REQUEST, REQUEST.changed(seed=2)], [part]) as run:
        x = torch.zeros(run.conditions.shape)
        x[:, 0, 0, 0, 0] = torch.tensor([0.0, 0.1])  # losses 1 and 0.4: above 0.35 for five updates, and for one
        moved = part.before_step(run.schedule[0], x)[:, 0, 0, 0, 0] - x[:, 0, 0, 0, 0]
    torch.testing.assert_close(moved, torch.tensor([0.5, 0.1]))


def test_moves_nothing_while_the_network_is_not_asked(backbone):
    class Answers(Technique):
        def velocity(self, step, x, branch, next):
            return torch.zeros_like(x)

    with torch.no_grad(), Run.open(backbone, REQUEST, [part := Vico(lr=0.02), Answers()]) as run:
        assert torch.equal(part.before_step(run.schedule[0], x := run.noise()), x)


@pytest.mark.parametrize(
    "fields, others, says",
    [
        (dict(words=("ball",)), (), "name two words of the prompt, or more"),
        (dict(words=("ball", "dog")), (), "does not say 'dog'"),
        (dict(tau=0.0), (), "tau above 0"),
        (dict(levels=(1.0,)), (), "1 levels and 3 targets"),
        (dict(), (TALC(),), "one prompt, and talc shows it something else"),
    ],
)
def test_refuses_what_it_cannot_weigh(backbone, fields, others, says):
    with pytest.raises(KinemaError, match=says):
        denoise(backbone, REQUEST, [Vico(**fields), *others])
