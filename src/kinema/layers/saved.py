"""kinema's own small networks on the disk: config.json, model.safetensors in float16, and card.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

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
        network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        card = folder / "card.json"
        told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else None
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise KinemaError(f"{name} in {folder} is damaged, or its files are of two trainings") from error
    return network, told


def write_network(path: str | Path, network: nn.Module, config: Any, card: dict[str, Any]) -> None:
    """Writes all three files into a folder, each whole or not at all; `config` is a dataclass."""
    from safetensors.torch import save

    folder = make_folder(path)
    write_text(folder / "config.json", json.dumps(asdict(config), indent=2) + "\n")
    write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    with replacing(folder / "model.safetensors") as temporary:  # save_file would make it readable for its owner alone
        temporary.write_bytes(save({k: v.half().contiguous() for k, v in network.state_dict().items()}))
