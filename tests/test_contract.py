"""What every technique of the registry must keep, on every family it runs on."""

import copy
import hashlib
import inspect
import re

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.registry import techniques
from kinema.request import Request

ENTRIES = techniques()
FAMILIES = ("tiny_wan",)  # fixtures of tests/conftest.py that give the folder of a small model


def run(backbone, *parts, seed=3):
    request = Request(prompt="a red ball rolls", num_inference_steps=3, num_frames=5, height=32, width=32, seed=seed)
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


@pytest.fixture(params=FAMILIES)
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


def runs(backbone, *parts):
    """The latents, or None when the combination is refused with the names of those who cannot work."""
    try:
        return run(backbone, *parts)[1]
    except KinemaError as error:
        assert any(p.name in str(error) for p in parts), f"a refusal names the technique: {error}"
        return None


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_keeps_the_contract(name, backbone):
    entry = ENTRIES[name]
    before = fingerprint(backbone)
    plain = run(backbone)[1]
    neutral = runs(backbone, entry.cls(**entry.neutral))
    if neutral is None:
        return
    torch.testing.assert_close(neutral, plain, atol=1e-6, rtol=1e-5, msg=f"neutral {name} changes the result")

    part = entry.cls()
    unchanged = copy.deepcopy(vars(part))
    first, second = run(backbone, part)[1], run(backbone, part)[1]
    assert torch.equal(first, second), f"{name} gives another result the second time"
    assert not torch.equal(first, run(backbone, part, seed=4)[1]), "the seed has no effect"
    assert repr(unchanged) == repr(vars(part)), f"{name} keeps something on itself"
    assert fingerprint(backbone) == before, f"{name} leaves something behind in the model"


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_stays_finite_in_bfloat16(name, folder):
    latents = runs(load(folder, device="cpu", dtype="bfloat16"), ENTRIES[name].cls())
    assert latents is None or latents.float().isfinite().all()


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_runs_with_every_other_or_is_refused_by_name(name, backbone):
    for other in ENTRIES:
        latents = runs(backbone, ENTRIES[name].cls(), ENTRIES[other].cls())
        assert latents is None or latents.isfinite().all()


@pytest.mark.parametrize("name", ENTRIES)
def test_technique_is_documented(name):
    doc = inspect.getdoc(ENTRIES[name].cls) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", doc) and ENTRIES[name].paper in doc
    for part in ("Paper:", "Departures:", "Shapes:", "Raises:"):
        assert part in doc, f"the docstring of {name} lacks {part!r}"
