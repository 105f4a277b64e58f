"""Which calls of the model guidance asks for, and what is read in them."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from backbones.test_families import CASES, request, run, theirs
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.guidance.cfg_zero_star import CFGZeroStar
from kinema.guidance.composed import Composed
from kinema.guidance.image_cfg import ImageCFG
from kinema.guidance.pag import PAG
from kinema.guidance.slg import SLG

WAN = CASES["wan 2.1 t2v"]


@dataclass(frozen=True, kw_only=True)
class Notes(Technique):
    """Which branch gave which velocity, step by step."""

    name = "notes"
    seen: list = field(default_factory=list)

    def velocity(self, step, x, branch, next):
        v = next(x)
        self.seen.append((step.index, branch, v))
        return v

    @property
    def calls(self):
        return [(index, branch) for index, branch, _ in self.seen]

    def of(self, branch):
        return next(v for _, name, v in self.seen if name == branch)


@pytest.fixture(scope="module")
def wan(folders):
    return load(folders("wan 2.1 t2v"), device="cpu", dtype="float32")


def noted(backbone, case, pictures, *techniques, **more):
    notes = Notes()
    latents, _ = run(backbone, case, pictures, *techniques, notes, **more)
    return notes, latents


def test_prompts_are_read_in_branches_of_their_own(wan, pictures):
    part = Composed(scale=2.0, prompts=("a blue cube", "the ring"), weights=(0.5, -1.0))
    notes, latents = noted(wan, WAN, pictures, part)
    assert [branch for index, branch in notes.calls if index == 0] == ["cond", "uncond", "prompt_0", "prompt_1"]
    for branch, prompt in (("cond", request(WAN, ()).prompt), ("prompt_0", "a blue cube"), ("prompt_1", "the ring")):
        alone, _ = noted(wan, WAN, pictures, prompt=prompt)
        torch.testing.assert_close(notes.of(branch), alone.of("cond"))
    c, u, p, q = (notes.of(branch) for branch in ("cond", "uncond", "prompt_0", "prompt_1"))
    guided = part.guide(None, cond=c, uncond=u, prompt_0=p, prompt_1=q)
    torch.testing.assert_close(guided, u + 2 * (c - u) + 0.5 * (p - u) - (q - u))
    plain, _ = run(wan, WAN, pictures, CFG(scale=2.0))
    weightless = Composed(scale=2.0, prompts=("a blue cube",), weights=(0.0,))
    torch.testing.assert_close(run(wan, WAN, pictures, weightless)[0], plain, atol=1e-5, rtol=1e-5)
    assert (latents - plain).abs().max() > 1e-3


def test_a_picture_is_left_out_as_in_the_training(folders, pictures):
    case = CASES["cogvideox 5b i2v"]
    backbone = load(folders("cogvideox 5b i2v"), device="cpu", dtype="float32")
    notes, _ = noted(backbone, case, pictures, ImageCFG())
    backbone.without_image = lambda conditions: {"picture": conditions.inputs["picture"]}
    with_it, _ = noted(backbone, case, pictures, ImageCFG())
    torch.testing.assert_close(notes.of("cond"), with_it.of("cond"))
    torch.testing.assert_close(notes.of("image"), with_it.of("uncond"))
    assert (notes.of("uncond") - notes.of("image")).abs().max() > 1e-3
    c, i, u = (notes.of(branch) for branch in ("cond", "image", "uncond"))
    torch.testing.assert_close(ImageCFG(scale=7.0, image_scale=2.0).guide(None, c, i, u), u + 2 * (i - u) + 7 * (c - i))
    torch.testing.assert_close(ImageCFG(scale=7.0, image_scale=1.0).guide(None, c, i), i + 7 * (c - i))


def test_control_without_a_picture_is_text_to_video(folders, pictures):
    backbone, case = load(folders("wan 2.1 vace"), device="cpu", dtype="float32"), CASES["wan 2.1 vace"]
    image = dict(image=pictures[0], num_inference_steps=1)
    notes, _ = noted(backbone, case, pictures, ImageCFG(), **image)
    alone, _ = noted(backbone, case, pictures, CFG(), num_inference_steps=1)
    torch.testing.assert_close(notes.of("uncond"), alone.of("uncond"))
    assert (notes.of("image") - notes.of("uncond")).abs().max() > 1e-4
    with pytest.raises(KinemaError, match="image_cfg guides by a picture, and none is given"):
        run(backbone, case, pictures, ImageCFG(), num_inference_steps=1)
    with pytest.raises(KinemaError, match="leaves out 'image' in its branch 'uncond', which the wan family cannot do"):
        run(load(folders("wan 2.1 t2v"), device="cpu"), WAN, pictures, ImageCFG())


def test_skipped_blocks_are_asked_for_in_their_range_only(wan, pictures):
    notes, _ = noted(wan, WAN, pictures, SLG(layers=(1,), skip_range=(1.0, 0.99)))
    plain = [(index, branch) for index in (1, 2) for branch in ("cond", "uncond")]
    assert notes.calls == [(0, "cond"), (0, "uncond"), (0, "skipped"), *plain]
    assert (notes.of("skipped") - notes.of("cond")).abs().max() > 1e-4
    notes, _ = noted(wan, WAN, pictures, SLG(scale=1.0, slg_scale=0.0))
    assert notes.calls == [(i, "cond") for i in range(3)]


def test_a_step_of_rest_calls_no_model(wan, pictures):
    notes, _ = noted(wan, WAN, pictures, CFGZeroStar(zero_steps=2))
    assert notes.calls == [(2, "cond"), (2, "uncond")]


@pytest.mark.parametrize(
    "part, says",
    [
        (Composed(), "composed has no prompts; give some, and a weight for each, or use cfg"),
        (Composed(prompts=("a",)), "1 prompts and 0 weights"),
        (Composed(prompts=(" ",), weights=(1.0,)), "one of the prompts of composed is empty"),
        (SLG(layers=(2,)), r"layers of slg are \(2,\); .* blocks from 0 to 1"),
        (SLG(skip_range=(0.0, 0.0)), "none of the 3 steps is in it"),
        (SLG(skip_range=(1.0, 0.99), noise_range=(0.98, 0.0)), "none of the 3 steps is in it and in noise_range"),
        (SLG(layers=(1,), block_range=(0, 0)), r"block_range of slg is \(0, 0\)"),
    ],
)
def test_refused_before_the_first_step(wan, pictures, part, says):
    with pytest.raises(KinemaError, match=says):
        run(wan, WAN, pictures, part)


def test_perturbed_attention_of_an_image_model_equals_diffusers(folders, pictures):
    case = CASES["animatediff, alone"]
    backbone = load(folders("animatediff, alone"), device="cpu", dtype="float32")
    guidance = dict(guidance_scale=4.0, pag_scale=2.0)

    def perturb(pipeline):
        pipeline.set_pag_applied_layers("mid_block.attentions.*attn1")

    case = replace(case, pipeline="AnimateDiffPAGPipeline", guidance=guidance, mend=perturb)
    expected, _ = theirs(folders("animatediff, alone"), case, pictures)
    latents, _ = run(backbone, case, pictures, PAG(scale=4.0, pag_scale=2.0))
    torch.testing.assert_close(latents.float(), expected, atol=1e-4, rtol=1e-4)
    plain, _ = run(backbone, case, pictures, CFG(scale=4.0))
    assert (latents - plain).abs().max() > 1e-2
