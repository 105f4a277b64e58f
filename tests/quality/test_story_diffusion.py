"""Later shots read tokens of the first ones."""

from dataclasses import replace

import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.long.freenoise import FreeNoise
from kinema.quality.story_diffusion import StoryDiffusion
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=3, seed=1, fps=8)
THREE = "a red ball rolls, then a red ball bounces, then a red ball falls"


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def shots(backbone, part, prompt=THREE, **size):
    """Latents of each shot."""
    made = []
    rollout = Rollout(backbone, Request(prompt=prompt, **{**SIZE, **size}), [part], lambda step, x: made.append(x))
    assert sum(f.shape[1] for f in rollout.frames()) == size["num_frames"]
    steps = SIZE["num_inference_steps"]
    return [made[i] for i in range(steps - 1, len(made), steps)], rollout


def test_every_event_is_a_shot_and_only_later_ones_read(backbone):
    alone, _ = shots(backbone, StoryDiffusion(rate=0.0), num_frames=27)
    told, rollout = shots(backbone, StoryDiffusion(early=1.0, late=1.0), num_frames=27)
    assert [(c.request.prompt, c.shown, c.overlap) for (c,) in rollout.chunks] == [
        (f"a red ball {what}", 9, 0) for what in ("rolls", "bounces", "falls")
    ]
    torch.testing.assert_close(told[0], alone[0], rtol=0, atol=0)
    assert all((a - b).abs().max() > 1e-5 for a, b in zip(told[1:], alone[1:], strict=True))
    never, _ = shots(backbone, StoryDiffusion(early=0.0, late=0.0), num_frames=27)
    assert all(torch.equal(a, b) for a, b in zip(never, alone, strict=True))


def test_a_share_of_one_frame_is_lent_with_its_places(backbone):
    """Of 3 frames of 4 tokens the second; with all of them lent, attention is that of the longer sequence."""
    part, request = (
        StoryDiffusion(rate=1.0, early=1.0, late=1.0, distance=5.0),
        Request(prompt="a", num_frames=9, **SIZE),
    )
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 12, 6, generator=generator)
    places = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(2))
    positions, site = Positions(places, places, text=12), Site(1, "self", 2, 6)
    with Run.open(backbone, request, [part]) as run:
        run.chunk = replace(run.chunk, count=2)
        step = replace(run.schedule[1], branch="cond", t=0.5)
        part.attend(step, site, q, k, v, positions, lambda *given: given[0])
        handed = part.carry(run, q)
        (tokens, where, read) = handed.values()
        assert read.shape == (1, 4) and read.all()
        assert torch.equal(tokens, torch.stack([k, v])[:, :, :, 4:8]) and torch.equal(where, places[4:8])
    with Run.open(backbone, request, [part], carried=[handed]) as run:
        run.chunk = replace(run.chunk, index=1, count=2)
        step = replace(run.schedule[1], branch="cond", t=0.5)
        _, longer, values, placed, bias = part.attend(step, site, q, k, v, positions, lambda *given: given)
    assert torch.equal(longer, torch.cat([k, k[:, :, 4:8]], dim=2)) and torch.equal(values[:, :, 12:], v[:, :, 4:8])
    assert bias is None
    assert placed.k[12:].tolist() == [[-5, r, c] for r in (0, 1) for c in (0, 1)] and placed.extra == 4


@pytest.mark.parametrize("t, probability", [(0.7, 0.25), (0.69, 0.8)])
def test_a_layer_reads_with_the_probability_of_its_step(backbone, t, probability):
    """`early` above level 0.696, `late` below; counted over blocks and steps."""
    part, reads, kept = StoryDiffusion(rate=0.5, early=0.25, late=0.8), [], {}
    q, k, v = torch.randn(3, 1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    places = torch.cartesian_prod(torch.arange(1), torch.arange(2), torch.arange(2))
    positions = Positions(places, places, text=4)
    with Run.open(backbone, Request(prompt="a", num_frames=9, **SIZE), [part]) as run:
        run.chunk = replace(run.chunk, index=1, count=2)
        for index in range(60):
            for block in range(1, 11):
                handed = f"0.{index}.cond.{block}.self.0"
                kept |= {handed: torch.stack([k, v])[:, :, :, :2], f"{handed}.places": places[:2]}
                kept[f"{handed}.read"] = torch.ones(1, 2, dtype=torch.bool)
        run.carried[part] = kept
        for index in range(60):
            step = replace(run.schedule[1], index=index, branch="cond", t=t)
            for block in range(1, 11):
                read = part.attend(step, Site(block, "self", 2, 6), q, k, v, positions, lambda q, k, *rest: k)
                reads.append(read.shape[2] == 6)
    assert abs(sum(reads) / len(reads) - probability) < 0.06  # 3.4 standard deviations of 600 at most
    assert 0 < sum(reads[:10]) < 10, "blocks of a step are drawn apart"


def test_clips_of_a_batch_draw_for_themselves(backbone):
    """What a sample lends is what it lends alone, and tokens that only another one drew are hidden from it."""
    part, seeds = StoryDiffusion(rate=0.5, early=1.0, late=1.0), (1, 2)
    q, k, v = torch.randn(3, 2, 2, 12, 6, generator=torch.Generator().manual_seed(0))
    places = torch.cartesian_prod(torch.arange(1), torch.arange(3), torch.arange(4))
    positions, site = Positions(places, places, text=12), Site(1, "self", 2, 6)

    def lent(rows):
        requests = [Request(prompt="a", num_frames=9, **{**SIZE, "seed": seeds[i]}) for i in rows]
        with Run.open(backbone, requests, [part]) as run:
            run.chunk = replace(run.chunk, count=2)
            step = replace(run.schedule[1], branch="cond", t=0.5)
            part.attend(step, site, q[rows], k[rows], v[rows], positions, lambda *given: given[0])
            handed = part.carry(run, q[rows])
        with Run.open(backbone, requests, [part], carried=[handed]) as run:
            run.chunk = replace(run.chunk, index=1, count=2)
            step = replace(run.schedule[1], branch="cond", t=0.5)
            return part.attend(step, site, q[rows], k[rows], v[rows], positions, lambda *given: given)

    _, together, _, placed, bias = lent([0, 1])
    seen = []
    for i in (0, 1):
        _, alone, _, own, none = lent([i])
        read = bias[i, 0, 0] == 0
        assert none is None and read[:12].all() and torch.equal(together[i : i + 1, :, read], alone)
        assert torch.equal(placed.k[read], own.k)
        seen.append(read[12:].tolist())
    assert seen[0] != seen[1] and set(bias.unique().tolist()) == {0.0, -torch.inf}


def test_frames_of_a_unet_read_them_each(tmp_path):
    backbone = load(cases()["animatediff"].build(tmp_path), device="cpu", dtype="float32")
    told, _ = shots(backbone, StoryDiffusion(early=1.0, late=1.0), num_frames=8, prompt="a ball rolls, then it falls")
    alone, _ = shots(backbone, StoryDiffusion(rate=0.0), num_frames=8, prompt="a ball rolls, then it falls")
    apart = (told[1] - alone[1]).abs().amax(dim=(0, 1, 3, 4))
    assert torch.equal(told[0], alone[0]) and (apart > 1e-5).all(), "every frame of the second shot reads the first"


@pytest.mark.parametrize("row", ["hunyuan t2v", "mochi"])
def test_what_is_lent_is_read_where_a_model_masks_its_text(row, tmp_path):
    case = cases()[row]
    backbone = load(case.build(tmp_path), device="cpu", dtype="float32")
    asked = {**case.request, "num_frames": 26, "prompt": "a ball rolls, then it falls", "num_inference_steps": 3}
    told, alone = (
        shots(backbone, StoryDiffusion(noise_range=(1.0, 0.0), rate=rate, early=1.0, late=1.0), **asked)[0]
        for rate in (0.5, 0.0)
    )
    assert torch.equal(told[0], alone[0]) and (told[1] - alone[1]).abs().max() > 1e-5


def test_shares_and_counts_are_checked(backbone):
    for part, words in [
        (StoryDiffusion(rate=1.5), "use 0 to 1"),
        (StoryDiffusion(shots=0), "story_diffusion has 0 shots"),
    ]:
        with pytest.raises(KinemaError, match=words):
            Rollout(backbone, Request(prompt=THREE, num_frames=27, **SIZE), [part])


def test_a_part_of_the_tokens_is_refused_in_the_first_shot(backbone):
    made, parts = [], [FreeNoise(window=2, stride=1), StoryDiffusion(noise_range=(1.0, 0.0))]
    request = Request(prompt=THREE, num_frames=27, **SIZE)
    with pytest.raises(KinemaError, match="story_diffusion needs all tokens of the video; put it ahead"):
        list(Rollout(backbone, request, parts, lambda step, x: made.append(x)).frames())
    assert not made
