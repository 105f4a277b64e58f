"""Adapters of small models: with random weights everywhere, so that what they add can be seen."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from kinema.core.adapter import FOLDER, Adapter, AdapterNetwork, ModelFace, write_adapter
from kinema.core.registry import techniques

KINDS = {name: entry.cls for name, entry in techniques().items() if issubclass(entry.cls, Adapter)}


def network(
    cls: type[Adapter], backbone: Any, seed: int = 0, fresh: bool = False
) -> tuple[AdapterNetwork, dict[str, Any]]:
    """The network of an adapter for a model, and its sizes. fresh: as a training begins."""
    text = backbone.encode_texts([""])["text"].shape[-1] if backbone.reads_text else 0
    face = dataclasses.replace(ModelFace.of(backbone), text=int(text))
    sizes = cls.network.sizes(face)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = cls.network(face, **sizes)
        for p in made.parameters() if not fresh else ():
            if not p.any():
                torch.nn.init.normal_(p, std=0.2)
    return made, sizes


def give(backbone: Any, fresh: bool = False) -> Any:
    """Writes an adapter of each kind that a model takes beside it, in its folder; gives the model."""
    for name, cls in KINDS.items():
        folder = Path(backbone.folder.path) / FOLDER / name
        if not folder.is_dir():
            with suppress(ValueError):  # events and their words are nothing for a model that reads none
                made = network(cls, backbone, fresh=fresh)
                folder.mkdir(parents=True)
                write_adapter(folder, name, *made, card={}, dtype=torch.float32)
    return backbone
