"""What texts alone decide is made once a run, with the same bits, and not a byte beyond the budget is kept."""

import pytest
import torch

from kinema.backbones import texts
from kinema.backbones.load import load
from kinema.core.loop import denoise
from kinema.guidance.cfg import CFG
from kinema.request import Request

SIZE = dict(num_frames=5, height=32, width=32, num_inference_steps=3, seed=1)


def sampled(backbone):
    """Latents, and how often each layer computed."""
    counted = {}
    layers = {path: m for path, m in backbone.transformer.named_modules() if texts.LAYERS.search(path)}

    def counting(path, forward):
        def call(x):
            counted[path] = counted.get(path, 0) + 1
            return forward(x)

        return call

    for path, layer in layers.items():
        layer.forward = counting(path, layer.forward)
    try:
        latents, _ = denoise(backbone, Request(prompt="a red ball", negative_prompt="blue", **SIZE), [CFG(scale=3.0)])
    finally:
        for layer in layers.values():
            del layer.forward
    return latents, counted


@pytest.mark.parametrize("joint, calls", [(True, 1), (False, 2)])
def test_layers_of_the_text_are_called_once_a_run(tiny_wan, monkeypatch, joint, calls):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    backbone.joint_branches = joint
    kept, counted = sampled(backbone)
    assert counted and set(counted.values()) == {calls}
    monkeypatch.setattr(texts.Budget, "left", 0)
    plain, counted = sampled(backbone)
    assert set(counted.values()) == {3 * calls}
    assert torch.equal(kept, plain)


def test_a_changed_text_is_read_anew():
    layer = torch.nn.Linear(2, 2)
    kept = texts.Kept(layer, texts.Budget())
    x = torch.ones(1, 2)
    with torch.no_grad():
        first = layer(x)
        assert layer(x) is first and layer(x.clone()) is not first
        x += 1
        assert layer(x) is not first and not torch.equal(layer(x), first)
    assert len(kept.found) <= texts.MOST_TEXTS
