"""Streaming: a model larger than memory runs, because the weights of a block are read while the one before computes.

Kim et al., "On-device Sora: Enabling Training-Free Diffusion-based Text-to-Video Generation for Mobile Devices", 2025,
arXiv:2502.04363, section "concurrent inference with dynamic loading". Deviations: no block is kept for the next call,
whatever memory there is; the text encoders are read the same way; weights are read straight from the safetensors files
into two slots of memory, not from files of their own.

While a network is at work two of its blocks are in memory, one that computes and one that is being read, and what
stands outside its lists of blocks (embeddings, norms, the last layer); afterwards the latter only. The result is that
of the loaded model, bit for bit. diffusers' group offloading to disk has the whole model in memory first, and
accelerate's disk offload reads nothing ahead.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from kinema.backbones.blank import build
from kinema.backbones.folder import Folder
from kinema.backbones.shards import ALIGNMENT, Stored, stored
from kinema.core.errors import KinemaError


@dataclass(frozen=True)
class Streamed(Folder):
    """A model folder whose networks hold their blocks only while they compute; autoencoders are read as ever."""

    stream: Stream = field(default_factory=lambda: Stream())

    @classmethod
    def of(cls, folder: Folder) -> Streamed:
        """Raises: KinemaError for a model that is no row of blocks."""
        if folder.declared("unet"):
            raise KinemaError(
                f"model {folder.name!r} has a UNet, and offload 'stream' needs a transformer; "
                "use offload 'model' on a GPU, and none elsewhere"
            )
        return cls(folder.path, folder.name, folder.index, folder.card)

    def module(
        self, part: str, kinds: Sequence[type], device: torch.device, dtype: torch.dtype, **options: Any
    ) -> nn.Module:
        if part in ("vae", "audio_vae"):
            return super().module(part, kinds, device, dtype)
        network = build(self, part, kinds, dtype)
        files = _named(stored(self.path / part), network)
        _check(files, network, f"{part} of model {self.name!r}")
        blocks = [Block(module, name, files, device) for name, module in blocks_of(network)]
        self.stream.kept += _fill(network, blocks, files, device)
        for block in blocks:
            HookRegistry.check_if_exists_or_initialize(block.module).register_hook(_Lent(self.stream, block), "stream")
        if blocks:
            whole = _Open(self.stream, blocks, device)
            HookRegistry.check_if_exists_or_initialize(network).register_hook(whole, "stream")
        return network


def blocks_of(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks of a network with their names: the items of its outermost lists that hold modules of one class.

    What is never called, because it only holds other modules, is no block.
    """
    found: list[tuple[str, nn.Module]] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{block}.") for block, _ in found)
        if not isinstance(module, nn.ModuleList) or inside or len({type(item) for item in module}) != 1:
            continue
        if type(module[0]).forward is not nn.Module.forward:
            found += [(f"{name}.{i}", item) for i, item in enumerate(module) if any(True for _ in item.parameters())]
    return found


class Block:
    """One block: which of its weights lie where, in the files and in a slot."""

    def __init__(self, module: nn.Module, name: str, files: dict[str, Stored], device: torch.device) -> None:
        self.module = module
        self.weights: list[tuple[nn.Module, str, nn.Parameter, Stored, int]] = []
        self.size = 0  # bytes in a slot
        found = [
            (files[f"{name}.{path}.{leaf}" if path else f"{name}.{leaf}"], owner, leaf, weight)
            for path, owner in module.named_modules()
            for leaf, weight in owner.named_parameters(recurse=False)
        ]
        for place, owner, leaf, weight in sorted(found, key=lambda entry: (str(entry[0].file), entry[0].start)):
            start = self.size + place.phase(weight.dtype, device)
            self.weights.append((owner, leaf, weight, place, start))
            end = start + weight.numel() * weight.element_size()
            self.size = -(-end // ALIGNMENT) * ALIGNMENT

    def views(self, memory: Tensor) -> Iterator[tuple[nn.Module, str, Tensor, Stored]]:
        """Its weights as views of a slot."""
        for owner, leaf, weight, place, start in self.weights:
            size = weight.numel() * weight.element_size()
            yield owner, leaf, memory[start : start + size].view(weight.dtype).view(weight.shape), place

    @contextmanager
    def filled(self, memory: Tensor) -> Iterator[None]:
        """Has the weights that a slot holds, and gives them back."""
        try:
            for owner, leaf, view, _ in self.views(memory):
                owner._parameters[leaf] = nn.Parameter(view, requires_grad=False)
            yield
        finally:
            for owner, leaf, weight, _, _ in self.weights:
                owner._parameters[leaf] = weight


class Stream:
    """Lends weights to the blocks of one model: one forward of one network at a time, the others wait."""

    def __init__(self) -> None:
        self.kept = 0  # bytes of weights that stay in memory, without the autoencoder's
        self.most = 0  # bytes lent to blocks at one time, at most
        self._turn = threading.RLock()
        self._reading: Reading | None = None
        self._next: dict[Block, Block] = {}  # what followed each block when it ran last

    def expect(self, blocks: Sequence[Block]) -> None:
        """Says in which order blocks will probably run, before anything has run."""
        self._next.update(pairwise(blocks))

    @contextmanager
    def forward(self, blocks: Sequence[Block], device: torch.device) -> Iterator[None]:
        """Around one forward of a network."""
        with self._turn, Reading(blocks, device) as reading:
            self._reading = reading
            try:
                yield
            finally:
                self.most = max(self.most, reading.held)
                self._reading = None

    @contextmanager
    def lent(self, block: Block) -> Iterator[None]:
        """Around the forward of one block: it has its weights, and the next one's are being read."""
        reading = self._reading
        if reading is None:
            raise KinemaError("a block of a streamed model was called outside its network; load without offload")
        memory = reading.take(block)
        if reading.last is not None:
            self._next[reading.last] = block
        reading.last = block
        if block in self._next:
            reading.begin(self._next[block])
        with block.filled(memory):
            yield
        reading.leave(memory)


class Reading:
    """One forward: a block computes in one of two slots, while a thread reads the next one into the other."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        size = max(block.size for block in blocks)
        self.slots = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self.held = 2 * size
        self.device = device
        self.last: Block | None = None
        self._ahead: tuple[Block, Future[None]] | None = None
        self._files: dict[Path, FileIO] = {}
        self._staging = torch.empty(0, dtype=torch.uint8)
        cuda = device.type == "cuda"
        self._side = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        if self._side is not None:  # memory that is given out again may still be in use there
            self._side.wait_stream(torch.cuda.current_stream(device))
        self._done: list[Any] = [torch.Event(device) if cuda else None for _ in range(2)]
        self._exit = ExitStack()
        self._thread = self._exit.enter_context(ThreadPoolExecutor(1, "kinema-stream"))
        self.begin(blocks[0])

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *error: Any) -> None:
        self._exit.close()  # waits for the thread
        for file in self._files.values():
            file.close()

    def begin(self, block: Block) -> None:
        """Starts reading a block into the slot that is free."""
        self._ahead = block, self._thread.submit(self._read, block, self.slots[0], self._done[0])

    def take(self, block: Block) -> Tensor:
        """The slot with the weights of a block, which is no longer free."""
        if self._ahead is None or self._ahead[0] is not block:
            if self._ahead is not None:
                self._ahead[1].result()  # another one was expected; it is still being read into the slot
            self.begin(block)
        assert self._ahead is not None
        self._ahead[1].result()
        self._ahead = None
        self.slots.reverse()
        self._done.reverse()
        return self.slots[1]

    def leave(self, memory: Tensor) -> None:
        """Says that the slot of the last block may be written to, once what was started on it is done."""
        event = self._done[1]
        if event is not None:
            event.record()

    def _read(self, block: Block, memory: Tensor, done: Any) -> None:
        if done is not None:
            done.synchronize()
        with torch.inference_mode(), nullcontext() if self._side is None else torch.cuda.stream(self._side):
            for _, _, view, place in block.views(memory):
                direct = self.device.type == "cpu" and view.dtype == place.dtype
                if direct:
                    place.read(self._opened(place.file), view.view(-1).view(torch.uint8))
                else:
                    view.copy_(place.read(self._opened(place.file), self._stage(place.size)))

    def _opened(self, file: Path) -> FileIO:
        if file not in self._files:
            self._files[file] = file.open("rb", buffering=0)
        return self._files[file]

    def _stage(self, size: int) -> Tensor:
        """Memory of the host for a tensor that changes its type or its device on the way."""
        if len(self._staging) < size:
            self.held += size - len(self._staging)
            self._staging = torch.empty(size, dtype=torch.uint8, pin_memory=self._side is not None)
        return self._staging


class _Open(ModelHook):
    """Around a network."""

    def __init__(self, stream: Stream, blocks: Sequence[Block], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stream, self.blocks, self.device = stream, blocks, device
        stream.expect(blocks)

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with self.stream.forward(self.blocks, self.device):
            return self.fn_ref.original_forward(*args, **kwargs)  # type: ignore[misc]


class _Lent(ModelHook):
    """Around a block. Hooks of techniques that skip a block lie around this one, so that it is not read in vain."""

    def __init__(self, stream: Stream, block: Block) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stream, self.block = stream, block

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with self.stream.lent(self.block):
            return self.fn_ref.original_forward(*args, **kwargs)  # type: ignore[misc]


def _named(files: dict[str, Stored], network: Any) -> dict[str, Stored]:
    """The tensors by their names in the network, which for transformers may differ from those in older files."""
    if hasattr(network, "load_config"):
        return files
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(network)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    state, prefix = network.state_dict(), network.base_model_prefix
    return {rename_source_key(name, renamings, [], prefix, state)[0]: place for name, place in files.items()}


def _check(files: dict[str, Stored], network: nn.Module, what: str) -> None:
    """Enters tied weights under all of their names. Raises: KinemaError when weights are missing or of another size."""
    names: dict[int, list[str]] = {}
    tensors = network.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    for same in names.values():
        there = next((files[name] for name in same if name in files), None)
        if there is not None:
            files.update(dict.fromkeys(same, there))
    missing = sorted(name for name in tensors if name not in files)
    mismatched = sorted(name for name, t in tensors.items() if name in files and files[name].shape != tuple(t.shape))
    for trouble, found in (("missing", missing), ("mismatched", mismatched)):
        if found:
            raise KinemaError(f"{what} has {len(found)} {trouble} weights, first {found[0]}")


def _fill(network: nn.Module, blocks: Sequence[Block], files: dict[str, Stored], device: torch.device) -> int:
    """Reads what stands outside the blocks, and puts it and all buffers on the device; gives its bytes."""
    lent = {id(weight) for block in blocks for _, _, weight, _, _ in block.weights}
    made: dict[int, tuple[Tensor, Tensor]] = {}  # the tensor itself too, because ids of what is gone come again
    with torch.no_grad():
        for path, owner in network.named_modules():
            for table in (owner._parameters, owner._buffers):
                for leaf, tensor in list(table.items()):
                    if tensor is None or id(tensor) in lent:
                        continue
                    if id(tensor) not in made:
                        place = files.get(f"{path}.{leaf}" if path else leaf)
                        made[id(tensor)] = tensor, _loaded(tensor, place, device)
                    table[leaf] = made[id(tensor)][1]
    return sum(tensor.numel() * tensor.element_size() for _, tensor in made.values())


def _loaded(tensor: Tensor, place: Stored | None, device: torch.device) -> Tensor:
    """A parameter or buffer from its file; what is in no file is what the class made it."""
    value = tensor
    if place is not None:
        with place.file.open("rb", buffering=0) as opened:
            phase = place.phase(tensor.dtype, device)
            value = place.read(opened, torch.empty(phase + place.size, dtype=torch.uint8)[phase:])
        value = value.to(tensor.dtype)
    if value.is_meta:
        raise KinemaError("a buffer of the network is in no file and was not made; offload 'stream' cannot run it")
    value = value.to(device)
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
