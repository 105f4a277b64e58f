"""Guidance without its second call: when it is left out, and what stands in for it."""

import math
from types import SimpleNamespace

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.run import State
from kinema.core.technique import Step
from kinema.guidance.apg import APG
from kinema.guidance.cfg import CFG
from kinema.guidance.pag import PAG
from kinema.request import Request
from kinema.speed.adaptive_guidance import AdaptiveGuidance, cosine
from kinema.speed.cfg_cache import CFGCache, split

SHAPE = (1, 2, 3, 10, 15)


def step_of(index, t, owner=CFG()):  # noqa: B008
    run = SimpleNamespace(state=State(), owner=owner, backbone=SimpleNamespace(expert_boundary=None))
    return Step(index, 10, t, t - 0.1, run=run)


@pytest.fixture
def rows(tiny_wan):
    """A model, and how many samples went through it in each call."""
    backbone, seen = load(tiny_wan, device="cpu", dtype="float32"), []
    backbone.transformer.register_forward_pre_hook(
        lambda _, args, named: seen.append(len(named["hidden_states"])), with_kwargs=True
    )
    return backbone, seen


def run(backbone, *parts):
    request = Request(prompt="a red ball", num_inference_steps=4, num_frames=5, height=32, width=32, seed=3)
    return sample(backbone, request, parts)


@pytest.mark.parametrize("threshold, samples", [(1.0, [2, 2, 2, 2]), (-1.0, [2, 1, 1, 1])])
def test_adaptive_guidance_ends_with_its_threshold(threshold, samples, rows):
    backbone, seen = rows
    run(backbone, AdaptiveGuidance(threshold=threshold))
    assert seen == samples


def test_every_sample_of_a_batch_must_agree_before_guidance_ends():
    c = torch.randn((2, *SHAPE[1:]), generator=torch.Generator().manual_seed(0))
    u = c.clone()
    u[1] = -u[1]
    torch.testing.assert_close(cosine(c, u), torch.tensor([1.0, -1.0]))
    technique, step = AdaptiveGuidance(scale=3.0), step_of(0, 0.9)
    technique.start(step.run)
    torch.testing.assert_close(technique.guide(step, cond=c, uncond=u), u + 3 * (c - u))
    assert technique.needs(step) == ("cond", "uncond")
    technique.guide(step, cond=c, uncond=2 * c)
    assert technique.needs(step) == ("cond",) and technique.guide(step, cond=c) is c


def test_frequencies_add_up_and_are_told_apart():
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    low, high = split(x)
    torch.testing.assert_close(low + high, x)
    flat = torch.ones(SHAPE)
    checks = (-1.0) ** (torch.arange(10)[:, None] + torch.arange(15)[None]).expand(SHAPE)
    torch.testing.assert_close(split(flat)[0], flat)
    wave = torch.cos(2 * math.pi * 2 * torch.arange(10) / 10)[:, None].expand(SHAPE)  # two periods: a fifth of ten rows
    torch.testing.assert_close(split(wave)[0], wave, atol=1e-5, rtol=0)
    assert split(checks)[0].abs().max() < 0.2


def test_the_difference_of_an_earlier_step_stands_in_for_the_call():
    technique, calls = CFGCache(every=3, high_gain=2.0), []

    def model(x):
        calls.append(x)
        return x

    step = step_of(0, 0.6)
    technique.start(step.run)
    difference = torch.full(SHAPE, 0.5)
    for index, (t, gain) in enumerate([(0.6, 1.0), (0.5, 1.1), (0.25, 1.1**2), (0.2, 1.0)]):
        now = Step(index, 10, t, t - 0.1, run=step.run)
        c = torch.full(SHAPE, float(index))
        assert technique.velocity(now, c, "cond", model) is c
        u = technique.velocity(now, c + difference, "uncond", model)
        torch.testing.assert_close(u, c + gain * difference)
    assert len(calls) == 4 + 2  # every third step computes the call without the prompt


def test_each_of_several_calls_of_a_branch_has_its_own_difference():
    technique, step = CFGCache(every=2), step_of(0, 0.05)
    technique.start(step.run)
    for index in range(2):
        now = Step(index, 10, 0.05, 0.04, run=step.run)
        clips = [torch.full(SHAPE, value + index) for value in (1.0, 3.0)]
        for clip in clips:
            technique.velocity(now, clip, "cond", lambda x: x)
        for clip in clips:
            u = technique.velocity(now, clip, "uncond", lambda x: x / 2)
            torch.testing.assert_close(u, clip - (clip - index) / 2)  # in the second step, halves of the first one's


@pytest.mark.parametrize("guidance", [CFG(), APG()], ids=["cfg", "apg"])
def test_cfg_cache_saves_calls_under_any_guidance(guidance, rows):
    backbone, seen = rows
    run(backbone, guidance, CFGCache(noise_range=(1.0, 0.0), every=2))
    assert seen == [1, 1, 1, 1, 1, 1]  # both, one, both, one


@pytest.mark.parametrize("guidance", [(), (PAG(scale=1.0),), (CFG(noise_range=(1.0, 0.9)),)], ids=str)
def test_without_guidance_there_is_nothing_to_keep(rows, guidance):
    with pytest.raises(KinemaError, match="cfg_cache needs guidance with the branches 'cond' and 'uncond'"):
        run(rows[0], *guidance, CFGCache())
