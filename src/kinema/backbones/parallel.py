"""One video on several devices: each process holds a part of its tokens, and self-attention exchanges them.

Before self-attention a process gives its tokens away and gets all tokens of some of the heads, and afterwards the other
way round; by diffusers' context parallel hooks. Everything else is done by all processes alike, from the same seed.
Jacobs et al., "DeepSpeed Ulysses: System Optimizations for Enabling Training of Extreme Long Sequence Transformer
Models", 2023, arXiv:2309.14509. Departures from diffusers' plans for its networks: text stays whole, because the mask
that LTX-Video has for it holds a row for each head; a time per token is split as the tokens are, which the plan of
LTX-Video leaves out.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.request import Request

INSIDE = frozenset({"attend", "positions", "context", "tokens", "skip", "cache"})  # hooks that would see a part only
START = "torchrun --nproc-per-node 2 -m kinema generate ..."
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


def join(device: torch.device) -> torch.device:
    """Meets the other processes that torchrun started; gives this one's device.

    Raises: KinemaError when this process is alone, or the device is no kind of which each process can have its own.
    """
    if device.type not in BACKENDS or device.index is not None:
        raise KinemaError(f"device is {str(device)!r}, and every process takes one of its own; use cuda or cpu")
    if (dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))) < 2:
        raise KinemaError(f"context_parallel wants several processes and this is the only one; start them with {START}")
    if device.type == "cuda":
        device = _own_gpu()
    if not dist.is_initialized():
        dist.init_process_group(BACKENDS[device.type])
    return device


def leave() -> None:
    """Says goodbye to the other processes, when all is done."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def agreed(number: int, device: torch.device) -> int:
    """The number that the first process has."""
    told = torch.tensor(number, dtype=torch.int64, device=device)
    dist.broadcast(told, 0)
    return int(told)


def spread(backbone: Any) -> None:
    """Shares the tokens of a loaded model among the processes.

    Raises: KinemaError when its family cannot, or its heads cannot be shared evenly.
    """
    from diffusers.hooks.context_parallel import apply_context_parallel
    from diffusers.models import _modeling_parallel as theirs
    from torch.distributed.device_mesh import init_device_mesh

    found = (getattr(backbone, name, None) for name in ("transformer", "transformer_2"))
    networks = [network for network in found if network is not None]
    if not backbone.context_parallel or any(network._cp_plan is None for network in networks):
        raise KinemaError(f"model {backbone.name!r} makes its video on one device only; leave context_parallel out")
    count, own = dist.get_world_size(), [(s, attn) for s, attn in backbone.attentions() if s.kind == "self"]
    heads = own[0][0].heads
    if heads % count:
        near = ", ".join(str(n) for n in range(2, heads + 1) if heads % n == 0)
        raise KinemaError(
            f"{count} processes cannot share the {heads} heads of model {backbone.name!r} evenly; use {near}"
        )
    # Not `enable_parallelism`, which divides by the number of accelerators, and a machine may have none.
    mesh = init_device_mesh(backbone.device.type, (1, count), mesh_dim_names=("ring", "ulysses"))
    ulysses = theirs.ContextParallelConfig(ulysses_degree=count, mesh=mesh)
    config = theirs.ParallelConfig(context_parallel_config=ulysses)
    config.setup(dist.get_rank(), count, backbone.device, mesh=mesh)
    for _, attn in own:
        attn.processor._parallel_config = config
    for network in networks:
        apply_context_parallel(network, ulysses, _plan(network))
        network._parallel_config = config
    backbone.hooks = backbone.hooks - INSIDE
    backbone._alone = threading.Lock()


def check(backbone: Any, requests: Sequence[Request], shape: Sequence[int]) -> None:
    """Whether all processes are about to make the same batch, of latents (B, C, T, H, W), and can share its tokens.

    Raises: KinemaError.
    """
    if any(request.seed is None for request in requests):
        raise KinemaError("seed is None, and every process would draw its own; give one")
    digest = hashlib.sha256("".join(request.model_dump_json() for request in requests).encode()).digest()
    mine = torch.tensor(list(digest), device=backbone.device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    if not all(torch.equal(other, mine) for other in everyone):
        raise KinemaError("the processes were given different requests; give all of them the same one")
    _check_share(backbone, shape, dist.get_world_size())


@contextmanager
def alone(backbone: Any) -> Iterator[None]:
    """While a run is open no other may begin: the exchanges of two would mix. Raises: KinemaError for the second."""
    if not backbone._alone.acquire(blocking=False):
        raise KinemaError(f"model {backbone.name!r} is spread over several devices and makes one video at a time")
    try:
        yield
    finally:
        backbone._alone.release()


def _own_gpu() -> torch.device:
    number, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= there:
        raise KinemaError(f"every process takes a GPU of its own and {there} are here; start as many processes")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _plan(network: Any) -> dict[str, Any]:
    """What is split at which module of a network, and where it comes together again."""
    from diffusers.models._modeling_parallel import ContextParallelInput

    plan = dict(network._cp_plan)
    entrance = {name: how for name, how in plan.get("", {}).items() if not name.startswith("encoder_")}
    return plan | {"": {"timestep": ContextParallelInput(split_dim=1, expected_dims=2), **entrance}}


def _check_share(backbone: Any, shape: Sequence[int], count: int) -> None:
    """Raises: KinemaError with the nearest sizes, when `count` processes cannot share the tokens evenly."""
    counts = [n // p for n, p in zip(shape[-3:], backbone.patch, strict=True)]  # tokens along frames, rows, columns
    tokens = math.prod(counts)
    if tokens % count == 0:
        return
    ways = []
    for axis, name in enumerate(("num_frames", "height", "width")):
        step = count // math.gcd(count, tokens // counts[axis])
        below = counts[axis] // step * step
        values = [str(_extent(backbone, axis, n)) for n in (below, below + step) if n > 0]
        ways.append(f"{name} {' or '.join(values)}")
    near = f"{', '.join(ways[:2])}, or {ways[2]}"
    raise KinemaError(f"{count} processes cannot share the {tokens} tokens of this video evenly; use {near}")


def _extent(backbone: Any, axis: int, tokens: int) -> int:
    """Frames, or pixels along rows or columns, that make so many tokens."""
    cells: int = tokens * backbone.patch[axis]
    return int((cells - 1) * backbone.frames_per_latent + 1 if axis == 0 else cells * backbone.pixels_per_cell)
