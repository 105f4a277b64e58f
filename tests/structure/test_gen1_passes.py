"""Edits of clips of any length: passes of the loop along a source, its cuts, and what is carried over."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import adapters
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.layers import source as sources
from kinema.request import Request
from kinema.structure import source as passes
from kinema.structure.gen1 import Gen1
from kinema.video import Video, clip_address

ASKED = dict(prompt="a red ball rolls", seed=3, num_inference_steps=2)


def pictured(count, seed=0, height=32, width=32):
    """Large soft shapes that move to the right."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(60, 200, (height // 8, (width + count) // 8, 3), np.uint8))
    wide = np.asarray(rough.resize((width + count, height), Image.Resampling.BICUBIC))
    return np.stack([wide[:, count - i : count - i + width] for i in range(count)])


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """A model as mini is, which has learned to be given its first frames, with an adapter."""
    found = shutil.copytree(tiny_folder("kinema_mini"), tmp_path_factory.mktemp("given") / "model")
    card = {"given": {"first": 1, "first_k": 1}, "defaults": {"num_frames": 9, "height": 32, "width": 32, "fps": 4}}
    (found / "card.json").write_text(json.dumps(card))
    adapters.give(load(found, device="cpu", dtype="float32"))
    return found


@pytest.fixture(scope="module")
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """23 frames of which the first 14 are one shot, 112x48 with a second of sound."""
    frames = np.concatenate([pictured(14, 0, 48, 112) // 2, 255 - pictured(9, 1, 48, 112) // 4])
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    tone = 0.5 * np.sin(np.arange(16000) / 8).astype(np.float32)
    Video(frames, fps=12.5, sound=tone, sample_rate=16000).save(path)
    return str(path)


def planned(backbone, gen1, **asked):
    return [chunks[0] for chunks in Rollout(backbone, Request(**ASKED, **asked), [gen1]).chunks]


def test_passes_go_on_within_a_shot_and_begin_anew_at_a_cut(backbone, clip):
    chunks = planned(backbone, Gen1(source=clip))
    lengths = [(c.request.num_frames, c.overlap, c.given, c.shown) for c in chunks]
    assert lengths == [(9, 0, False, 9), (13, 5, True, 5), (9, 0, False, 9)] or lengths == [
        (9, 0, False, 9), (9, 5, True, 4), (9, 5, True, 1), (9, 0, False, 9)
    ]  # fmt: skip
    assert sum(c.shown for c in chunks) == 23
    assert [c.request.seed == 3 for c in chunks] == [not c.given for c in chunks]
    one = planned(backbone, Gen1(source=clip, frames=25, cuts=False))
    assert [(c.request.num_frames, c.shown) for c in one] == [(25, 23)]
    assert [c.shown for c in planned(backbone, Gen1(source=clip), num_frames=6)] == [6]
    assert sum(c.shown for c in planned(backbone, Gen1(source=clip), num_frames=31)) == 31


def test_a_model_that_takes_no_frames_makes_them_once_more(backbone, clip, monkeypatch):
    monkeypatch.setattr(type(backbone), "continues", lambda self, frames: False)
    chunks = planned(backbone, Gen1(source=clip))
    assert [c.given for c in chunks] == [False] * 4 and [c.overlap for c in chunks] == [0, 5, 5, 0]
    assert {c.request.seed for c in chunks} == {3}


def test_events_are_asked_for_in_their_frames(backbone, clip):
    asked = Request(**{**ASKED, "prompt": "", "timeline": "0-14f: a red ball rolls | 14-23f: a blue cube jumps"})
    prompts = [c[0].request.prompt for c in Rollout(backbone, asked, [Gen1(source=clip)]).chunks]
    assert prompts == ["a red ball rolls"] * 3 + ["a blue cube jumps"]


def test_the_structure_of_a_pass_is_that_of_its_own_frames(backbone, clip):
    gen1 = Gen1(source=clip, fidelity=1.0)
    rollout = Rollout(backbone, Request(**ASKED), [gen1])
    for i, first in enumerate((0, 4, 8, 14)):
        chunk = rollout.chunks[i][0]
        with Run.open(backbone, chunk.request, [gen1], chunk=chunk) as run:
            found = run.state[gen1].given["structure"]
        frames = Video.load(clip).frames[[min(first + j, 13 if first < 14 else 22) for j in range(9)]]
        whole = Video.load(clip).frames[:14] if first < 14 else Video.load(clip).frames[14:]
        scale = passes.scale_of([whole], "depth")
        maps = passes.structure(frames, "depth", scale=scale)
        video = passes.sized(passes.structure_video([maps]), (32, 32))
        torch.testing.assert_close(found, backbone.encode(video), rtol=1e-3, atol=1e-3)


def test_nothing_is_seen_again_and_again(backbone, clip, monkeypatch):
    seen, read = [], []
    plain, before = passes.structure, sources.pictures

    def counted(frames, *args, **named):
        seen.append(len(frames))
        return plain(frames, *args, **named)

    def decoded(path):
        for picture in before(path):
            read.append(path)
            yield picture

    monkeypatch.setattr(passes, "structure", counted)
    monkeypatch.setattr(sources, "pictures", decoded)
    sources._surveyed.cache_clear()
    rollout = Rollout(backbone, Request(**ASKED), [Gen1(source=clip)])
    assert seen == [1] and len(read) == 23 + 1  # rehearsed: the first frame
    list(rollout.frames())
    assert seen[1:] == [9, 9, 9, 9]
    assert len(read) == 3 * 23  # once to survey it, once for its depth's scale, once for the passes


def test_frames_leave_at_the_size_of_the_source_with_its_sound(folder, clip):
    import kinema

    told = []
    made = kinema.edit(
        clip, "a red ball", seed=3, num_inference_steps=1, model=folder, progress=lambda *phase: told.append(phase)
    )
    source = Video.load(clip)
    assert (made.frames.shape, made.fps) == (source.frames.shape, source.fps)
    assert made.sample_rate == source.sample_rate and len(made.sound) == round(23 / 12.5 * source.sample_rate)
    heard = min(len(source.sound), len(made.sound))
    assert np.array_equal(made.sound[:heard], source.sound[:heard])
    asked = made.metadata["kinema"]["request"]
    assert (asked["height"], asked["width"], asked["num_frames"], asked["fps"]) == (32, 64, 23, 12.5)
    assert "source of gen1" in made.metadata["kinema"]["inputs"]
    assert [phase[1:] for phase in told if phase[0] == "chunk"] == [(i, 4) for i in range(1, 5)]
    again, differing = kinema.replay(made.save(folder.parent / "made.mp4"))
    assert differing == [] and np.array_equal(again.frames, made.frames)


def test_one_pass_that_holds_the_clip_is_the_plain_run(backbone):
    source = clip_address(pictured(9))
    asked = Request(**ASKED, num_frames=9)
    assert torch.equal(sample(backbone, asked, [Gen1(source=source, weight=0.0)]), sample(backbone, asked))
    assert not torch.equal(sample(backbone, asked, [Gen1(source=source)]), sample(backbone, asked))


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(overlap=3), "overlap is 3 in passes of 9 frames; use less than these, 0, or 1 and a multiple of 4"),
        (dict(overlap=9), "overlap is 9 in passes of 9"),
        (dict(source=""), "source of gen1 is empty"),
        (dict(structure="light"), "structure of gen1 is 'light'"),
        (dict(depth="eyes"), "'eyes' sees no depth"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_first_pass(options, says, backbone, clip):
    with pytest.raises(KinemaError, match=says):
        Rollout(backbone, Request(**ASKED), [Gen1(**{"source": clip, **options})])
