"""What the switches of a placement make of a model's weights, counted on networks without weights; docs/memory.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from kinema.backbones import quantizing
from kinema.backbones.memory import NETWORKS, TEXTS
from kinema.request import Placement

if TYPE_CHECKING:
    from kinema.backbones.plan import Plan, Planner


@dataclass(frozen=True)
class Fit:
    """A placement and what it would need, bytes."""

    placement: Placement
    weights: int  # most weights on the device at one time; exact
    most: int  # with what is held beside them; an estimate

    @property
    def switches(self) -> str:
        """As on the command line."""
        given = {name.replace("_", "-"): value for name, value in self.placement.switches().items() if value}
        return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in given.items())


def candidates(device: torch.device, has_unet: bool, reads_text: bool, joined: bool) -> Iterator[Placement]:
    """Placements worth a look, from those that change nothing to those that change most.

    has_unet: it cannot be streamed. joined: of two parts, it cannot be quantized.
    """
    if device.type == "cuda":
        yield Placement(offload="model")
        yield Placement(offload="group")
    if not has_unet:
        yield Placement(offload="stream")
    for kind in ("int8", "float8", "int4") if not joined else ():
        yield Placement(quantization=kind)
        if reads_text:
            yield Placement(quantization=kind, text_quantization=kind)
        if device.type == "cuda":
            yield Placement(offload="model", quantization=kind, text_quantization=kind if reads_text else None)
    yield Placement(layerwise_casting=True)


def fits(planner: Planner, plan: Plan) -> list[Fit]:
    """What each placement would need for a plan; where decoding needs most, with tiles too."""
    networks = planner.networks
    texts = any(name in networks for name in TEXTS)
    found: list[Fit] = []
    for placement in candidates(planner.device, "unet" in networks, texts, "motion_adapter" in planner.blank.made):
        weights = on_device(networks, placement)
        for tiled in (False, True) if hasattr(networks["vae"], "use_tiling") else (False,):
            beside = dict.fromkeys(NETWORKS, plan.activations) | {"vae": planner.decoding(plan, tiled)}
            most = max(size + beside.get(name, 0) for name, size in weights.items())
            if not found or not tiled or most < found[-1].most:
                chosen = placement.model_copy(update={"vae_tiling": tiled})
                found.append(Fit(chosen, max(weights.values()), most))
    return found


def on_device(networks: Mapping[str, nn.Module], placement: Placement) -> dict[str, int]:
    """Bytes of weights that are on the device while each network runs."""
    sizes: dict[int, int] = {}
    for name, network in networks.items():
        sizes |= stored(name, network, placement)

    def weigh(*modules: nn.Module) -> int:
        return sum(sizes[key] for key in {id(t) for m in modules for t in (*m.parameters(), *m.buffers())})

    def some(network: nn.Module, groups: list[nn.Module]) -> tuple[int, int]:
        """What stays, and the two largest groups: one that runs and one that comes."""
        apart = {frozenset(map(id, group.parameters())): group for group in groups}  # tied weights come once
        return weigh(network) - weigh(*groups), sum(sorted(map(weigh, apart.values()))[-2:])

    if placement.offload == "model":
        return {name: weigh(network) for name, network in networks.items()}
    if placement.offload == "group":
        return {name: sum(some(network, groups(name, network))) for name, network in networks.items()}
    if placement.offload == "stream":
        from kinema.backbones.streaming import blocks_of

        streamed = {
            name: some(network, [] if name.endswith("vae") else [block for _, block in blocks_of(network)])
            for name, network in networks.items()
        }
        kept = sum(stays for stays, _ in streamed.values())
        return {name: kept + comes for name, (_, comes) in streamed.items()}
    return dict.fromkeys(networks, weigh(*networks.values()))


def groups(name: str, network: nn.Module) -> list[nn.Module]:
    """What group offloading moves together: blocks of a network that predicts, layers of one that reads text."""
    from diffusers.hooks._common import _GO_LC_SUPPORTED_PYTORCH_LAYERS as LAYERS

    if name in NETWORKS:
        lists = [child for child in network.children() if isinstance(child, nn.ModuleList | nn.Sequential)]
        return [item for items in lists for item in items]
    return [layer for layer in network.modules() if isinstance(layer, LAYERS)] if name in TEXTS else []


def stored(name: str, network: nn.Module, placement: Placement) -> dict[int, int]:
    """Bytes of each tensor of a network, by its id, in the types in which it is kept."""
    sizes = {id(t): t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers())}
    kind = placement.quantization if name in NETWORKS else placement.text_quantization if name in TEXTS else None
    if kind is not None:
        sizes |= {id(layer.weight): quantizing.packed(layer.weight, kind) for layer in quantizing.layers(network)}
    if placement.layerwise_casting and name in NETWORKS:
        sizes |= {id(t): t.numel() for layer in quantizing.cast_layers(network) for t in layer.parameters()}
    return sizes
