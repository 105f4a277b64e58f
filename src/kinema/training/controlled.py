"""Clips with the conditions that adapters learn from, encoded once by the model that is adapted.

The folder holds `cache.json` (what it is made of) and shards `shard-00012.safetensors`: "latents" (N, C, T, H, W)
float16 in the units of the model's x, what the signal keeps of them (`training.signals`), and in the header the scenes
of rendered clips, or the captions of a user's own. A shard appears under its name whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.files import make_folder, replacing, write_text
from kinema.training.buckets import Buckets, BucketSettings
from kinema.training.captions import CaptionSettings, draw_captions
from kinema.training.clip_folder import find_captioned
from kinema.training.clip_pieces import pieces
from kinema.training.latents import MANIFEST, shard_path, shard_paths
from kinema.training.own_clips import autoencoder_hash
from kinema.training.signals import Material, Signal
from kinema.world.curricula import get_curriculum
from kinema.world.motion import simulate
from kinema.world.render import render, render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

FORMAT = 1
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ControlledSettings:
    """Which clips there are, and how they are kept."""

    curriculum: str = "first"  # name in kinema.world.curricula.CURRICULA
    clips: int = 12_000  # rendered clips
    first_seed: int = 2_000_000  # clip i is the scene of seed first_seed + i
    clips_per_shard: int = 250
    encode_batch: int = 10  # clips rendered and encoded at once

    def __post_init__(self) -> None:
        get_curriculum(self.curriculum)
        for name in ("clips", "clips_per_shard", "encode_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 1 or more")


class Controlled(NamedTuple):
    """A micro-batch: latents (B, C, T, H, W) float32, a prompt for each clip, and what they learn from."""

    latents: Tensor
    prompts: list[str]
    drawn: dict[str, Any]


class ControlledClips:
    """A source of micro-batches of whole clips, all of it held in memory."""

    def __init__(self, folder: Path, signal: Signal, captions: CaptionSettings, settings: ControlledSettings) -> None:
        """Raises: ValueError when the folder holds fewer clips than `settings` says."""
        self.signal, self.captions = signal, captions
        self.kept: dict[str, Tensor] = {}
        told: list[Any] = []
        tensors: dict[str, list[Tensor]] = {}
        for path in shard_paths(folder):
            with safe_open(path, framework="pt") as file:
                told += json.loads(file.metadata()["told"])
                for name in file.keys():  # noqa: SIM118
                    tensors.setdefault(name, []).append(file.get_tensor(name))
        if not told:
            raise ValueError(f"there are no clips in {folder}; encode some first")
        self.told = told[: settings.clips]
        self.kept = {name: torch.cat(parts)[: settings.clips] for name, parts in tensors.items()}
        self.latents = self.kept.pop("latents")

    @property
    def latent_frames(self) -> int:
        return int(self.latents.shape[2])

    def draw(self, step: int, size: int, generator: torch.Generator) -> Controlled:
        """Micro-batch `step` of `size` clips, a function of the arguments alone."""
        chosen = torch.randint(len(self.told), (size,), generator=generator)
        told = [self.told[i] for i in chosen.tolist()]
        scenes = [SceneSpec.from_dict(each) for each in told if not isinstance(each, str)]
        prompts = (
            draw_captions(scenes, self.captions, generator) if scenes else [self.signal.read(each) for each in told]
        )
        drawn = self.signal.drawn({name: u[chosen] for name, u in self.kept.items()}, scenes or told, generator)
        return Controlled(self.latents[chosen].float(), prompts, drawn)


def open_controlled(
    backbone: Any,
    folder: Path,
    condition: str,
    signal: Signal,
    settings: ControlledSettings,
    captions: CaptionSettings,
    data: Path | None = None,
    say: Say = lambda text: None,
) -> ControlledClips:
    """The clips of a training; missing ones are rendered, or read from the folder `data`, and encoded first.

    Raises: ValueError when the folder was made of something else; KinemaError for clips that cannot be learned from.
    """
    made_of = {
        "format": FORMAT,
        "condition": condition,
        "autoencoder": autoencoder_hash(backbone),
        "clips_per_shard": settings.clips_per_shard,
        "size": [getattr(backbone.defaults, name) for name in ("num_frames", "height", "width", "fps")],
        **({"curriculum": settings.curriculum, "first_seed": settings.first_seed} if data is None else _digest(data)),
    }
    path = make_folder(folder) / MANIFEST
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in made_of.items() if found.get(key) != value]
        if different:
            raise ValueError(f"the clips in {folder} were made with another {different[0]}; use another folder")
    else:
        write_text(path, json.dumps(made_of, indent=1) + "\n")
    source = _rendered(backbone, settings, signal.truth) if data is None else _own(backbone, data, signal)
    fill(backbone, folder, signal, settings, source, say)
    return ControlledClips(folder, signal, captions, settings)


def fill(
    backbone: Any,
    folder: Path,
    signal: Signal,
    settings: ControlledSettings,
    source: Callable[[int, int], Material | None],
    say: Say,
) -> None:
    """Writes the missing shards. source: the clips from one number on up to another, None behind the last."""
    for first in range(0, settings.clips, settings.clips_per_shard):
        path = shard_path(folder, first // settings.clips_per_shard)
        if path.exists():
            continue
        last = min(first + settings.clips_per_shard, settings.clips)
        told: list[Any] = []
        tensors: dict[str, list[Tensor]] = {}
        for begin in range(first, last, settings.encode_batch):
            material = source(begin, min(begin + settings.encode_batch, last))
            if material is None:
                break
            found = {"latents": backbone.encode(as_video(material.frames)), **signal.kept(material, backbone)}
            for name, u in found.items():
                tensors.setdefault(name, []).append(u.half().cpu() if u.is_floating_point() else u.cpu())
            told += list(material.captions) or [spec.to_dict() for spec in material.specs or ()]
        if not told:
            break
        with replacing(path) as temporary:
            whole = {name: torch.cat(parts).contiguous() for name, parts in tensors.items()}
            save_file(whole, temporary, metadata={"told": json.dumps(told)})
        say(f"{first + len(told)} of {settings.clips} clips encoded")


def _rendered(backbone: Any, settings: ControlledSettings, truth: bool) -> Callable[[int, int], Material | None]:
    """Scenes of the world, at the size of the model."""
    d = backbone.defaults
    part = replace(
        get_curriculum(settings.curriculum), num_frames=d.num_frames, height=d.height, width=d.width, fps=d.fps
    )

    def scenes(first: int, last: int) -> Material:
        specs = [sample_spec(settings.first_seed + i, part) for i in range(first, last)]
        state, _ = simulate(specs)
        there = state.to(backbone.device)
        drawn = render(there) if truth else None
        frames = render_frames(there) if drawn is None else drawn.frames
        depth = None if drawn is None else drawn.depth
        return Material(frames=frames, fps=d.fps, specs=specs, state=there, depth=depth)

    return scenes


def _own(backbone: Any, data: Path, signal: Signal) -> Callable[[int, int], Material | None]:
    """Pieces of a user's clips, all cut to the size of the model."""
    d = backbone.defaults
    size = BucketSettings(height=d.height, width=d.width, num_frames=d.num_frames, fps=d.fps, all_aspects=False)
    buckets = Buckets.of(backbone, size)

    def found() -> Iterator[tuple[str, Tensor]]:
        for clip in find_captioned(data):
            for i, (bucket, frames) in enumerate(pieces(clip, buckets)):
                if bucket.num_frames == d.num_frames:
                    start, stop = (n * d.num_frames / d.fps for n in (i, i + 1))
                    yield signal.said(clip.caption, start, stop), torch.from_numpy(frames)

    upcoming, reached = found(), 0

    def clips(first: int, last: int) -> Material | None:
        nonlocal reached
        part = []
        while reached < last:
            piece = next(upcoming, None)
            if piece is None:
                break
            if reached >= first:
                part.append(piece)
            reached += 1
        if not part:
            return None
        captions, frames = zip(*part, strict=True)
        return Material(frames=torch.stack(frames), fps=d.fps, captions=captions)

    return clips


def _digest(data: Path) -> Mapping[str, Any]:
    """What tells one folder of clips from another: names, sizes and captions."""
    found = find_captioned(data)
    if not found:
        raise KinemaError(f"there are no clips in {data}; give videos with captions")
    text = json.dumps([[clip.name, clip.caption, clip.path.stat().st_size] for clip in found])
    return {"data": hashlib.sha256(text.encode()).hexdigest()[:16]}
