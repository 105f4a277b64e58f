"""The relatives of classifier-free guidance: their formulas, and diffusers' guiders where those have the same."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale

from kinema.core.errors import KinemaError
from kinema.core.positions import Positions
from kinema.core.run import State
from kinema.core.technique import Step
from kinema.guidance.apg import APG, project
from kinema.guidance.cfg import CFG
from kinema.guidance.cfg_zero_star import CFGZeroStar, agreement
from kinema.guidance.pag import PAG
from kinema.guidance.perturbed import own_values
from kinema.guidance.slg import SLG

C, U, P = torch.randn(3, 2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def step(index=4, run=None):
    return Step(index=index, count=8, t=0.5, t_next=0.375, run=run)


def test_zero_star_takes_the_agreeing_part_and_rests_first():
    torch.testing.assert_close(agreement(3 * U, U).flatten(), torch.full((2,), 3.0))
    theirs = cfg_zero_star_scale(C.flatten(1), U.flatten(1)).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(agreement(C, U), theirs)
    torch.testing.assert_close(CFGZeroStar(scale=4.0).guide(step(), C, U), theirs * U + 4 * (C - theirs * U))
    assert [len(CFGZeroStar(zero_steps=2).needs(step(i))) for i in range(4)] == [0, 0, 2, 2]


def test_apg_keeps_what_is_orthogonal():
    d = project(C - U, C, eta=0.0)
    torch.testing.assert_close((d * C).flatten(1).sum(1), torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(project(C - U, C, eta=1.0), C - U)
    assert project(C - U, C, 1.0, norm_threshold=2.0).flatten(1).norm(dim=1).tolist() == pytest.approx([2.0, 2.0])


def test_apg_equals_the_guider_of_diffusers_over_steps():
    run = SimpleNamespace(state=State(), backbone=None)
    part, buffer = APG(scale=6.0, eta=0.3, momentum=-0.75, norm_threshold=5.0), MomentumBuffer(-0.75)
    part.start(run)
    for i, (c, u) in enumerate(((C, U), (U, P), (P, C))):
        theirs = normalized_guidance(c, u, 5.0, buffer, 0.3, 5.0, use_original_formulation=True)
        torch.testing.assert_close(part.guide(step(i, run), c, u), theirs, atol=1e-5, rtol=1e-5)


def test_pag_perturbs_the_middle_block_of_its_own_branch():
    sites = [SimpleNamespace(block=b, kind="self") for b in range(5)]
    sites += [SimpleNamespace(block=7, kind="temporal")]  # of a network that is not the same in all blocks
    run = SimpleNamespace(state=State(), backbone=SimpleNamespace(sites=sites, name="toy"))
    part = PAG(scale=1.0, pag_scale=2.0)
    part.start(run)
    inner = lambda q, k, v, positions: q  # noqa: E731
    perturbed, plain = (Step(0, 8, 1.0, 0.9, run=run, branch=b) for b in ("perturbed", "cond"))
    q, k, v = torch.randn(3, 1, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(part.attend(perturbed, sites[3], q, k, v, None, inner), v)
    assert part.attend(perturbed, sites[2], q, k, v, None, inner) is q
    assert part.attend(plain, sites[3], q, k, v, None, inner) is q
    torch.testing.assert_close(part.guide(step(), C, U, P), C + 2 * (C - P))


def guider(kind, **settings):
    """A guider of diffusers in the middle of its steps."""
    import diffusers

    made = getattr(diffusers, kind)(**settings)
    made.set_state(step=4, num_inference_steps=8, timestep=torch.tensor(500))
    return made


@pytest.mark.parametrize(
    "part, kind, settings, branches",
    [
        (CFG(scale=4.0), "ClassifierFreeGuidance", dict(guidance_scale=4.0), (C, U)),
        (CFGZeroStar(scale=4.0), "ClassifierFreeZeroStarGuidance", dict(guidance_scale=4.0), (C, U)),
        (
            APG(scale=4.0, eta=0.5),
            "AdaptiveProjectedGuidance",
            dict(guidance_scale=3.0, eta=0.5, adaptive_projected_guidance_rescale=0.0, use_original_formulation=True),
            (C, U),
        ),
        (
            PAG(scale=4.0, pag_scale=2.0),
            "PerturbedAttentionGuidance",
            dict(guidance_scale=4.0, perturbed_guidance_scale=2.0, perturbed_guidance_layers=[1])
            | dict(perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0),
            (C, U, P),
        ),
        (
            SLG(scale=4.0, slg_scale=2.0),
            "SkipLayerGuidance",
            dict(guidance_scale=4.0, skip_layer_guidance_scale=2.0, skip_layer_guidance_layers=[1])
            | dict(skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0),
            (C, U, P),
        ),
    ],
)
def test_the_arithmetic_is_that_of_diffusers_guiders(part, kind, settings, branches):
    theirs = guider(kind, **settings).forward(*branches).pred
    torch.testing.assert_close(part.guide(step(), *branches), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", [CFGZeroStar(zero_steps=8), APG(eta=1.5), PAG(pag_scale=-1.0)])
def test_bad_values_are_refused(part):
    run = SimpleNamespace(steps=8, state=State(), backbone=SimpleNamespace(sites=[], name="toy"))
    with pytest.raises(KinemaError, match=part.name):
        part.start(run)


def test_a_token_keeps_itself_where_other_keys_are_passed_than_queries():
    v, places = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6, 3)
    positions = Positions(places, places)
    assert own_values(v, v, positions) is v
    of_q, of_k = torch.tensor([4, 1]), torch.tensor([1, 2, 4])
    assert torch.equal(own_values(v[:, :, of_q], v[:, :, of_k], positions.part(of_q, of_k)), v[:, :, of_q])
    assert torch.equal(own_values(v[:, :, of_q], v, positions.part(q=of_q)), v[:, :, of_q])
    more = torch.cat([v[:, :, :5], v[:, :, :2] + 1, v[:, :, 5:]], dim=2)  # two are lent ahead of a word
    lent = Positions(places[:5], places[:5], text=5).with_lent(places[:2])
    assert torch.equal(own_values(v, more, lent), v) and torch.equal(own_values(v, torch.cat([v, v], dim=2), None), v)
    of_q = torch.tensor([5, 0])
    assert torch.equal(own_values(v[:, :, of_q], more, lent.part(q=of_q)), v[:, :, of_q])
    of_q = torch.tensor([4, 1])
    with pytest.raises(KinemaError, match="whose own values are not passed"):
        own_values(v[:, :, of_q], v[:, :, :1], positions.part(of_q, torch.tensor([1])))
