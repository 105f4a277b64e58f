"""How several processes share the weights of a training: each has all of them, or a part of each.

"data" is torch's DistributedDataParallel: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel
Training", 2020, arXiv:2006.15704. "fsdp" is FSDP2, see `training.sharding`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kinema.training.processes import Processes
from kinema.training.sharding import Twins, shard

Loss = Callable[[Mapping[str, Any], torch.Generator], tuple[Tensor, dict[str, float | Tensor]]]


class Whole(nn.Module):
    """All that is trained as one network, whose output is the loss: what the wrappers of torch take."""

    def __init__(self, modules: Mapping[str, nn.Module], loss: Loss) -> None:
        super().__init__()
        for i, module in enumerate(modules.values()):
            self.add_module(f"part{i}", module)
        self.loss = loss

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        return self.loss(batch, generator)


@dataclass(frozen=True)
class Shared:
    """Modules that all processes train together."""

    loss: Loss  # as the stage's; its gradients become the mean over the processes
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext  # inside, gradients may stay this process's own
    twins: Twins | None = None  # to look at the modules, where each process has a part of each weight


def share(modules: Mapping[str, nn.Module], loss: Loss, processes: Processes, how: Literal["data", "fsdp"]) -> Shared:
    """Put the modules on the devices of all processes, in place; the weights of the first process count."""
    if processes.count == 1:
        for module in modules.values():
            module.to(processes.device)
        return Shared(loss)
    whole = Whole(modules, loss)
    if how == "fsdp":
        twins = Twins(modules, processes.device)
        shard(whole, processes.device)
        return Shared(whole, twins=twins)
    whole.to(processes.device)
    # A micro-batch of images leaves temporal layers without a gradient, which must be looked for.
    wrapped = nn.parallel.DistributedDataParallel(whole, find_unused_parameters=True)
    return Shared(wrapped, wrapped.no_sync)
