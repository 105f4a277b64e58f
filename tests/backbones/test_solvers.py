"""Another scheduler and another shift: the same as diffusers' pipeline with that scheduler."""

import dataclasses
import math

import diffusers
import numpy as np
import pytest
import torch

from backbones.families import cases
from backbones.test_families import guidance, run, theirs
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.request import Request

CASES = cases()
CHOICES = [  # row of the families, scheduler and shift of the request, diffusers' class and what it is told
    ("wan 2.1 t2v", "euler", None, "FlowMatchEulerDiscreteScheduler", dict(shift=3.0)),
    ("wan 2.1 t2v", "dpm++", 5.0, "DPMSolverMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=5.0)),
    ("wan 2.1 t2v", None, 8.0, "UniPCMultistepScheduler", dict(flow_shift=8.0)),
    ("hunyuan t2v", "unipc", 4.0, "UniPCMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=4.0)),
    ("ltx 0.9.0 t2v", "unipc", None, "UniPCMultistepScheduler", dict(use_flow_sigmas=True)),
    ("cogvideox 5b", "ddim", None, "CogVideoXDDIMScheduler", {}),
    ("cogvideox 5b", "dpm", None, "CogVideoXDPMScheduler", {}),
    ("animatediff", "dpm++", None, "DPMSolverMultistepScheduler", {}),
    ("animatediff", "euler", None, "EulerDiscreteScheduler", {}),
]


@pytest.mark.parametrize("name, scheduler, shift, kind, told", CHOICES)
def test_same_as_diffusers_with_that_scheduler(name, scheduler, shift, kind, told, tmp_path):
    case = CASES[name]
    if "use_flow_sigmas" in told:
        told = {**told, "prediction_type": "flow_prediction"}

    def mend(pipeline):
        case.mend(pipeline)
        pipeline.scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **told)

    other = dataclasses.replace(case, mend=mend)
    folder = case.build(tmp_path)
    their_latents, their_frames = theirs(folder, other, [])
    backbone = load(folder, device="cpu", dtype="float32")
    backbone.joint_branches = False
    latents, frames = run(backbone, case, [], *guidance(case), scheduler=scheduler, flow_shift=shift)
    off = (latents - case.to_latents(their_latents, latents)).abs().max().item()
    assert off <= (0 if case.bitwise else 1e-4)
    assert np.abs(frames - their_frames).max() <= 1
    own, _ = run(backbone, case, [], *guidance(case))
    came_with = type(backbone.scheduler).__name__ == kind and shift is None
    assert came_with or (own - latents).abs().max() > 1e-3


def levels(backbone, **fields):
    conditions = backbone.prepare([Request(prompt="a red ball", num_inference_steps=4, **fields)])
    return torch.tensor(backbone.solver(conditions).levels)


def test_shift_grows_with_the_root_of_the_tokens(tmp_path):
    backbone = load(CASES["wan 2.1 t2v"].build(tmp_path), device="cpu", dtype="float32")
    backbone.defaults = dataclasses.replace(backbone.defaults, num_frames=9, height=32, width=32)
    same = levels(backbone, flow_shift="auto")
    assert torch.equal(same, levels(backbone))
    larger = dict(num_frames=9, height=64, width=64)
    expected = levels(backbone, **larger, flow_shift=3.0 * math.sqrt(4))
    assert torch.equal(levels(backbone, **larger, flow_shift="auto"), expected)
    assert (levels(backbone, **larger, flow_shift="auto")[1:-1] > same[1:-1]).all()  # more of the steps near noise


@pytest.mark.parametrize(
    "name, fields, sentence",
    [
        ("wan 2.1 t2v", dict(scheduler="ddim"), "it knows euler, unipc, dpm"),
        ("mochi", dict(scheduler="euler"), "it has its own and no other"),
        ("ltx 0.9.0 t2v", dict(flow_shift=3), "has no fixed shift to replace"),
        ("cogvideox 5b", dict(flow_shift="auto"), "has no fixed shift to replace"),
    ],
)
def test_refuses_what_a_model_has_not(name, fields, sentence, tmp_path):
    backbone = load(CASES[name].build(tmp_path), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match=sentence):
        backbone.prepare([Request(prompt="a red ball", **{**CASES[name].request, **fields})])


def test_refuses_a_batch_of_two_schedulers(tmp_path):
    backbone = load(CASES["wan 2.1 t2v"].build(tmp_path), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="differ in scheduler"):
        size = CASES["wan 2.1 t2v"].request
        backbone.prepare([Request(prompt="a", scheduler="euler", **size), Request(prompt="a", **size)])
