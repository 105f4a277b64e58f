"""What every technique of the registry must keep, on every family it runs on."""

import copy
import hashlib
import inspect
import re

import pytest
import torch
from PIL import Image

import adapters
import asked
from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.registry import techniques
from kinema.request import Request

ENTRIES = techniques()
# Rows of the families for techniques that a text to video model has nothing for.
ELSEWHERE = {
    "faster_diffusion": "animatediff", "frame_cfg": "svd", "image_cfg": "cogvideox 5b i2v",
    "modality_cfg": "ltx 2.0 t2v", "token_merging": "animatediff",
}  # fmt: skip
SIZE = dict(num_inference_steps=3, num_frames=5, height=32, width=32)


def run(backbone, *parts, seed=3):
    request = Request(**{**dict(prompt="a red ball rolls", **SIZE), **vars(backbone).get("asked", {}), "seed": seed})
    latents = []
    frames = sample(backbone, request, parts, on_step=lambda step, x: latents.append(x))
    return frames, latents[-1]


def fingerprint(backbone):
    """Weights, module tree and processors of everything the backbone holds."""
    digest = hashlib.sha256()
    for name, module in sorted(vars(backbone).items()):
        if isinstance(module, torch.nn.Module):
            digest.update(f"{name} {module!r}".encode())
            for key, weight in sorted(module.state_dict().items()):
                digest.update(key.encode() + weight.float().numpy().tobytes())
            for key, processor in sorted(getattr(module, "attn_processors", {}).items()):
                digest.update(f"{key} {type(processor)}".encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def model(tiny_wan, tmp_path_factory):
    """model(name, dtype): a small model on which the technique `name` can run, and in `asked` what it is asked for."""
    known, picture = cases(), tmp_path_factory.mktemp("picture") / "first.png"
    Image.new("RGB", (48, 32), (200, 40, 30)).save(picture)

    def built(name="", dtype="float32"):
        if name not in ELSEWHERE:
            return adapters.give(load(tiny_wan, device="cpu", dtype=dtype))
        case = known[ELSEWHERE[name]]
        backbone = load(case.build(tmp_path_factory.mktemp("model")), device="cpu", dtype=dtype)
        words = {} if case.prompts else {"prompt": ""}
        backbone.asked = {**words, **case.request, **({"image": picture} if case.images else {})}
        return backbone

    return built


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_keeps_the_contract(name, model):
    entry, backbone, (part, *beside) = ENTRIES[name], model(name), asked.parts(name)
    before = fingerprint(backbone)
    plain = run(backbone, *beside)[1]
    neutral = run(backbone, entry.cls(**entry.neutral), *beside)[1]
    off = (neutral - plain).abs().max().item()
    assert off <= (1e-4 if name in ELSEWHERE else 1e-6) * plain.abs().max(), f"neutral {name} is {off:.1e} off"

    unchanged = copy.deepcopy(vars(part))
    first, second = run(backbone, part, *beside)[1], run(backbone, part, *beside)[1]
    assert torch.equal(first, second), f"{name} gives another result the second time"
    assert not torch.equal(first, run(backbone, part, *beside, seed=4)[1]), "the seed has no effect"
    assert repr(unchanged) == repr(vars(part)), f"{name} keeps something on itself"
    assert fingerprint(backbone) == before, f"{name} leaves something behind in the model"


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_stays_finite_in_bfloat16(name, model):
    assert run(model(name, "bfloat16"), *asked.parts(name))[1].float().isfinite().all()


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_is_documented(name):
    doc = inspect.getdoc(ENTRIES[name].cls) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", doc) and ENTRIES[name].paper in doc
    for part in ("Paper:", "Departures:", "Shapes:", "Raises:"):
        assert part in doc, f"the docstring of {name} lacks {part!r}"


# Options with which techniques do something in a short clip, and those that find one thing for a clip.
LONG = {
    "continuation": {"frames": 9, "overlap": 1}, "controlvideo": {"shared": 0.3, "smooth": ()},
    "ditctrl": {"window": 4, "overlap": 2},
    "freelong": {"window": 3, "stride": 2}, "freenoise": {"window": 3, "stride": 2},
    "gen_l_video": {"window": 3, "stride": 2}, "linear_leap": {"at": 0.5},
    "randomized_blending": {"window": 4, "overlap": 3}, "story_diffusion": {"noise_range": (1.0, 0.0)},
    "vico": {"lr": 0.02, "noise_range": (1.0, 0.0), "targets": (0.5, 0.5, 0.5)}, "vidrd": {"frames": 9},
}  # fmt: skip
ONE_BY_ONE = {"ditflow_positions"}


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ELSEWHERE])
def test_a_batch_is_its_clips_one_by_one(name, model):
    backbone = model(name)
    part = ENTRIES[name].cls(**asked.options(name) | LONG.get(name, {}))

    def made(*seeds):
        latents, size = [], {**SIZE, "num_frames": 17, "num_inference_steps": 4, "fps": 8}
        requests = [Request(prompt=asked.EVENTS, **size, seed=seed) for seed in seeds]
        sample(backbone, requests, [part, *asked.parts(name)[1:]], on_step=lambda step, x: latents.append(x))
        return latents

    if name in ONE_BY_ONE:
        with pytest.raises(KinemaError, match="for one clip, and 2 are asked for"):
            made(3, 8)
        return
    batch, alone = made(3, 8), (made(3), made(8))
    for i, one in enumerate(alone):
        for x, own in zip(batch, one, strict=True):
            torch.testing.assert_close(x[i], own[0], rtol=0, atol=2e-5 * own.abs().max().item())
