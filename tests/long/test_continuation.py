"""Going on from the last frames: every chunk is the call one would make by hand."""

import json
import re
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinema.backbones.continuing import at_rate
from kinema.backbones.load import load
from kinema.core.chunks import seed_of
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.rollout import Rollout
from kinema.layers.chunk_prompts import happening
from kinema.long.continuation import Continuation
from kinema.request import Request
from kinema.video import Video, clip_address

SIZE = dict(num_inference_steps=2, height=32, width=32)
FIRST = "0-1.625s: a red ball rolls | 1.625-2.25s: a blue cube jumps"  # of 13 frames at 4 a second, the first 9
ASKED = dict(SIZE, prompt="a red ball rolls, then a blue cube jumps", seed=3)


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """A model as mini is, which has learned to be given its first frames."""
    import shutil

    found = shutil.copytree(tiny_folder("kinema_mini"), tmp_path_factory.mktemp("given") / "model")
    card = {"given": {"first": 1, "first_k": 1}, "defaults": {"num_frames": 9, "height": 32, "width": 32, "fps": 4}}
    (found / "card.json").write_text(json.dumps(card))
    return found


@pytest.fixture(scope="module")
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


def test_two_chunks_are_two_calls_made_by_hand(backbone):
    long = sample(backbone, Request(**ASKED, num_frames=13), [Continuation()])
    first = sample(backbone, Request(**{**ASKED, "prompt": "", "num_frames": 9, "timeline": FIRST}))
    given = dict(video=clip_address(first[0, 4:].numpy()), keep="0:5", num_frames=9, seed=seed_of(3, 1))
    second = sample(backbone, Request(**{**ASKED, "prompt": "a blue cube jumps", **given}))
    assert torch.equal(long, torch.cat([first, second[:, 5:]], dim=1))


def test_one_chunk_is_the_plain_video(backbone):
    asked = Request(**ASKED, num_frames=9)
    assert torch.equal(sample(backbone, asked, [Continuation()]), sample(backbone, asked))


def test_a_batch_is_continued_sample_by_sample(backbone):
    requests = [Request(**{**ASKED, "seed": seed}, num_frames=13) for seed in (3, 4)]
    together = sample(backbone, requests, [Continuation()])
    assert together.shape == (2, 13, 32, 32, 3)
    apart = sample(backbone, requests[1], [Continuation()])[0]
    assert (together[1].int() - apart.int()).abs().max() <= 2 and not torch.equal(together[0], together[1])


def test_a_clip_is_what_the_video_begins_with(backbone, tmp_path):
    rng = np.random.default_rng(0)
    clip = Video(rng.integers(0, 256, (12, 32, 32, 3), np.uint8), fps=8.0).save(tmp_path / "clip")
    asked = Request(**{**ASKED, "prompt": "a red ball rolls"}, video=str(clip))
    long = sample(backbone, asked, [Continuation(seconds=2.5)])
    frames = Video.load(clip).frames[::2]
    assert long.shape[1] == 6 + 10 and np.array_equal(long[0, :6], frames)
    by_hand = asked.changed(video=clip_address(frames[1:]), keep="0:5", num_frames=9)
    assert torch.equal(long[:, 6:10], sample(backbone, by_hand)[:, 5:])


@pytest.mark.parametrize(
    "options, asked, says",
    [
        (dict(overlap=4), {}, "overlap of continuation is 4; use whole latent frames: 1 or 5"),
        (dict(overlap=9), {}, "frames of continuation is 9, and each pass is given 9 of them; use more"),
        (dict(frames=8), {}, "num_frames is 8; this model makes a multiple of 4 plus 1"),
        (dict(seconds=2.0), {}, "seconds of continuation is 2; use more than 0, with a clip"),
        (dict(seconds=1e9), dict(video="CLIP"), "use at most 25000, which is 100000 frames"),
        ({}, dict(last_image="last.png", image="first.png"), "leave last_image out"),
        ({}, dict(video="CLIP", keep="-4:"), "keep is '-4:', and continuation goes on from first frames"),
        ({}, dict(video="CLIP", num_frames=6), "num_frames is 6, and the clip to go on from has 6; use more"),
        (dict(overlap=9, frames=13), dict(video="CLIP"), "the clip has 6 frames, and overlap of continuation is 9"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(backbone, options, asked, says):
    clip = clip_address(np.zeros((6, 32, 32, 3), np.uint8))
    asked = {k: clip if v == "CLIP" else v for k, v in asked.items()}
    steps = []
    with pytest.raises(KinemaError, match=says):
        request = Request(**{**ASKED, "num_frames": 13, **asked})
        sample(backbone, request, [Continuation(**options)], lambda *told: steps.append(told))
    assert not steps


def test_a_model_that_takes_no_frames_is_refused(tiny_folder):
    backbone = load(tiny_folder("wan21_t2v"), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="takes no frames that stay, so it cannot go on from some"):
        Rollout(backbone, Request(**ASKED, num_frames=13), [Continuation(frames=9)])


@pytest.mark.parametrize(
    "prompt, made, added, says",
    [
        ("a", (0, 8), (0, 8), {}),
        ("a, then b", (0, 8), (0, 8), {"prompt": "a", "timeline": None}),
        ("a, then b", (6, 14), (8, 14), {"prompt": "b", "timeline": None}),
        ("0-1s: a | 2-4s: b", (4, 8), (5, 8), {"prompt": "a", "timeline": None}),
        ("0-1.5s: a | 1.5-4s: b", (2, 12), (4, 12), {"prompt": "", "timeline": "0-1s: a | 1-2.5s: b"}),
        ("0-1s: a | 1-4s: b", (2, 12), (4, 12), {"prompt": "b", "timeline": None}),
        (
            "0-4s: a | 1-2s: meanwhile b",
            (2, 12),
            (4, 12),
            {"prompt": "", "timeline": "0-2.5s: a | 0.5-1.5s: meanwhile b"},
        ),
    ],
)
def test_a_chunk_asks_for_what_happens_in_it(prompt, made, added, says):
    asks = happening(Request(prompt=prompt), frames=16, fps=4.0, frames_per_latent=1)
    assert asks(range(*made), range(*added)) == says


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_every_latent_frame_of_a_long_video_reads_the_event_of_its_time(count):
    model = SimpleNamespace(frames_per_latent=4, defaults=SimpleNamespace(num_frames=25, fps=8.0))
    texts = [f"thing {i} jumps" for i in range(count)]
    for frames in range(29, 202, 4):
        request = Request(prompt=", then ".join(texts), num_frames=frames, seed=1)
        wanted = request.events.frames(frames, 8.0, 4).int().argmax(dim=0).tolist()
        found = []
        for chunk in Continuation().chunks(model, request):
            events = chunk.request.events
            table = events.frames(25, 8.0, 4)  # refuses an event without a latent frame
            read = [events.events[row].text for row in table.int().argmax(dim=0).tolist()]
            found += read[(chunk.overlap + 3) // 4 :][: -(-chunk.shown // 4)]
            assert table.any(dim=0).all() and {e.text for e in events} <= {*read}
        assert [texts.index(text) for text in found] == wanted, frames


@given(st.integers(0, 30), st.integers(1, 30), st.integers(2, 60), st.integers(0, 10**6))
def test_parts_ask_for_every_event_or_refuse_it_in_the_times_of_the_video(there, few, frames, seed):
    cuts = sorted({0, frames, *np.random.default_rng(seed).integers(1, frames, min(few, frames - 1)).tolist()})
    timeline = " | ".join(f"[{a}:{b}] {a}" for a, b in pairwise(cuts))
    asks = happening(Request(timeline=timeline), there + frames, 8.0, 4, there)
    found = set()
    last = there + frames
    first = [] if there else [range(min(25, last))]
    for added in [*first, *(range(i, min(i + 20, last)) for i in range(there or 25, last, 20))]:
        made = range(added.start - 5 * bool(added.start), added.start - 5 * bool(added.start) + 25)
        try:
            asked = asks(made, added)
        except KinemaError as error:
            name, begin = re.match(r"the event '(\d+)' lasts from ([\d.]+) to [\d.]+ s, too short", str(error)).groups()
            assert int(name) == pytest.approx(float(begin) * 8)
            assert max(b - a for a, b in pairwise(cuts) if a == int(name)) < 4
            return
        part = Request(**asked).events
        if part.timed:
            part.frames(25, 8.0, 4)
        found |= {event.text for event in part}
    assert found == {str(a) for a in cuts[:-1]}


def test_frames_of_another_rate_are_the_nearest_in_time():
    assert at_rate(6, 8.0, 8.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert at_rate(12, 24.0, 8.0).tolist() == [0, 3, 6, 9]
    assert at_rate(3, 4.0, 8.0).tolist() == [0, 1, 1, 2, 2, 2]
