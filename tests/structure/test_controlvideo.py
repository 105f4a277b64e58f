"""ControlVideo: one noise, who sees whom, which frames are smoothed, and where the latents go then."""

import math

import numpy as np
import pytest
import torch

import adapters
import asked
from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.core.technique import Step
from kinema.layers.between import blended, followed, moved
from kinema.layers.frames import FrameTokens
from kinema.request import Request
from kinema.structure import controlvideo
from kinema.structure.controlvideo import ControlVideo, groups, interleaved, key_frames, mixed
from kinema.structure.gen1 import Gen1

ASKED = dict(prompt="a red ball rolls", seed=3, num_inference_steps=6, num_frames=9, height=32, width=32)


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return adapters.give(load(tiny_wan, device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def gen1():
    return Gen1(source=asked.clip())


def numbers(count):
    return np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3) * 10


def test_odd_frames_come_first_and_frames_at_the_ends_stand_for_the_neighbour_they_lack():
    frames = numbers(7)
    frames[3], frames[0] = 200, 40
    odd = interleaved(frames, 1, blended)[:, 0, 0, 0].tolist()
    assert odd == [40, 30, 20, 30, 40, 50, 60]
    even = interleaved(frames, 0, blended)[:, 0, 0, 0].tolist()
    assert even == [25, 10, 105, 200, 125, 50, 55]
    assert interleaved(numbers(4), 1, blended)[:, 0, 0, 0].tolist() == [0, 10, 20, 30]  # 3 lacks a neighbour
    assert interleaved(numbers(1), 0, blended)[:, 0, 0, 0].tolist() == [0]


def test_what_moves_is_halfway_along_its_way():
    pytest.importorskip("cv2")
    rows, columns = np.mgrid[:48, :64]

    def spot(x):
        return (
            (np.exp(-((columns - x) ** 2 + (rows - 24) ** 2) / 60)[..., None] * 200 + 20).repeat(3, 2).astype(np.uint8)
        )

    off = [np.abs(way(spot(26), spot(34)).astype(int) - spot(30)).mean() for way in (followed, blended)]
    assert off[0] < 0.5 * off[1]
    whole = moved(spot(26), torch.tensor([4.0, 0.0]).expand(48, 64, 2)).numpy()
    assert np.abs(whole[:, :-4] - spot(26)[:, 4:]).max() < 1e-2


def test_frames_share_so_much_of_their_noise_and_keep_its_variance():
    generator = torch.Generator().manual_seed(0)
    x, one = torch.randn(1, 4, 6, 32, 32, generator=generator), torch.randn(1, 4, 1, 32, 32, generator=generator)
    for share in (0.2, 0.7):
        found = mixed(x, one, share)
        assert found.var().item() == pytest.approx(1, abs=0.03)
        assert (found[:, :, 0] * found[:, :, 4]).mean().item() == pytest.approx(share, abs=0.05)
    assert torch.equal(mixed(x, one, 1.0), one.expand_as(x)) and torch.equal(mixed(x, one, 0.0), x)


def test_key_frames_see_each_other_and_frames_between_two_see_these():
    assert key_frames(16) == [0, 3, 6, 9, 12, 15] and key_frames(25) == [0, 4, 8, 12, 16, 20, 24]
    assert key_frames(7) == [0, 2, 4, 6] and key_frames(18) == [0, 3, 6, 9, 12, 15, 17]
    assert groups(16)[:3] == [([0, 3, 6, 9, 12, 15],) * 2, ([1, 2], [0, 3]), ([4, 5], [3, 6])]
    assert groups(7, own=True)[1:] == [([1], [0, 1, 2]), ([3], [2, 3, 4]), ([5], [4, 5, 6])]
    for frames in range(1, 40):
        assert sorted(i for asks, _ in groups(frames) for i in asks) == list(range(frames))
        assert sorted(i for asks, _ in groups(frames, True) for i in asks) == list(range(frames))


def plain(q, k, v, positions, bias=None):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


NEXT = Attention(lambda q, k, positions: (q, k), plain)


@pytest.mark.parametrize("hierarchical", [False, True])
def test_layers_of_single_frames_see_all_of_them_or_their_key_frames(hierarchical):
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2 * 16, 2, 5, 8, generator=generator)
    part = ControlVideo(hierarchical=hierarchical, own=False)
    found = part._across(q, k, v, 16, NEXT).unflatten(0, (2, 16))
    q, k, v = (u.unflatten(0, (2, 16)) for u in (q, k, v))
    for frame, seen in ((0, [0, 3, 6, 9, 12, 15]), (4, [3, 6]), (15, [0, 3, 6, 9, 12, 15])):
        seen = seen if hierarchical else list(range(16))
        keys, values = (u[:, seen].transpose(1, 2).flatten(2, 3) for u in (k, v))
        torch.testing.assert_close(found[:, frame], plain(q[:, frame], keys, values, None))


def test_tokens_between_key_frames_see_theirs_and_the_text():
    from kinema.core.positions import Positions

    frames = torch.arange(16).repeat_interleave(3)
    of = torch.cat([frames, torch.full((2,), -1)])  # joint attention: text behind the video
    places = torch.zeros(48, 3)
    views = ControlVideo(hierarchical=True, own=False)._views(FrameTokens(16, 1, 3, of, of), Positions(places, places))
    found = torch.zeros(50, 50, dtype=torch.bool)
    every = torch.arange(50)
    for view in views:
        found[every[view.q][:, None], every[view.k]] = True
    keys = torch.tensor(key_frames(16))
    assert found[48:].all() and found[:, 48:].all()
    for token in range(48):
        frame = int(frames[token])
        around = keys if frame in keys else torch.tensor([frame // 3 * 3, frame // 3 * 3 + 3])
        assert torch.equal(found[token, :48], torch.isin(frames, around))


def test_latents_go_to_the_smoothed_estimate_under_the_noise_that_was_seen(backbone, gen1, monkeypatch):
    part = ControlVideo(smooth=(0.6, 0.5), shared=0.0)
    generator = torch.Generator().manual_seed(1)
    with Run.open(backbone, Request(**ASKED), [part, gen1]) as run:
        assert sorted(run.state[part].steps.values()) == [0, 1]
        number = min(run.state[part].steps)
        assert run.state[part].steps[number] == 1
        x0, noise = torch.randn(2, *run.conditions.shape, generator=generator)
        t = run.schedule[number].t
        step = Step(number, run.steps, t, 0.4, run=run, x=(1 - t) * x0 + t * noise)
        monkeypatch.setattr(controlvideo, "smoothed", lambda run, x0, odd, way: x0 + 1)
        assert part.clean(step, x0) is x0
        torch.testing.assert_close(part.after_step(step, x0), 0.6 * (x0 + 1) + 0.4 * noise)
        assert part.after_step(step, x0) is x0


def test_a_solver_of_several_steps_begins_anew_where_the_latents_were_put(backbone, gen1):
    with Run.open(backbone, Request(**ASKED), [gen1]) as run:
        x, seen = torch.randn(run.conditions.shape), []
        for step in run.schedule[:4]:
            v = torch.randn_like(x)
            if step.index == 2:
                x = x + 1
                run.solver.restart()
            seen.append(run.solver.advance(x, v, step) - (x + (step.t_next - step.t) * v))
            x = seen[-1] + x + (step.t_next - step.t) * v
    assert seen[2].abs().max() < 1e-4 < seen[1].abs().max()  # one step of Euler


def test_frames_that_are_not_smoothed_lose_nothing(backbone, gen1, monkeypatch):
    with Run.open(backbone, Request(**ASKED), [gen1]) as run:
        x0 = torch.randn(run.conditions.shape, generator=torch.Generator().manual_seed(0))
        assert not torch.equal(controlvideo.smoothed(run, x0, 1, blended), x0)
        monkeypatch.setattr(controlvideo, "interleaved", lambda frames, odd, way: frames)
        assert torch.equal(controlvideo.smoothed(run, x0, 1, blended), x0)


def test_every_part_acts_and_the_same_request_gives_the_same_video(backbone, gen1):
    request = Request(**{**ASKED, "num_frames": 13})
    without = sample(backbone, request, [gen1])
    off = dict(shared=0.0, smooth=(), across=False)
    apart = sample(backbone, request, [ControlVideo(**off), gen1]).int() - without
    assert apart.abs().max() <= 2  # attention in another order of sums
    for on in (dict(shared=0.5), dict(smooth=(0.5,), interpolation="blend"), dict(hierarchical=True, own=False)):
        part = ControlVideo(**{**off, **on})
        assert (sample(backbone, request, [part, gen1]).int() - without).abs().float().mean() > 0.2


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(shared=1.5), "shared of controlvideo is 1.5; use 0 to 1"),
        (dict(smooth=(0.4, 0.5)), "noise levels below 1, the highest first"),
        (dict(interpolation="rife"), "use flow or blend"),
        (dict(smooth=tuple(0.9 - i / 10 for i in range(7))), "6 steps are too few"),
    ],
)
def test_bad_values_are_refused(options, says, backbone, gen1):
    with pytest.raises(KinemaError, match=says):
        sample(backbone, Request(**ASKED), [ControlVideo(**options), gen1])


def test_it_stands_over_a_structure(backbone):
    with pytest.raises(KinemaError, match="makes a structure steadier, and none is kept; add gen1"):
        sample(backbone, Request(**ASKED), [ControlVideo()])
    assert all(ControlVideo().wants(Site(0, kind, 2, 8)) for kind in ("self", "joint", "spatial"))


def test_a_unet_sees_across_its_frames(tmp_path):
    from backbones.families import cases

    case = cases()["animatediff"]
    unet = adapters.give(load(case.build(tmp_path), device="cpu", dtype="float32"))
    request = Request(**{**dict(prompt="a red ball", seed=3, num_inference_steps=2, num_frames=4), **case.request})
    part, gen1 = ControlVideo(shared=0.0, smooth=()), Gen1(source=asked.clip())
    without = sample(unet, request, [ControlVideo(shared=0.0, smooth=(), across=False), gen1])
    assert not torch.equal(sample(unet, request, [part, gen1]), without)


def test_all_passes_of_a_long_clip_share_one_noise(backbone):
    part, gen1, seen = ControlVideo(shared=0.3, smooth=()), Gen1(source=asked.clip(), frames=5), {}
    request = Request(**{**ASKED, "num_frames": 13, "num_inference_steps": 1})

    def noted(step, x):
        seen[step.run.chunk.index] = step.run.state[part].one

    list(Rollout(backbone, request, [part, gen1], noted).frames())
    assert len(seen) == 3 and all(torch.equal(one, seen[0]) for one in seen.values())
