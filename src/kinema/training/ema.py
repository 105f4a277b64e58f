"""Averages of the trained weights over the training, kept in float32 beside them: exponential, or power-function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from kinema.training.sharding import Twins

WIDEST = 12**-0.5  # sigma_rel of the mean over all weights so far, gamma = 0


def power_exponent(sigma_rel: float) -> float:
    """The exponent gamma of the profile t ** gamma whose standard deviation is `sigma_rel` of the time averaged over.

    sigma_rel ** 2 = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)), solved as the cubic equation it is: Karras et al.,
    "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, arXiv:2312.02696, algorithm 2.
    Raises ValueError for a width that is not above 0 and up to `WIDEST`.
    """
    if not 0.0 < sigma_rel <= WIDEST:
        raise ValueError(f"ema_sigma_rel is {sigma_rel}; use above 0 up to {WIDEST:.4f}")
    import numpy as np

    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


class EMA:
    """w_ema <- d * w_ema + (1 - d) * w after each optimizer step, over the parameters that need a gradient.

    `decay` alone: d_n = min(decay, (1 + n) / (10 + n)) after n updates. The rising d_n (as in TensorFlow's
    ExponentialMovingAverage) keeps the first random weights out of the mean. A fraction, 0 (a copy) up to below 1.
    With `sigma_rel`, the power-function average of Karras et al., 2023, arXiv:2312.02696, equation 127, instead:
    d_n = (1 - 1 / (n + 1)) ** (gamma + 1), see `power_exponent`. It reaches back the same fraction of the training at
    any time, so that its width need not be chosen by the training's length. Departure: what the paper keeps for a
    choice of the width afterwards (two averages, snapshots) is not kept.

    `twins`: where the modules are spread over processes; see `training.sharding`.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        decay: float,
        sigma_rel: float | None = None,
        twins: Twins | None = None,
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the EMA decay is {decay}; use 0 up to below 1")
        self.decay = decay
        self.gamma = None if sigma_rel is None else power_exponent(sigma_rel)
        self.updates = 0
        self.modules, self.twins = dict(modules), twins
        self.shadow: dict[str, dict[str, Tensor]] = {
            name: {key: value.detach().float().clone() for key, value in trained(module).items()}
            for name, module in self.modules.items()
        }

    def decay_at(self, updates: int) -> float:
        """The weight of the average against the new weights, after `updates` updates."""
        if self.gamma is None:
            return min(self.decay, (1 + updates) / (10 + updates))
        return math.pow(1 - 1 / (updates + 1), self.gamma + 1)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        fresh = 1.0 - self.decay_at(self.updates)
        for name, module in self.modules.items():
            weights = trained(module)
            shadow = [local(self.shadow[name][key]) for key in weights]
            torch._foreach_lerp_(shadow, [local(w.detach()).float() for w in weights.values()], fresh)
        self.updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside the `with`, the modules hold the averaged weights; afterwards their own, bit for bit.

        Of several processes all go through it; where they share the weights, only the first one's modules are whole
        inside.
        """
        if self.twins is not None:
            with self.twins.swapped_in(self.shadow):
                yield
            return
        kept = {
            name: {key: value.detach().clone() for key, value in trained(module).items()}
            for name, module in self.modules.items()
        }
        _copy_into(self.modules, self.shadow)
        try:
            yield
        finally:
            _copy_into(self.modules, kept)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that need a gradient, by name; of names that share one, the first."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds: all of it, where it is not spread over processes."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


@torch.no_grad()
def _copy_into(modules: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, module in modules.items():
        for key, parameter in trained(module).items():
            parameter.copy_(weights[name][key])
