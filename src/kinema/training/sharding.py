"""Weights spread over processes: each holds a part of every weight, its gradient, its average, its optimizer state.

FSDP2, by torch's `fully_shard`: Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", 2023,
arXiv:2304.11277. Each block of a network gathers its weights when it is called and lets go of them afterwards; what
stands in no block is gathered for the whole of the loss. Called directly and not through accelerate, which spreads one
model with one optimizer only, and none on CPUs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kinema.training.ema import local


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost elements of the lists of blocks inside `module` that have weights."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if next(block.parameters(), None) is not None)
        else:
            yield from blocks(child)


def shard(module: nn.Module, device: torch.device) -> None:
    """Spread the weights of `module` over all processes, in place; those of the first process count.

    A block is moved to the device and shared before the next one is, so that the whole need not fit there.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with torch.no_grad():
        for tensor in chain(module.parameters(), module.buffers()):
            told = tensor.to(device)
            dist.broadcast(told, 0)
            tensor.copy_(told)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor; every process has to ask, where it is spread over them."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


@torch.no_grad()
def put(target: Tensor, whole: Tensor) -> None:
    """Copy the values of `whole` into `target`, which may be spread over processes: then every one has to do it."""
    local(target).copy_(local(spread_like(target, whole)))


def spread_like(target: Tensor, whole: Tensor) -> Tensor:
    """`whole`, spread over the processes, or laid in memory, as `target` of the same shape is.

    A fused optimizer goes through weights and what it keeps of them in the order of memory.
    """
    if not hasattr(target, "full_tensor"):
        return torch.empty_like(target, dtype=whole.dtype).copy_(whole)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    return distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)


class Twins:
    """Whole twins of modules that are about to be spread, for the time in which they are looked at.

    What is spread cannot be copied, saved, or called by one process alone. So each module gets a twin without
    values; to look at them, the first process fills the twins and lets the modules have their insides.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device) -> None:
        self.modules, self.device = dict(modules), device
        self.empty = {name: _with_parameters(m, _without_values(m)) for name, m in self.modules.items()}

    @contextmanager
    def swapped_in(self, averaged: Mapping[str, Mapping[str, Tensor]]) -> Iterator[None]:
        """Inside the `with`, the first process's modules are whole, with the averaged weights where there are any."""
        twins = {name: self._filled(name, averaged[name]) for name in self.modules}
        kept = {name: module.__dict__ for name, module in self.modules.items()}
        if dist.get_rank() == 0:
            for name, module in self.modules.items():
                module.__dict__ = twins[name].__dict__
        try:
            yield
        finally:
            for name, module in self.modules.items():
                module.__dict__ = kept[name]

    @torch.no_grad()
    def _filled(self, name: str, averaged: Mapping[str, Tensor]) -> nn.Module:
        """The twin of a module with its present values; without values in all processes but the first."""
        module, empty, first = self.modules[name], self.empty[name], dist.get_rank() == 0
        values = {}
        for key, parameter in module.named_parameters():
            whole = gathered(averaged.get(key, parameter.detach())).to(parameter.dtype)
            if first:
                values[key] = nn.Parameter(whole, parameter.requires_grad)
        if not first:
            return empty
        twin = _with_parameters(empty, values).to(self.device)
        for own, present in zip(twin.buffers(), module.buffers(), strict=True):
            own.copy_(present)
        return twin


def _without_values(module: nn.Module) -> dict[str, nn.Parameter]:
    return {k: nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for k, p in module.named_parameters()}


def _with_parameters(module: nn.Module, values: Mapping[str, nn.Parameter]) -> nn.Module:
    """A copy of a module with other parameters; those that stood in two places stand in two places again."""
    # deepcopy takes what its memo names instead of copying it. A compiled call cannot be copied.
    memo: dict[int, Any] = {id(m._compiled_call_impl): None for m in module.modules()}
    return copy.deepcopy(module, memo | {id(p): values[key] for key, p in module.named_parameters()})
