"""Which steps run the encoder, that its features lose nothing where they do not change, and what the batch makes."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import State
from kinema.core.technique import Step
from kinema.guidance.cfg import CFG
from kinema.guidance.frame_cfg import FrameCFG
from kinema.guidance.pag import PAG
from kinema.long.freenoise import FreeNoise
from kinema.request import Request
from kinema.speed.faster_diffusion import FasterDiffusion

STEPS = 6
LEVELS = {}  # noise levels of the steps on a model
FEW = dict(key_steps=(0, 1, 3), of=STEPS, injection=0.0)
GUIDES = {"animatediff": CFG(scale=4.0), "animatediff, euler": CFG(scale=4.0), "svd": FrameCFG(first=1.0, last=3.0)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """model(row): a tiny model, and a function that denoises on it."""
    made = {}

    def built(row="animatediff"):
        if row not in made:
            case, folder = cases()[row], tmp_path_factory.mktemp("model")
            asked = {**case.request, "num_inference_steps": STEPS}
            if case.images:
                Image.new("RGB", (64, 32), (200, 40, 30)).save(folder / "first.png")
                asked["image"] = folder / "first.png"
            backbone = load(case.build(folder / "model"), device="cpu", dtype="float32")
            request = Request(prompt="a red ball" if case.prompts else "", seed=3, **asked)
            LEVELS[backbone] = backbone.solver(backbone.prepare([request])).levels
            made[row] = backbone, lambda *parts: denoise(backbone, request, parts)[0]
        return made[row]

    return built


@pytest.fixture
def computed(model):
    """Rows of each call of a layer of the encoder and of one of the decoder."""
    unet, rows = model()[0].unet, {"encoder": [], "decoder": []}
    layers = {"encoder": unet.down_blocks[0].resnets[0].conv1, "decoder": unet.up_blocks[-1].resnets[0].conv1}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: rows[name].append(len(args[0])))
        for name, layer in layers.items()
    ]
    yield rows
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("row", GUIDES)
def test_key_steps_alone_change_no_bit(row, model):
    _, run = model(row)
    assert torch.equal(run(GUIDES[row], FasterDiffusion(every=1, injection=0.0)), run(GUIDES[row]))


@pytest.mark.parametrize("row", GUIDES)
def test_an_encoder_that_does_not_see_x_loses_nothing(row, model):
    backbone, run = model(row)
    unet = backbone.unet
    weights = [unet.conv_in.weight]
    for part in (*unet.down_blocks, unet.mid_block):
        weights += [m.weight for name, m in part.named_modules() if name.endswith("time_emb_proj")]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    try:
        plain = run(GUIDES[row])
        assert torch.equal(run(GUIDES[row], FasterDiffusion(**FEW, parallel=False)), plain)
        torch.testing.assert_close(run(GUIDES[row], FasterDiffusion(**FEW)), plain, atol=1e-4, rtol=1e-4)
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)
    assert not torch.allclose(run(GUIDES[row]), plain, atol=1e-3)


@pytest.mark.parametrize("row", GUIDES)
def test_decoders_in_one_batch_give_what_they_give_one_by_one(row, model):
    _, run = model(row)
    one_by_one = run(GUIDES[row], FasterDiffusion(**FEW, parallel=False))
    torch.testing.assert_close(run(GUIDES[row], FasterDiffusion(**FEW)), one_by_one, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one_by_one, run(GUIDES[row]), atol=1e-3)


@pytest.mark.parametrize("parallel, decoded", [(True, [8, 16, 24]), (False, [8] * 6)])
def test_the_encoder_runs_in_key_steps(parallel, decoded, model, computed):
    model()[1](CFG(scale=4.0), FasterDiffusion(**FEW, parallel=parallel))
    assert computed == {"encoder": [8] * 3, "decoder": decoded}  # two branches of four frames


def test_branches_keep_features_of_their_own(model, computed, monkeypatch):
    backbone, run = model()
    together = run(CFG(scale=4.0), FasterDiffusion(**FEW))
    monkeypatch.setattr(backbone, "joint_branches", False)
    torch.testing.assert_close(run(CFG(scale=4.0), FasterDiffusion(**FEW)), together, atol=1e-4, rtol=1e-4)
    assert computed["encoder"] == [8] * 3 + [4] * 6


def test_what_looks_into_the_network_gets_its_steps_one_by_one(model, computed):
    model()[1](PAG(), FasterDiffusion(**FEW))
    assert computed["decoder"] == [4] * 18  # three branches


def test_a_window_that_begins_late_begins_with_a_key_step(model, computed):
    backbone, run = model()
    run(FasterDiffusion(every=STEPS, noise_range=(0.6, 0.0)))
    inside = sum(level <= 0.6 for level in LEVELS[backbone][:-1])
    assert len(computed["encoder"]) == STEPS - inside + 1 < STEPS


def test_key_steps_are_stretched_to_the_number_of_steps():
    paper = FasterDiffusion()
    assert sorted(paper.keys(50)) == [0, 1, 2, 3, 5, 10, 15, 25, 35]
    assert sorted(paper.keys(20)) == [0, 1, 2, 4, 6, 10, 14]
    assert sorted(FasterDiffusion(every=4).keys(10)) == [0, 4, 8]


def test_the_first_noise_is_added_in_the_second_half():
    part, run = FasterDiffusion(injection=0.01), SimpleNamespace(state=State())
    noise, x = torch.randn(2, 1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    part.init_noise(run, noise)
    assert part.before_step(Step(4, 10, 0.6, 0.5, run=run), x) is x
    a, s = 0.6, 0.8  # z = a x0 + s noise, of which x is a (a + s)th
    moved = part.before_step(Step(5, 10, s / (a + s), 0.5, run=run), x)
    torch.testing.assert_close((a + s) * moved, (a + s) * x + 0.01 * noise)


def test_what_cannot_be_done_is_refused(model, tiny_wan):
    with pytest.raises(KinemaError, match="use steps from 0 to 49"):
        model()[1](FasterDiffusion(key_steps=(0, 50)))
    with pytest.raises(KinemaError, match="every -1"):
        model()[1](FasterDiffusion(every=-1))
    wan, request = (
        load(tiny_wan, device="cpu", dtype="float32"),
        Request(prompt="a ball", num_frames=5, height=32, width=32),
    )
    with pytest.raises(KinemaError, match="WanTransformer3DModel does not take it: it has no encoder"):
        denoise(wan, request, [FasterDiffusion()])


def test_frames_that_were_moved_stand_there_on_a_twin_too(tmp_path):
    """Windows of FreeNoise carry places of their own; with all steps key steps nothing else may differ."""
    backbone = load(cases()["animatediff"].build(tmp_path), device="cpu", dtype="float32")
    request = Request(prompt="a ball", num_frames=12, height=32, width=32, num_inference_steps=2, seed=1, fps=8)
    alone, _ = denoise(backbone, request, [FreeNoise(window=4)])
    cached, _ = denoise(backbone, request, [FreeNoise(window=4), FasterDiffusion(every=1, injection=0.0)])
    assert torch.equal(alone, cached)
