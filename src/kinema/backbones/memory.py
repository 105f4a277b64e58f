"""Where a model's weights lie, and in which types, so that it runs on the machine at hand; docs/memory.md.

What moves and casts them is diffusers' own: group offloading and layerwise casting. They, and moving whole networks,
change the model while it runs, so that its networks then run one at a time: a second thread waits for its turn.
Offloading changes no bit of the result. Layerwise casting rounds weights to float8 (e4m3: 4 significant bits, at most
1/16 off), quantization to what `backbones/quantizing.py` says.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from torch import nn

from kinema.backbones import decoding, quantizing
from kinema.backbones.compiling import check_compiler, compile_blocks
from kinema.backbones.folder import Folder
from kinema.backbones.lora import quiet
from kinema.core.errors import KinemaError
from kinema.request import Placement

NETWORKS = ("transformer", "transformer_2", "unet")  # what predicts
TEXTS = ("text_encoder", "text_encoder_2")  # what reads prompts
REST = torch.device("cpu")  # where weights lie that are not on the device


def check(placement: Placement, device: torch.device) -> None:
    """Raises: KinemaError for what this machine cannot do, before anything is read."""
    if placement.offload in ("model", "group") and device.type in ("cpu", "mps"):
        raise KinemaError(
            f"offload {placement.offload!r} moves weights between main memory and that of a GPU, and device "
            f"{device.type!r} has one memory; use offload 'stream', or leave it out"
        )
    if placement.compile:
        check_compiler()
    if placement.offload == "group" and "int4" in (placement.quantization, placement.text_quantization):
        raise KinemaError("offload 'group' cannot move weights in int4; use int8 or float8, or offload 'model'")
    if placement.quantization or placement.text_quantization:
        quantizing.check_torchao()


@dataclass(frozen=True)
class Placed(Folder):
    """A model folder whose networks are read as a placement wants them: in main memory, or quantized."""

    placement: Placement = field(default_factory=Placement)

    @classmethod
    def of(cls, folder: Folder, placement: Placement) -> Placed:
        """Raises: KinemaError for a model that cannot be quantized."""
        if placement.text_quantization and not any(map(folder.declared, TEXTS)):
            raise KinemaError(f"model {folder.name!r} reads no words; leave text_quantization out")
        if placement.quantization and folder.declared("motion_adapter"):
            raise KinemaError(
                f"the unet of model {folder.name!r} is joined with its motion_adapter after it is read, where nothing "
                "can be quantized any more; leave quantization out, or save the joined model with diffusers"
            )
        return cls(folder.path, folder.name, folder.index, folder.card, placement)

    def module(
        self, part: str, kinds: Any, device: torch.device, dtype: torch.dtype, **options: Any
    ) -> torch.nn.Module:
        placement = self.placement
        if placement.offload or (placement.layerwise_casting and part in NETWORKS):
            device = REST
        wanted = placement.quantization if part in NETWORKS else placement.text_quantization if part in TEXTS else None
        if wanted is None:
            return super().module(part, kinds, device, dtype, **options)
        with quiet():  # diffusers warns of types other than bfloat16, which are no trouble
            made = quantizing.config(kinds[0], wanted)
            return super().module(part, kinds, device, dtype, quantization_config=made, **options)


def place(backbone: Any, placement: Placement, device: torch.device, rest: torch.device = REST) -> None:
    """Puts a model that was read by `Placed` where `placement` says, and notes it in `backbone.placement`.

    device: where networks run. Raises: KinemaError for what this model cannot do.
    """
    networks = parts(backbone)
    if placement.vae_tiling:
        tile(networks["vae"], backbone)
    predicting = {name: network for name, network in networks.items() if name in NETWORKS}
    if placement.layerwise_casting:
        for network in predicting.values():
            cast(network, backbone.dtype)
            network.to(rest if placement.offload else device)
    turns = Turns(Seat(device, rest))
    moved = placement.offload in ("model", "group")
    for name, network in networks.items() if moved else ():
        if placement.offload == "model" or name not in (*NETWORKS, *TEXTS):  # the others are small
            turns.seat.offer(network, by_itself=name not in NETWORKS)
        else:
            by_groups(network, device, rest, "block_level" if name in NETWORKS else "leaf_level")
    if moved or placement.layerwise_casting:  # a stream waits for itself
        backbone._coding = turns
        for network in predicting.values():
            one_by_one(network, turns)
    if placement.compile:
        compile_blocks(backbone, list(predicting.values()))
    backbone.placement = placement


def parts(backbone: Any) -> dict[str, nn.Module]:
    """All networks of a model, most by the names of their folders."""
    pipeline = getattr(backbone, "pipeline", None)
    found = {**(pipeline.components if pipeline is not None else {}), **vars(backbone)}
    return {name: network for name, network in found.items() if isinstance(network, nn.Module)}


def tile(vae: Any, backbone: Any) -> None:
    """Has the autoencoder work tile by tile, and clip by clip. Raises: KinemaError where it has no tiles."""
    if decoding.tile_in_time(vae):
        return
    if not hasattr(vae, "use_tiling"):
        raise KinemaError(
            f"the autoencoder of model {backbone.name!r}, {type(vae).__name__}, has no tiles; leave vae_tiling out"
        )
    vae.enable_tiling()
    if hasattr(vae, "use_slicing"):
        vae.enable_slicing()


def cast(network: Any, dtype: torch.dtype) -> None:
    """Keeps the weights in float8 and casts those of a layer while it runs; those of a LoRA stay as they are."""
    patterns = (*quantizing.skipped(type(network)), "lora_")
    network.enable_layerwise_casting(torch.float8_e4m3fn, dtype, skip_modules_pattern=patterns)


def by_groups(network: nn.Module, device: torch.device, rest: torch.device, level: str, **more: Any) -> None:
    """Has the blocks of a network, or its single layers ("leaf_level"), come to the device only while they run.

    On cuda the next group comes while one computes, from pinned memory.
    """
    ahead = device.type == "cuda"
    apply_group_offloading(
        network, device, rest, level, num_blocks_per_group=1, use_stream=ahead, non_blocking=ahead, **more
    )


class Seat:
    """The device, on which one of the networks that were offered it sits at a time; the others rest."""

    def __init__(self, device: torch.device, rest: torch.device) -> None:
        self.device, self.rest = device, rest
        self.holder: nn.Module | None = None
        self._offered: list[nn.Module] = []

    def offer(self, network: nn.Module, by_itself: bool) -> None:
        """by_itself: it sits down when it, or one of its children as in `vae.decode`, is called."""
        network.to(self.rest)
        self._offered.append(network)
        for module in (network, *network.children()) if by_itself else ():
            module.register_forward_pre_hook(lambda module, arguments: self.take(network))

    def take(self, network: nn.Module) -> None:
        """Has a network sit down, if it was offered the seat."""
        if self.holder is not network and any(network is one for one in self._offered):
            self.leave()
            self.holder = network.to(self.device)

    def leave(self) -> None:
        if self.holder is not None:
            self.holder.to(self.rest)
            self.holder = None


class Turns:
    """Held while text, pictures or pixels are coded, by one thread at a time; at the end the device is free again."""

    def __init__(self, seat: Seat) -> None:
        self.seat, self.lock = seat, threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self.lock.acquire()
        self._depth += 1

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self.seat.leave()
        self.lock.release()


def one_by_one(network: nn.Module, turns: Turns, owner: nn.Module | None = None) -> None:
    """Has calls of a network, whose weights move or change while it runs, wait for each other.

    owner: the network whose weights they are, where `network` is its twin. After an error no group is left on the
    device.
    """
    inner, own = network.forward, vars(network).get("forward")
    owner = owner or network

    @functools.wraps(inner)
    def forward(*args: Any, **named: Any) -> Any:
        with turns.lock:
            turns.seat.take(owner)
            try:
                return inner(*args, **named)
            except BaseException:
                _rest(owner)
                raise

    around: Any = forward
    around.inner, around.put_on = own, functools.partial(one_by_one, turns=turns, owner=owner)  # see twins.py
    network.forward = around


def _rest(network: nn.Module) -> None:
    """Sends back the groups that an error left on the device."""
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry and registry.get_hook("group_offloading")
        if hook is not None:
            hook.group.offload_()


def held(network: nn.Module) -> Mapping[str, int]:
    """Bytes of a network's weights and buffers by the kind of device they are on."""
    found: dict[str, int] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        found[tensor.device.type] = found.get(tensor.device.type, 0) + quantizing.nbytes(tensor)
    return found
