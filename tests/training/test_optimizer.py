"""The joined optimizer: what Muon moves, that its updates are orthogonal, and that its state comes back."""

import copy

import pytest
import torch
from torch import nn

from kinema.training.optimizer import build_optimizer, hidden_matrices


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        return nn.ModuleDict({"words": nn.Embedding(5, 8), "blocks": blocks, "out": nn.Linear(8, 2)})


def train(model, optimizer, steps):
    for _ in range(steps):
        hidden = model["blocks"][1](torch.tanh(model["blocks"][0](model["words"].weight)))
        torch.autograd.backward(model["out"](hidden).square().mean())
        optimizer.step()
        optimizer.zero_grad()


def test_muon_moves_the_matrices_of_blocks_only():
    model = network()
    assert [w.shape for w in hidden_matrices(model)] == [(8, 8), (8, 8)]
    optimizer = build_optimizer([model], "muon", 0.01, (0.9, 0.99), 0.0)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 1)
    # Orthogonal updates have equal singular values; five Newton-Schulz steps bring the large ones close together.
    change = model["blocks"][0].weight.detach() - before["blocks.0.weight"]
    singular = torch.linalg.svdvals(change.double())
    assert singular[0] / singular[4] < 2.0
    assert not torch.equal(model["out"].weight, before["out.weight"])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_state_comes_back(kind):
    model = network()
    optimizer = build_optimizer([model], kind, 0.01, (0.9, 0.99), 0.01)
    train(model, optimizer, 2)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, 2)

    again = network()
    restored = build_optimizer([again], kind, 0.5, (0.9, 0.99), 0.01)
    again.load_state_dict(weights)
    restored.load_state_dict(state)
    train(again, restored, 2)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="use adamw or muon"):
        build_optimizer([network()], "sgd", 0.01, (0.9, 0.99), 0.0)
