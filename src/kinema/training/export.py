"""From trained parts to a model folder in diffusers layout, which `kinema generate --model FOLDER` loads."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, __version__
from safetensors.torch import load_file
from torch import nn

from kinema.core.errors import KinemaError
from kinema.files import make_folder, replacing

SHARD_SIZE = "15MB"  # no file of weights is larger


def export_pipeline(
    folder: Path,
    *,
    transformer: nn.Module,
    text_encoder: nn.Module,
    tokenizer: Any,
    autoencoder: nn.Module,
    flow_shift: float,
    card: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write a `WanPipeline` folder with per-token times (as Wan 2.2 TI2V 5B) and a `card.json`; gives its path.

    transformer, text_encoder, autoencoder: saved with their present weights as `dtype`, and left as they are.
    flow_shift: of the UniPC scheduler saved with them, above 0.
    The folder is written under another name and renamed, so that a reader sees the old one or the new one.
    Raises: KinemaError when the folder cannot be written, or holds something else than a model.
    """
    index = {
        "_class_name": "WanPipeline",
        "_diffusers_version": __version__,
        "boundary_ratio": None,
        "expand_timesteps": True,
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", type(text_encoder).__name__],
        "tokenizer": ["transformers", type(tokenizer).__name__],
        "transformer": ["diffusers", type(transformer).__name__],
        "transformer_2": [None, None],
        "vae": [type(autoencoder).__module__, type(autoencoder).__name__],
    }
    check_folder(folder)
    make_folder(folder.parent)
    with replacing(folder) as temporary:
        _save(transformer, temporary / "transformer", dtype)
        _save(text_encoder, temporary / "text_encoder", dtype)
        tokenizer.save_pretrained(temporary / "tokenizer")
        _save(autoencoder, temporary / "vae", dtype)
        scheduler(flow_shift).save_pretrained(temporary / "scheduler")
        _write_json(temporary / "model_index.json", index)
        _write_json(temporary / "card.json", card)
    return folder


def check_folder(folder: Path) -> None:
    """Raises: KinemaError when the folder holds something else than a model, which would be lost."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise KinemaError(f"cannot write {folder}: it holds other things than a model; name a new folder")


def scheduler(flow_shift: float) -> Any:
    """The solver of Wan 2.2: UniPC of order 2 on the flow's own noise levels (Zhao et al., 2023, arXiv:2302.04867)."""
    unipc: Any = UniPCMultistepScheduler  # diffusers is not typed
    return unipc(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=flow_shift,
        num_train_timesteps=1000,
        solver_order=2,
        final_sigmas_type="zero",
    )


def load_averaged(module: nn.Module, checkpoint: Path, name: str) -> None:
    """Put the averaged weights of module `name` of a checkpoint into `module`; tied weights follow their twin.

    Raises: ValueError when the checkpoint is of other settings.
    """
    averaged = load_file(checkpoint / f"{name}.ema.safetensors")
    parameters = dict(module.named_parameters())
    if {k: v.shape for k, v in averaged.items()} != {k: v.shape for k, v in parameters.items()}:
        raise ValueError(f"the checkpoint {checkpoint.name} was made with other settings for its {name}")
    with torch.no_grad():
        for key, value in averaged.items():
            parameters[key].copy_(value)


def _save(module: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """`save_pretrained` of a copy with weights of `dtype`; the module itself is untouched."""
    copied: Any = copy.deepcopy(module).to("cpu", dtype)
    copied.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.pop("_name_or_path", None) is not None:  # where a part was loaded from is nobody's business
        _write_json(folder / "config.json", config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
