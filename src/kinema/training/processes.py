"""The processes of one training, which torchrun or `accelerate launch` starts; accelerate lets them meet.

Each trains on its share of every micro-batch: clips rank, rank + count, ... of it. The gradients are averaged, so that
all of them together do what one process does with the whole micro-batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

from kinema.core.errors import KinemaError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)  # of the others, while the first process renders clips, draws samples or evaluates


@dataclass(frozen=True)
class Processes:
    """All processes of a training, seen from this one. One alone has nobody to meet, and all this does nothing."""

    rank: int
    count: int
    device: torch.device  # of this process

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What all processes have, in their order."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        found: list[T] = gather_object([value])
        return found

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            _state(self.device).wait_for_everyone()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process go through the `with` alone, and then the others, who find what it made."""
        if self.count == 1:
            yield
            return
        with _state(self.device).main_process_first():
            yield

    def share(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """This process's part of a micro-batch: of its lists and of what has axes, the first of which is the clips.

        Everything else, a number or a tuple for example, is the same for all.
        Raises: KinemaError when the clips cannot be shared evenly.
        """
        if self.count == 1:
            return dict(batch)
        shared = {key for key, value in batch.items() if isinstance(value, list) or getattr(value, "ndim", False)}
        sizes = sorted({len(batch[key]) for key in shared})
        if len(sizes) != 1 or sizes[0] % self.count:
            raise KinemaError(
                f"{self.count} processes cannot share a micro-batch of {' and '.join(map(str, sizes)) or 'no'} clips "
                f"evenly; use a multiple of {self.count} for batch_size"
            )
        return {k: v[self.rank :: self.count] if k in shared else v for k, v in batch.items()}


def join(device: torch.device | str) -> Processes:
    """Meets the other processes, where some were started with this one; from then on "cuda" is this one's own GPU.

    Raises: KinemaError when the device is no kind of which each process can have its own.
    """
    device = torch.device(device)
    rank, count = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if not (rank.isdigit() and count.isdigit() and int(count) > 1):
        return Processes(0, 1, device)
    if device.type not in ("cuda", "cpu") or str(device.index) not in ("None", os.environ.get("LOCAL_RANK")):
        raise KinemaError(f"device is {str(device)!r}, and every process takes one of its own; use cuda or cpu")
    state = _state(device)
    return Processes(state.process_index, state.num_processes, state.device)


def _state(device: torch.device) -> Any:
    """accelerate's view of the processes, of which there is one; the first call makes the group."""
    from accelerate import PartialState

    cpu = device.type == "cpu"
    return PartialState(cpu=cpu, backend="gloo" if cpu else "nccl", timeout=PATIENCE)
