"""LoRA in the networks of a model that trains it: put in, saved, taken out.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685: a layer W becomes
W + alpha / rank * B A, of which only A and B learn; B begins as zero, so that the model begins as it was. The file is
laid out as diffusers' training scripts write it, with what peft must know of it in its header.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.backbones.lora import FILE, check_peft, quiet, takers
from kinema.core.errors import KinemaError
from kinema.files import make_folder, replacing

NAME = "kinema"  # of the adapter among those of a network
# The projections of attention, under the names that all of diffusers' video networks give them, and which its training
# scripts for CogVideoX, and finetrainers for Wan, HunyuanVideo, LTX and Mochi, take.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, kw_only=True)
class LoraLayersSettings:
    """Size and place of a LoRA."""

    rank: int = 16
    alpha: float | None = None  # the update counts alpha / rank times; None: once
    dropout: float = 0.0  # share of the inputs of A that are left out in training, 0..1
    targets: tuple[str, ...] = ATTENTION  # ends of the names of the layers that get one
    gradient_checkpointing: bool = False  # blocks are computed twice and kept once: less memory, a third more time

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}; use 1 or more")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}; use more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; use 0 up to below 1")
        if not self.targets:
            raise ValueError("a LoRA without targets changes nothing; name the ends of some layers")


class LoraLayers:
    """A LoRA in all networks of a model that predict; both of them where noise levels have experts of their own.

    The model's own weights are frozen. On leaving a `with` it is taken out again, and the model is as it was.
    Raises: KinemaError where peft is missing, or the model takes no LoRA or has no such layers.
    """

    def __init__(self, backbone: Any, settings: LoraLayersSettings, seed: int = 0) -> None:
        check_peft()
        import peft

        if backbone.lora:
            raise KinemaError(f"model {backbone.name!r} has a LoRA in it; load it without, and train that")
        self.backbone, self.settings = backbone, settings
        check_targets(backbone, settings)
        self.networks: Mapping[str, Any] = takers(backbone)
        self.config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank if settings.alpha is None else settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
            init_lora_weights=True,
        )
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            for network in self.networks.values():
                network.requires_grad_(False).add_adapter(self.config, NAME)
                for parameter in learned(network):
                    parameter.data = parameter.data.float()
                if settings.gradient_checkpointing:
                    network.enable_gradient_checkpointing()

    def __enter__(self) -> LoraLayers:
        return self

    def __exit__(self, *error: Any) -> None:
        self.take_out()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks by their names in the model's folder; only the adapter's parameters need a gradient."""
        return dict(self.networks)

    @property
    def size(self) -> int:
        """Numbers that learn."""
        return sum(p.numel() for network in self.networks.values() for p in learned(network))

    def take_out(self) -> None:
        """The model is as it was before."""
        for network in self.networks.values():
            network.unload_lora()
            if self.settings.gradient_checkpointing:
                network.disable_gradient_checkpointing()
            network.eval().requires_grad_(False)

    def save(self, folder: Path, card: Mapping[str, Any] | None = None) -> Path:
        """Writes the weights as they are into a folder, in one rename; gives the file.

        card: what a person may want to know of it; kept in the header under "kinema".
        """
        import peft
        from safetensors.torch import save_file

        config: Any = self.config  # peft is not fully typed
        tensors: dict[str, Tensor] = {}
        told: dict[str, Any] = {}
        for part, network in self.networks.items():
            for name, tensor in peft.get_peft_model_state_dict(network, adapter_name=NAME).items():
                tensors[f"{part}.{name}"] = tensor.detach().cpu().contiguous()
            told |= {f"{part}.{key}": value for key, value in config.to_dict().items()}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(told, default=list, sort_keys=True)}
        if card:
            metadata["kinema"] = json.dumps(card, sort_keys=True)
        file = make_folder(folder) / FILE
        with replacing(file) as temporary:
            save_file(tensors, temporary, metadata=metadata)
        return file


def learned(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters that need a gradient."""
    return (parameter for parameter in network.parameters() if parameter.requires_grad)


def check_targets(backbone: Any, settings: LoraLayersSettings) -> None:
    """Raises: KinemaError when a target is the end of no layer's name, or the rank is above a layer's width."""
    for name, network in takers(backbone).items():
        kinds = nn.Linear | nn.Conv2d | nn.Conv3d
        layers = {key: module for key, module in network.named_modules() if isinstance(module, kinds)}
        widest = 0
        for target in settings.targets:
            found = [module for key, module in layers.items() if key == target or key.endswith(f".{target}")]
            if not found:
                ends = sorted({key.rpartition(".")[2] for key in layers if not key.rpartition(".")[2].isdigit()})
                raise KinemaError(
                    f"no layer of the {name} of model {backbone.name!r} ends in {target!r}; it has {', '.join(ends)}"
                )
            widest = max(widest, *(max(module.weight.shape[:2]) for module in found))
        if settings.rank > widest:
            raise KinemaError(f"rank is {settings.rank}; the layers of the {name} are {widest} wide, use at most that")
