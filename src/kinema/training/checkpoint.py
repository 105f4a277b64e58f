"""Checkpoints of a training: safetensors for weights, their average and the optimizer, JSON for the rest.

A checkpoint is a folder `step-00001200` with `<module>.safetensors`, `<module>.ema.safetensors`,
`optimizer.safetensors` and `state.json`. It is written under a temporary name, flushed to disk and renamed, so
a kill at any moment leaves either the whole checkpoint or none; the newest two are kept. Of each module it holds what
is trained (parameters that need a gradient) and the persistent buffers, whole even where several processes share them:
the number of processes may change from one checkpoint to the next.
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
from kinema.training.sharding import gathered, put, spread_like


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    ema: EMA,
    optimizer: Joined,
    state: Mapping[str, Any],
    keep: int = 2,
    writes: bool = True,
) -> Path:
    """Write `folder`/step-NNNNNNNN in one rename and drop all but the newest `keep`; gives its path.

    Of several processes all call it, as each has to give its part of the weights, and one `writes`.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".writing-{step:08d}"
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".writing-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        temporary.mkdir()
    for name, module in modules.items():
        _write(temporary / f"{name}.safetensors", _saved(module), writes)
        _write(temporary / f"{name}.ema.safetensors", ema.shadow[name], writes)
    tensors, scalars = _flatten_optimizer(optimizer)
    _write(temporary / "optimizer.safetensors", tensors, writes)
    if writes:
        content = {**state, "step": step, "ema_updates": ema.updates, "optimizer": scalars}
        (temporary / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        _publish(temporary, final, keep)
    return final


def _publish(temporary: Path, final: Path, keep: int) -> None:
    """Give a written checkpoint its name, and drop all but the newest `keep` of its folder."""
    for path in temporary.iterdir():
        _sync(path)
    replaced = temporary.with_name(f".writing-old-{final.name}")
    if final.exists():  # the same step again, after a resume: moved away whole, as a half deleted one could be resumed
        os.rename(final, replaced)
    os.rename(temporary, final)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    for old in checkpoints(final.parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(path: Path, modules: Mapping[str, nn.Module], ema: EMA, optimizer: Joined) -> dict[str, Any]:
    """Put a checkpoint back into the given objects, in place; gives the content of `state.json`.

    Raises ValueError when the checkpoint is of other modules or other shapes.
    """
    state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    for name, module in modules.items():
        if not (path / f"{name}.safetensors").is_file():
            raise ValueError(f"the checkpoint {path.name} has no module {name!r}; use another folder for this training")
        weights = load_file(path / f"{name}.safetensors")
        averaged = load_file(path / f"{name}.ema.safetensors")
        everything = module.state_dict()
        _check(weights, _saved(module), everything, path, name)
        _check(averaged, ema.shadow[name], everything, path, name)
        for key, value in weights.items():
            put(everything[key], value)
        for key, target in ema.shadow[name].items():
            put(target, averaged[key])
    ema.updates = state["ema_updates"]
    _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"), state.pop("optimizer"))
    return state


def _saved(module: nn.Module) -> dict[str, Tensor]:
    """What of a module a checkpoint holds: its state dict without the parameters that are not trained."""
    frozen = {key for key, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {key: value for key, value in module.state_dict().items() if key not in frozen}


def _check(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    allowed: Mapping[str, Tensor],
    path: Path,
    name: str,
) -> None:
    """Whether the tensors of a file are all that is `wanted` and nothing but what is `allowed`, in their shapes.

    A checkpoint may hold more than is trained: older ones hold all of a module, and a part may be frozen later.
    """
    fits = wanted.keys() <= found.keys() <= allowed.keys()
    if not fits or any(value.shape != allowed[key].shape for key, value in found.items()):
        raise ValueError(
            f"the checkpoint {path.name} does not fit the module {name!r} of this recipe; "
            "use another folder, or the settings it was begun with"
        )


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints under `folder`, oldest first."""
    return sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())


def _write(path: Path, tensors: Mapping[str, Tensor], writes: bool) -> None:
    kept = {}
    for key, value in tensors.items():
        whole = gathered(value.detach())
        if writes:
            kept[key] = whole.cpu().contiguous().clone()
    if writes:
        save_file(kept, path)


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
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for place, value in tensors.items():
        index, key = place.split("/", 1)
        parameter = parameters[int(index)]
        of_weights = value.shape == parameter.shape  # not a count of steps
        entries.setdefault(int(index), {})[key] = spread_like(parameter, value) if of_weights else value
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
