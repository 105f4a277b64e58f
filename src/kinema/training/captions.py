"""Captions of scenes as a training sees them: worded anew each time, sometimes empty, sometimes with a strange word."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kinema.models.text import build_tokenizer
from kinema.world.caption import caption
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """How scenes are worded."""

    dense_share: float = 0.25  # of captions in the dense style, 0..1
    strange_share: float = 0.05  # of captions with a word that means nothing, to learn to read past it, 0..1

    def __post_init__(self) -> None:
        for name in ("dense_share", "strange_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 to 1")


def draw_captions(scenes: Sequence[SceneSpec], settings: CaptionSettings, generator: torch.Generator) -> list[str]:
    """A caption for each scene, in fresh words.

    With probability `strange_share` a word of random letters stands somewhere in it: the pieces that unknown
    words of a prompt are spelled with are then known to say nothing.
    """
    dense, strange = torch.rand(2, len(scenes), generator=generator)
    seeds = torch.randint(2**31, (len(scenes),), generator=generator)
    captions = []
    for i, scene in enumerate(scenes):
        text = caption(scene, int(seeds[i]), "dense" if dense[i] < settings.dense_share else "short")
        if strange[i] < settings.strange_share:
            text = insert_strange_word(text, generator)
        captions.append(text)
    return captions


def insert_strange_word(text: str, generator: torch.Generator) -> str:
    """`text` with a word of 3 to 9 random letters before one of its words."""
    words = text.split(" ")
    place = int(torch.randint(len(words), (1,), generator=generator))
    length = int(torch.randint(3, 10, (1,), generator=generator))
    letters = torch.randint(26, (length,), generator=generator).tolist()
    words.insert(place, "".join(string.ascii_lowercase[k] for k in letters))
    return " ".join(words)


def tokenizer_of_world(curriculum: str, captions: int, min_count: int, max_tokens: int, seed: int = 0) -> Any:
    """The tokenizer for `captions` captions of a curriculum, half of them short, half dense; see `build_tokenizer`."""
    generator = torch.Generator().manual_seed(seed)
    scenes = [sample_spec(i, curriculum) for i in range(min(captions, 2000))]
    half = CaptionSettings(dense_share=0.5, strange_share=0.0)
    texts: list[str] = []
    while len(texts) < captions:
        texts += draw_captions(scenes, half, generator)
    return build_tokenizer(texts, min_count=min_count, max_tokens=max_tokens)
