"""Which optimizer moves which weights.

"adamw" moves all of them with AdamW. "muon" moves the hidden matrices (weights of linear layers inside a list of
blocks) with Muon, which makes each update orthogonal, and the rest (embeddings, first and last layers, norms,
biases) with AdamW: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, and Liu et al.,
"Muon is Scalable for LLM Training", 2025, arXiv:2502.16982, whose scaling lets both share one learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Joined:
    """Several optimizers that step as one; states are numbered in a row, groups are listed in a row."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state, groups, offset = {}, [], 0
        for optimizer in self.optimizers:
            part = optimizer.state_dict()
            state.update({offset + i: entry for i, entry in part["state"].items()})
            groups += [{**g, "params": [offset + i for i in g["params"]]} for g in part["param_groups"]]
            offset += sum(len(g["params"]) for g in part["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        groups, offset = list(state["param_groups"]), 0
        for optimizer in self.optimizers:
            own = [groups.pop(0) for _ in optimizer.param_groups]
            count = sum(len(g["params"]) for g in own)
            entries = {i - offset: e for i, e in state["state"].items() if offset <= i < offset + count}
            shifted = [{**g, "params": [i - offset for i in g["params"]]} for g in own]
            optimizer.load_state_dict({"state": entries, "param_groups": shifted})
            offset += count


def build_optimizer(
    modules: Iterable[nn.Module], kind: str, lr: float, betas: tuple[float, float], weight_decay: float
) -> Joined:
    """The optimizer of all parameters of `modules` that need a gradient. `kind` is "adamw" or "muon".

    `weight_decay` acts on matrices and kernels only. Raises ValueError for another `kind`.
    """
    if kind not in ("adamw", "muon"):
        raise ValueError(f"optimizer is {kind!r}; use adamw or muon")
    modules = list(modules)
    hidden = {id(w): w for m in modules for w in hidden_matrices(m)} if kind == "muon" else {}
    rest = [p for m in modules for p in m.parameters() if p.requires_grad and id(p) not in hidden]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)]
    if hidden:
        # match_rms_adamw scales each update to the size that AdamW's would have.
        parts.append(
            torch.optim.Muon(
                hidden.values(), lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
        )
    return Joined(parts)


def hidden_matrices(module: nn.Module) -> list[Tensor]:
    """Weights of the linear layers that sit inside a list of blocks."""
    found = {}
    for blocks in (m for m in module.modules() if isinstance(m, nn.ModuleList)):
        for layer in (m for m in blocks.modules() if isinstance(m, nn.Linear)):
            if layer.weight.requires_grad:
                found[id(layer.weight)] = layer.weight
    return list(found.values())
