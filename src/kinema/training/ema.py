"""Exponential moving average of weights, kept in float32 beside the trained ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """w_ema <- d_n * w_ema + (1 - d_n) * w, with d_n = min(decay, (1 + n) / (10 + n)) after n updates.

    The rising d_n (as in TensorFlow's ExponentialMovingAverage) keeps the first random weights out of the mean.
    Parameters are averaged; buffers are copied. `decay` is a fraction per update, 0 (a copy) up to below 1.
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the EMA decay is {decay}; use 0 up to below 1")
        self.decay = decay
        self.updates = 0
        self.modules = dict(modules)
        self.shadow: dict[str, dict[str, Tensor]] = {
            name: {key: value.detach().float().clone() for key, value in module.named_parameters()}
            for name, module in self.modules.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, module in self.modules.items():
            weights = dict(module.named_parameters())
            shadow = [self.shadow[name][key] for key in weights]
            torch._foreach_lerp_(shadow, [w.detach().float() for w in weights.values()], 1.0 - decay)
        self.updates += 1

    def state(self, name: str) -> dict[str, Tensor]:
        """The averaged state dict of one module: averaged parameters, present buffers."""
        module = self.modules[name]
        present = {key: value.detach() for key, value in module.state_dict().items()}
        averaged = {key: value.to(present[key].dtype) for key, value in self.shadow[name].items() if key in present}
        return {**present, **averaged}

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside the `with`, the modules hold the averaged weights; afterwards their own, bit for bit."""
        kept = {
            name: {key: value.detach().clone() for key, value in module.named_parameters()}
            for name, module in self.modules.items()
        }
        _copy_into(self.modules, self.shadow)
        try:
            yield
        finally:
            _copy_into(self.modules, kept)


@torch.no_grad()
def _copy_into(modules: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            parameter.copy_(weights[name][key])
