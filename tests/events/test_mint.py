"""MinT: where frames and texts stand in time, and what the attention makes of it."""

import dataclasses
import math
import shutil

import pytest
import torch

import adapters
from kinema.backbones.load import load
from kinema.core.adapter import ModelFace
from kinema.core.errors import KinemaError
from kinema.core.features import Inside, Place
from kinema.core.loop import denoise
from kinema.core.windows import Window
from kinema.events.mint import EventAttention, MinT, MinTNetwork, progress, rotary, told
from kinema.request import Request
from kinema.timeline.events import middles
from kinema.training.signals import SIGNALS
from kinema.world.sample import sample_spec

SIZE = dict(num_frames=13, height=32, width=32, num_inference_steps=2, seed=1, fps=8)  # 4 latent frames
TWO = "0-0.4s: a red ball rolls | 0.4-1.6s: a red ball jumps"
FACE = ModelFace(channels=4, patch=(1, 2, 2), frames_per_latent=4, widths={0: 8, 1: 8}, text=6)


@pytest.fixture(scope="module")
def backbone(tiny_wan, tmp_path_factory):
    folder = shutil.copytree(tiny_wan, tmp_path_factory.mktemp("model") / "tiny")
    return adapters.give(load(folder, device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = MinTNetwork(FACE, [0, 1], width=16, heads=2)
    for attention in made.attentions.values():
        torch.nn.init.normal_(attention.leave.weight)
    return made


def given(*samples, frames=13):
    """What a network is told of samples, each a list of (text, start, end)."""

    class Reader:
        def encode_texts(self, texts):
            return {"text": torch.stack([embedded(text) for text in texts])}

    texts = [[text for text, *_ in sample] for sample in samples]
    spans = [[(start, end) for _, start, end in sample] for sample in samples]
    return told(Reader(), texts, spans, middles(frames, 8, 4))


def embedded(text, length=5):
    """As many tokens as letters, none of them zero, and zeros behind them."""
    rows = [[math.sin(ord(letter) * (i + 1)) for i in range(6)] for letter in text]
    return torch.tensor(rows + [[0.0] * 6] * (length - len(text)))


def made(backbone, request, *parts):
    return denoise(backbone, request, parts)[0]


def added(network, told, x=None, window=None, dropped=(frozenset(),)):
    frames = told["progress"].shape[1] if window is None else window.stop - window.first
    x = torch.zeros(len(told["texts"]) * len(dropped), 4, frames, 4, 4) if x is None else x
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(1, 1, 8, generator=generator).expand(len(x), frames * 4, 8)
    seen = network.begin(Inside(x, 0.5, dropped, window), told)
    return network.residual(seen, Place(1, 8, (frames, 2, 2)), h)


def test_frames_are_nearest_to_their_own_events_text():
    spans = torch.tensor([[0.0, 2.0], [2.0, 12.0], [12.0, 14.0]], dtype=torch.float64)
    times = torch.tensor([0.0, 1.0, 2.0, 2.1, 7.0, 11.0, 12.0, 13.0, 14.0], dtype=torch.float64)
    places = 8 * progress(spans, times)
    torch.testing.assert_close(places, torch.tensor([0, 4, 8, 8.08, 12, 15.2, 16, 20, 24], dtype=torch.float64))
    texts = 8 * (torch.arange(3) + 0.5)
    away = (places[:, None] - texts).abs()
    assert away.argmin(dim=1)[[1, 3, 4, 5, 7]].tolist() == [0, 1, 1, 1, 2]
    assert away[2, 0] == away[2, 1] == 4 and away[6, 1] == away[6, 2] == 4
    plain = (times[:, None] - spans.mean(dim=1)).abs().argmin(dim=1)
    assert plain[[3, 5]].tolist() == [0, 2]  # without scaled times these are nearest to the wrong one


def test_it_stands_still_between_events_and_around_them():
    spans = torch.tensor([[1.0, 2.0], [4.0, 6.0]])
    times = torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0, 3.9, 4.0, 5.0, 6.0, 9.0])
    assert progress(spans, times).tolist() == [0, 0, 0.5, 1, 1, 1, 1, 1.5, 2, 2]


def test_texts_weigh_alike_at_a_border_and_less_the_farther_away():
    attention = EventAttention(8, 6, 88, 4)
    for layer in (attention.q, attention.k):  # nothing but their places tells tokens apart
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(attention.v.bias)
    attention.leave = torch.nn.Identity()
    texts = torch.eye(3, 6)[None]  # a token an event
    own = 8 * torch.tensor([[0.5, 0.99, 1.0, 1.01, 1.5]])
    theirs = 8 * torch.tensor([[0.5, 1.5, 2.5]])
    out = attention(torch.randn(1, 5, 8), texts, torch.ones(1, 1, 1, 3, dtype=torch.bool), own, theirs)
    weights = torch.linalg.lstsq(attention.v.weight[:, :3], out[0].T).solution.T  # (5, 3)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(weights[2, 0], weights[2, 1])
    assert weights[:, 0].diff().max() < 0 and weights[1, 0] > weights[1, 1] and weights[3, 1] > weights[3, 0]
    assert weights[0].diff().max() < 0 and weights[4].argmax() == 1


def test_places_turn_queries_and_keys_by_their_distance():
    table = rotary(torch.tensor([[2.5, 6.5, 10.5]]), 8)
    turns = torch.complex(table[0, ..., 0::2], table[1, ..., 0::2])[0, 0]
    torch.testing.assert_close(turns[1] / turns[0], turns[2] / turns[1])
    torch.testing.assert_close(turns[0].angle()[0], torch.tensor(2.5))


def test_padding_says_nothing(network):
    two = [("abc", 0.0, 0.5), ("dc", 0.5, 1.6)]
    alone = added(network, given(two))
    beside = given(two, [("e", 0, 0.2), ("fabc", 0.2, 1), ("b", 1, 1.6)])
    torch.testing.assert_close(added(network, beside)[:1], alone)
    assert beside["real"][0].sum() == 5 and beside["real"].shape == (2, 12)
    beside["texts"][~beside["real"]] = 1e3
    torch.testing.assert_close(added(network, beside)[:1], alone)


def test_windows_see_their_part_of_the_times(network):
    events = given([("abc", 0.0, 0.5), ("dc", 0.5, 1.6)], frames=25)
    whole = added(network, events).unflatten(1, (7, 4))
    part = added(network, events, window=Window(2, 5)).unflatten(1, (3, 4))
    torch.testing.assert_close(part, whole[:, 2:5])
    assert not torch.allclose(part, whole[:, :3])


def test_when_and_what_make_a_difference(network):
    one = added(network, given([("abc", 0.0, 0.5), ("dc", 0.5, 1.6)]))
    later = added(network, given([("abc", 0.0, 1.1), ("dc", 1.1, 1.6)]))
    other = added(network, given([("abc", 0.0, 0.5), ("dd", 0.5, 1.6)]))
    assert (one - later).abs().max() > 1e-3 and (one - other).abs().max() > 1e-3
    single = added(network, given([("abc", 0.2, 1.6)])).unflatten(1, (4, 4))
    assert (single[:, 1] - single[:, 2]).abs().max() > 1e-3  # of one event, too, it tells how far it has come


def test_it_begins_as_the_model_is(backbone, tmp_path):
    folder = shutil.copytree(backbone.folder.path, tmp_path / "fresh")
    shutil.rmtree(folder / "adapters")
    fresh = adapters.give(load(folder, device="cpu", dtype="float32"), fresh=True)
    plain = made(fresh, Request(prompt="a red ball rolls, then a red ball jumps", **SIZE))
    request = Request(prompt=TWO, **SIZE)
    assert torch.equal(made(fresh, request, MinT()), plain)
    assert torch.equal(made(backbone, request, MinT(weight=0.0)), plain)
    assert not torch.equal(made(backbone, request, MinT()), plain)


def test_each_request_of_a_batch_has_its_own_events(backbone):
    requests = [Request(prompt=TWO, **SIZE), Request(prompt="0.2-1.6s: a blue cube falls", **{**SIZE, "seed": 2})]
    both = made(backbone, requests, MinT())
    for i, request in enumerate(requests):
        torch.testing.assert_close(both[i : i + 1], made(backbone, request, MinT()), atol=1e-4, rtol=1e-4)


def test_refuses_two_things_at_once_and_models_without_words(backbone):
    request = Request(prompt="a red ball rolls, meanwhile a blue cube falls", **SIZE)
    with pytest.raises(KinemaError, match="'a blue cube falls' happens while 'a red ball rolls' does, and mint shows"):
        made(backbone, request, MinT())
    with pytest.raises(ValueError, match="the model reads no words"):
        MinTNetwork(dataclasses.replace(FACE, text=0), [0])


def test_events_of_the_world_are_told_with_their_exact_times():
    scenes = [sample_spec(seed, "events") for seed in range(40)]
    drawn = SIGNALS["events"].drawn({}, scenes, torch.Generator().manual_seed(0))
    assert drawn["spans"] == [[(e.start, e.end) for e in scene.events] for scene in scenes]
    assert all(
        scene.objects[0].colour in text for scene, said in zip(scenes, drawn["texts"], strict=True) for text in said
    )
    assert {len(said) for said in drawn["texts"]} == {1, 2, 3, 4}
    lengths = [[end - start for start, end in spans] for spans in drawn["spans"]]
    assert max(max(each) / min(each) for each in lengths) > 3.5  # not equal shares


def test_captions_of_own_clips_are_timelines():
    signal = SIGNALS["events"]
    caption = "0-1.5s: a red ball bounces | 1.5-4s: it rolls | 4-6s: it jumps"
    first, second = (signal.said(caption, start, start + 3) for start in (0, 3))
    assert first == "0-1.5s: a red ball bounces | 1.5-3s: the red ball rolls"
    assert second == "0-1s: the red ball rolls | 1-3s: the red ball jumps"
    assert signal.read(first) == "a red ball bounces, then the red ball rolls"
    drawn = signal.drawn({}, [second], torch.Generator())
    assert drawn == {"texts": [["the red ball rolls", "the red ball jumps"]], "spans": [[(0.0, 1.0), (1.0, 3.0)]]}
    with pytest.raises(KinemaError, match="says no times in seconds"):
        signal.said("a red ball bounces", 0, 3)
    with pytest.raises(KinemaError, match="nothing happens from 6 to 9 s"):
        signal.said(caption, 6, 9)
