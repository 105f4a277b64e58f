"""The rows of the contract over all video families: tiny models in the layout of real checkpoints, one file a family.

Each file has CASES: name -> Case. `tests/backbones/test_families.py` runs every check over every row.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """One variant of a family."""

    build: Callable[[Path], Path]  # writes the model folder, gives its path; the same bytes each time
    pipeline: str  # diffusers' class that it is compared with
    call: Mapping[str, Any]  # what that pipeline is called with, beside prompts, images, generator and output type
    request: Mapping[str, Any]  # the same for kinema's Request: sizes, steps
    guidance: Mapping[str, Any] = field(default_factory=dict)  # the pipeline's guidance; empty is none
    scale: float = 1.0  # the same for kinema's CFG; 1 is none
    low_scale: float | None = None  # of the second expert
    guides: Sequence[Any] = ()  # techniques that guide where it is not CFG
    prompts: bool = True  # whether it reads a prompt and a negative one
    images: int = 0  # pictures given: 1 the first, 2 the first and the last frame
    to_latents: Callable[[Any, Any], Any] = lambda theirs, ours: theirs  # their latents in the layout of ours
    bitwise: bool = True  # call by call equal to the last bit; False only where the pipeline computes in one batch
    embedding: str | None = "transformer.patch_embedding"  # what makes tokens of latents; None where nothing does alone
    mend: Callable[[Any], None] = lambda pipeline: None  # takes a fault out of diffusers' pipeline before comparing
    moves: bool = True  # positions can be moved: rotary, and not a learned or fixed table
    shift: float = 2.0  # latent cells by which all positions may be moved without changing the result; 0 is none


SAMPLED_OTHERWISE = re.compile(r", (no guidance|true guidance.*|alone|euler.*|dpm.*|ddim.*|distilled.*)$")


def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").CASES
    return found


def networks() -> list[str]:
    """The rows but for those whose network another row has, too, with another solver or guidance."""
    return [name for name in cases() if not SAMPLED_OTHERWISE.search(name)]
