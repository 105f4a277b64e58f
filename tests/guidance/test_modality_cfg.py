"""Guidance of video and sound: diffusers' own arithmetic, and only the calls that its weights need."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.guiders.ltx2_guidance import LTX2Guidance

from kinema.core.path import RectifiedFlow
from kinema.core.technique import Step
from kinema.guidance.modality_cfg import ModalityCFG

T = 0.6


def step(of, x):
    return Step(0, 1, T, 0.0, run=SimpleNamespace(path=RectifiedFlow()), of=of, x=x)


@pytest.mark.parametrize("of", ["video", "sound"])
def test_equals_the_guider_of_diffusers(of):
    part = ModalityCFG(stg_scale=0.5, sound_stg_scale=1.5, sound_modality_scale=2.0, sound_rescale=0.2)
    scale, stg, modality, rescale = part.weights(of)
    assert (scale, stg, modality, rescale) == {"video": (3.0, 0.5, 3.0, 0.7), "sound": (7.0, 1.5, 2.0, 0.2)}[of]
    x, *velocities = torch.randn(5, 2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    cond, uncond, perturbed, isolated = (x - T * v for v in velocities)
    theirs = LTX2Guidance(guidance_scale=scale, stg_scale=stg, modality_scale=modality, guidance_rescale=rescale)
    x0 = theirs.forward(cond, uncond, perturbed, isolated).pred
    names = ("uncond", "perturbed", "isolated")
    v = part.guide(step(of, x), velocities[0], **dict(zip(names, velocities[1:], strict=True)))
    torch.testing.assert_close(v, (x - x0) / T, atol=2e-5, rtol=1e-5)


def test_asks_only_for_what_a_weight_of_video_or_sound_needs():
    at = step("video", torch.zeros(1))
    assert ModalityCFG().needs(at) == ["cond", "uncond", "perturbed", "isolated"]
    none = dict(scale=1.0, sound_scale=1.0, stg_scale=0.0, modality_scale=1.0, rescale=0.0)
    assert ModalityCFG(**none).needs(at) == ["cond"]
    assert ModalityCFG(**{**none, "sound_scale": 2.0}).needs(at) == ["cond", "uncond"]
    assert ModalityCFG(**none, sound_stg_scale=1.0).needs(at) == ["cond", "perturbed"]
    assert ModalityCFG(**none, sound_modality_scale=2.0).needs(at) == ["cond", "isolated"]
