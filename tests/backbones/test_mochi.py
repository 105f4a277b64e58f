"""Mochi beyond the contract of the families: its reversed clockwork, prompts of different lengths, empty prompts."""

import json
from dataclasses import replace

import pytest
import torch

from backbones import test_families as contract
from backbones.families import mochi as tiny_mochi
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.request import Request

SIZE = tiny_mochi.SIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_mochi.build(tmp_path_factory.mktemp("mochi"))


@pytest.fixture(scope="module")
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("steps", [2, 5, 8])
def test_levels_fall_in_a_line_and_then_in_a_parabola(backbone, steps):
    conditions = backbone.prepare([Request(prompt="a red ball", **{**SIZE, "num_inference_steps": steps})])
    solver = backbone.solver(conditions)
    levels, half = torch.tensor(solver.levels), steps // 2
    assert levels[0] == 1 and levels[-1] == 0 and (levels.diff() < 0).all()
    expected = 1 - 0.025 * torch.arange(half + 1) / half
    torch.testing.assert_close(levels[: half + 1], expected, atol=1e-6, rtol=0)
    bends = levels[half:].diff().diff()
    torch.testing.assert_close(bends, bends[:1].expand_as(bends), atol=1e-6, rtol=0)
    for step in solver.steps():
        assert step.told == pytest.approx(step.t, abs=1e-6)


def test_one_step_goes_along_the_velocity(backbone):
    conditions = backbone.prepare([Request(prompt="a red ball", **SIZE)])
    solver = backbone.solver(conditions)
    x, v = torch.randn(2, 1, 12, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    step = next(iter(solver.steps()))
    torch.testing.assert_close(solver.advance(x, v, step), x + (step.t_next - step.t) * v, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("zeros", [True, False])
def test_an_empty_negative_prompt(zeros, tmp_path):
    folder = tiny_mochi.build(tmp_path / "mochi", zeros=zeros)
    case = replace(contract.CASES["mochi"], prompts=False)
    words = dict(prompt=contract.PROMPT, negative_prompt="")
    their_latents, _ = contract.theirs(folder, replace(case, call={**case.call, **words}), ())
    backbone = load(folder, device="cpu", dtype="float32")
    latents, _ = contract.run(backbone, case, (), *contract.guidance(case), **words)
    off = (latents - their_latents).abs().max().item()
    print(f"empty negative prompt, zeros {zeros}: latents {off:.1e}")
    assert off <= contract.TOLERANCE
    assert bool(backbone.text_inputs([""])["text_mask"].any()) != zeros


@pytest.mark.parametrize("tapped", [False, True])
def test_a_batch_is_its_requests_one_by_one(backbone, tapped):
    requests = [
        Request(prompt=prompt, seed=seed, **SIZE)
        for prompt, seed in (("a red ball", 1), ("the blue cube jumps left on a ring", 2))
    ]
    parts = [contract.Looks()] if tapped else []
    for r, video in zip(requests, sample(backbone, requests, parts), strict=True):
        assert (sample(backbone, r, parts)[0].int() - video.int()).abs().max() <= 1


def test_words_behind_the_end_of_a_prompt_do_not_matter(backbone):
    conditions = backbone.prepare([Request(prompt="a red ball", **SIZE)])
    x = torch.randn(conditions.shape, generator=torch.Generator().manual_seed(0))
    text = conditions.texts[False]
    assert text["text"].shape[1] == 256 and text["text_mask"].sum() == 4  # three words and the end
    with torch.no_grad():
        plain = backbone.velocity(x, 0.5, conditions)
        text["text"] = torch.where(text["text_mask"][..., None], text["text"], 7.0)
        torch.testing.assert_close(backbone.velocity(x, 0.5, conditions), plain)


def test_refuses_one_step_and_a_time_per_frame(backbone):
    request = Request(prompt="a red ball", **SIZE)
    with pytest.raises(KinemaError, match="num_inference_steps is 1; a Mochi model needs 2 or more"):
        sample(backbone, request.changed(num_inference_steps=1))
    conditions = backbone.prepare([request])
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        backbone.velocity(torch.zeros(conditions.shape), torch.full((1, 3), 0.5), conditions)


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(height=40), "height is 40; this model makes a multiple of 16"),
        (dict(num_frames=12), "num_frames is 12; this model makes a multiple of 6 plus 1"),
        (dict(image="image.png"), "makes video from text alone"),
    ],
)
def test_refuses_what_it_cannot_make(backbone, fields, says):
    with pytest.raises(KinemaError, match=says):
        backbone.prepare([Request(prompt="a red ball", **{**SIZE, **fields})])


@pytest.mark.parametrize(
    "part, change, says",
    [
        ("scheduler/scheduler_config.json", dict(invert_sigmas=False), "with inverted sigmas"),
        ("scheduler/scheduler_config.json", dict(use_dynamic_shifting=True), "with inverted sigmas"),
        ("transformer/config.json", dict(_class_name="WanTransformer3DModel"), "kinema knows MochiTransformer3DModel"),
    ],
)
def test_refuses_parts_of_another_kind(tmp_path, part, change, says):
    folder = tiny_mochi.build(tmp_path / "mochi")
    path = folder / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(KinemaError, match=says):
        load(folder, device="cpu", dtype="float32")
