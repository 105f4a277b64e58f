"""Weights as safetensors, from the hub, from a folder, or from a file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.layers.hub import fetch, local


def file_of(name: str, model: str, filename: str) -> Path:
    """The file of extractor `name`'s model: in a folder, fetched from the hub, or what `model` names itself.

    Raises: Unreachable when the hub does not give it, KinemaError when it is not there.
    """
    path = local(name, model)
    if path is None:
        return fetch(name, model, filename)[0]
    file = path / filename if path.is_dir() else path
    if not file.is_file():
        raise KinemaError(f"extractor {name}@{model}: {path} has no {filename}")
    return file


def tensors(name: str, model: str, filename: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file by their names; see `file_of`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = file_of(name, model, filename)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise KinemaError(f"extractor {name}@{model}: {file.name} is damaged or no safetensors file") from error
