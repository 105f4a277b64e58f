"""Checkpoints of a training: safetensors for weights, their average and the optimizer, JSON for the rest.

A checkpoint is a folder `step-00001200` with `<module>.safetensors`, `<module>.ema.safetensors`,
`optimizer.safetensors` and `state.json`. It is written under a temporary name, flushed to disk and renamed, so
a kill at any moment leaves either the whole checkpoint or none; the newest two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kinema.training.ema import EMA
from kinema.training.optimizer import Joined


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    ema: EMA,
    optimizer: Joined,
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write `folder`/step-NNNNNNNN in one rename and drop all but the newest `keep`; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = folder / f".writing-{step:08d}"
    temporary.mkdir()
    for name, module in modules.items():
        _write(temporary / f"{name}.safetensors", dict(module.state_dict()))
        _write(temporary / f"{name}.ema.safetensors", ema.shadow[name])
    tensors, scalars = _flatten_optimizer(optimizer)
    _write(temporary / "optimizer.safetensors", tensors)
    content = {**state, "step": step, "ema_updates": ema.updates, "optimizer": scalars}
    (temporary / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for path in temporary.iterdir():
        _sync(path)
    final = folder / f"step-{step:08d}"
    if final.exists():  # the same step again, after a resume: moved away whole, as a half deleted one could be resumed
        os.rename(final, folder / f".writing-old-{step:08d}")
    os.rename(temporary, final)
    _sync(folder)
    shutil.rmtree(folder / f".writing-old-{step:08d}", ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(path: Path, modules: Mapping[str, nn.Module], ema: EMA, optimizer: Joined) -> dict[str, Any]:
    """Put a checkpoint back into the given objects, in place; gives the content of `state.json`.

    Raises ValueError when the checkpoint is of other modules or other shapes.
    """
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    for name, module in modules.items():
        file = path / f"{name}.safetensors"
        if not file.is_file():
            raise ValueError(f"the checkpoint {path.name} has no module {name!r}; use another folder for this training")
        try:
            module.load_state_dict(load_file(file))
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint {path.name} does not fit the module {name!r} of this recipe; "
                "use another folder, or the settings it was begun with"
            ) from error
        averaged = load_file(path / f"{name}.ema.safetensors")
        for key, value in ema.shadow[name].items():
            value.copy_(averaged[key])
    ema.updates = state["ema_updates"]
    _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"), state.pop("optimizer"))
    return state


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints under `folder`, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flatten_optimizer(optimizer: Joined) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Per-parameter tensors under "<index>/<key>"; param groups as plain values."""
    state = optimizer.state_dict()
    tensors = {f"{i}/{key}": value for i, entry in state["state"].items() for key, value in entry.items()}
    wrong = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise TypeError(f"the optimizer keeps values that are not tensors: {wrong[0]}")
    return tensors, state["param_groups"]


def _restore_optimizer(optimizer: Joined, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for place, value in tensors.items():
        index, key = place.split("/", 1)
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
