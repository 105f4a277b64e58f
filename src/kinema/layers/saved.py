"""kinema's own small networks on the disk: config.json, model.safetensors in float16 or int8, and card.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.files import make_folder, replacing, write_text

N = TypeVar("N", bound=nn.Module)


def read_network(
    name: str, path: str | Path | None, make: Callable[[dict[str, Any]], N]
) -> tuple[N, dict[str, Any] | None]:
    """The network in a folder, in float32, and its card if there is one; without a path those that ship with kinema.

    Args:
        name: of the training that makes it ("judge"), which is also its folder inside the package.
        make: from what config.json holds to a network of that shape.

    Raises: KinemaError when a file is missing, damaged or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(str(resources.files("kinema") / "weights" / name)) if path is None else Path(path)
    for file in ("config.json", "model.safetensors"):
        if not (folder / file).is_file():
            raise KinemaError(f"{folder} has no {file}; make it with `kinema train {name}`")
    try:
        network = make(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        network.load_state_dict(unpacked(load_file(folder / "model.safetensors")))
        card = folder / "card.json"
        told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise KinemaError(f"{name} in {folder} is damaged, or its files are of two trainings") from error
    return network, told


def write_network(path: str | Path, network: nn.Module, config: Any, card: dict[str, Any], int8: bool = False) -> None:
    """Writes all three files into a folder, each whole or not at all; `config` is a dataclass.

    int8: weights of layers take half the place, in 255 steps a row.
    """
    from safetensors.torch import save

    folder = make_folder(path)
    write_text(folder / "config.json", json.dumps(asdict(config), indent=2) + "\n")
    write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    with replacing(folder / "model.safetensors") as temporary:  # save_file would make it readable for its owner alone
        temporary.write_bytes(save((packed if int8 else halved)(network.state_dict())))


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.half().contiguous() for name, value in state.items()}


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """NAME.weight (O, ...) as int8 with NAME.scale (O,), what one of its steps is worth; the rest in float16."""
    found = halved(state)
    for name in [name for name, value in state.items() if name.endswith(".weight") and value.ndim > 1]:
        rows = state[name].float().flatten(1)
        scale = (rows.abs().amax(1) / 127).clamp_min(1e-7).half()
        found[name] = (rows / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8).view_as(state[name])
        found[f"{name.removesuffix('weight')}scale"] = scale
    return found


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` or `halved` gave, in float32."""
    found = {name: value.float() for name, value in stored.items()}
    for name in [name for name, value in stored.items() if value.dtype == torch.int8]:
        scale = found.pop(f"{name.removesuffix('weight')}scale")
        found[name] *= scale.view(-1, *[1] * (found[name].ndim - 1))
    return found
