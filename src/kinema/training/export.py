"""Model folders in diffusers layout: a fresh one that a training begins with, and the one it leaves behind."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from kinema.backbones.folder import no_progress_bars
from kinema.core.errors import KinemaError
from kinema.files import make_folder, replacing

SHARD_SIZE = "14MB"  # no file of weights is larger


def write_model(
    folder: Path,
    pipeline: str,
    *,
    networks: Mapping[str, nn.Module],
    tokenizer: Any,
    scheduler: Any,
    card: Mapping[str, Any],
    index: Mapping[str, Any] | None = None,
    exact: str | None = None,
) -> Path:
    """Write a model folder with a `card.json`; gives its path.

    pipeline: its class in diffusers. networks: by the names that the pipeline has for them, saved with their present
    weights in bfloat16, the one called `exact` in float32, and left as they are. index: more entries of
    model_index.json.
    The folder is written under another name and renamed, so that a reader sees the old one or the new one.
    Raises: KinemaError when the folder cannot be written, or holds something else than a model.
    """
    import diffusers

    contents: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__, **(index or {})}
    contents["scheduler"] = ["diffusers", type(scheduler).__name__]
    contents["tokenizer"] = ["transformers", type(tokenizer).__name__]
    for name, network in networks.items():
        contents[name] = [_library(network), type(network).__name__]
    check_folder(folder)
    make_folder(folder.parent)
    with replacing(folder) as temporary:
        for name, network in networks.items():
            _save(network, temporary / name, torch.float32 if name == exact else torch.bfloat16)
        tokenizer.save_pretrained(temporary / "tokenizer")
        scheduler.save_pretrained(temporary / "scheduler")
        _write_json(temporary / "model_index.json", contents)
        _write_json(temporary / "card.json", card)
    return folder


def export_model(backbone: Any, folder: Path, trained: Mapping[str, nn.Module], card: Mapping[str, Any]) -> Path:
    """Write a loaded model with the networks `trained` as they are now, in bfloat16; gives the path.

    What was not trained is copied as it is. The folder is renamed into place as in `write_model`, with the same errors.
    """
    index = dict(backbone.folder.index)
    index |= {part: [_library(network), type(network).__name__] for part, network in trained.items()}
    if "unet" in trained:
        index["motion_adapter"] = [None, None]  # it is a part of the UNet now
    check_folder(folder)
    make_folder(folder.parent)
    with replacing(folder) as temporary:
        for part, entry in index.items():
            if not isinstance(entry, list) or entry[0] is None:
                continue
            if part in trained:
                _save(trained[part], temporary / part, torch.bfloat16)
            else:
                shutil.copytree(backbone.folder.path / part, temporary / part)
        _write_json(temporary / "model_index.json", index)
        _write_json(temporary / "card.json", card)
    return folder


def check_folder(folder: Path) -> None:
    """Raises: KinemaError when the folder holds something else than a model, which would be lost."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise KinemaError(f"cannot write {folder}: it holds other things than a model; name a new folder")


def load_averaged(module: nn.Module, checkpoint: Path, name: str) -> None:
    """Put the averaged weights of module `name` of a checkpoint into `module`; tied weights follow their twin.

    Raises: ValueError when the checkpoint is of other settings.
    """
    averaged = load_file(checkpoint / f"{name}.ema.safetensors")
    parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
    if {k: v.shape for k, v in averaged.items()} != {k: v.shape for k, v in parameters.items()}:
        raise ValueError(f"the checkpoint {checkpoint.name} was made with other settings for its {name}")
    with torch.no_grad():
        for key, value in averaged.items():
            parameters[key].copy_(value)


def _library(network: nn.Module) -> str:
    """What model_index.json calls the library of a network: diffusers, transformers, or a module of kinema's."""
    module = type(network).__module__
    library = module.split(".")[0]
    return module if library == "kinema" else library


def _save(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """`save_pretrained` of a copy with weights of `dtype`; the module itself is untouched."""
    copied: Any = nn.Module.to(copy.deepcopy(module), "cpu", dtype)  # diffusers' own warns of parts kept in float32
    with no_progress_bars():
        copied.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:  # where a part was loaded from is nobody's business
        _write_json(folder / "config.json", config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
