"""Tensors by step of a run in a safetensors file, with what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.files import check_apart, check_writable, replacing

KIND = "kinema.tables"  # what the metadata calls the record


def save(path: str, kind: str, tables: Sequence[Tensor], belongs: Mapping[str, Any]) -> None:
    """Writes one tensor a step; kind: what they are. Raises: KinemaError when the file cannot be written."""
    from safetensors.torch import save_file

    named = {f"step.{i:04d}": table.contiguous().cpu().clone() for i, table in enumerate(tables)}  # steps may share one
    with replacing(path) as temporary:
        save_file(named, temporary, {KIND: json.dumps({"kind": kind, **belongs}, sort_keys=True)})


def check_place(path: str, reads: Sequence[str]) -> None:
    """Raises: KinemaError when `save` could not write there, or what is read lies there."""
    check_apart([check_writable(path)], reads)


def load(path: str, kind: str, belongs: Mapping[str, Any], what: str) -> list[Tensor]:
    """The tensors of a file that `save` wrote for a run of the same kind.

    Raises: KinemaError, naming `what`, when there is none, or it was made for something else than `belongs`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get(KIND, "{}"))
            names = sorted(file.keys())
            tables = [file.get_tensor(name) for name in names]
    except (OSError, SafetensorError, ValueError) as error:
        raise KinemaError(f"{what} {path} cannot be read; give a file that was saved by a run") from error
    if record.get("kind") != kind:
        raise KinemaError(f"{what} {path} holds no tables of {kind}; give a file that was saved by a run of it")
    for name, wanted in belongs.items():
        if record.get(name) != json.loads(json.dumps(wanted)):
            raise KinemaError(
                f"{what} {path} is for {name} {record.get(name)}, and this run has {wanted}; ask for what it was made "
                "with, or make new tables"
            )
    return tables
