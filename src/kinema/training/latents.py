"""A cache of rendered clips as latents, that grows in a process of its own while a training reads it.

Rendering is slower than training a small model, so every clip is drawn and encoded once. The folder holds
`cache.json` (what the cache is made of) and shards `shard-00012.safetensors`: "latents" (N, C, T, H, W) float16,
normalised with the autoencoder's `latents_mean` and `latents_std`, with the scenes as JSON in the header, so that
captions can be drawn anew each time. A shard appears under its name whole or not at all; several processes may
fill one cache. Latent frame 0 of a causal autoencoder depends on frame 0 alone, and the first n latent frames on
the first 1 + 4(n-1) frames alone: images and shorter clips are slices.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.backbones.codec import Codec
from kinema.core.footage import as_video
from kinema.files import write_text
from kinema.world.curricula import get_curriculum
from kinema.world.spec import SceneSpec

MANIFEST = "cache.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What a latent cache holds and how it is filled."""

    curriculum: str = "first"  # name in kinema.world.curricula.CURRICULA
    clips: int = 40_000  # clips at which the cache stops growing
    start: int = 3_000  # clips with which a training begins
    first_seed: int = 0  # clip i is the scene of seed first_seed + i
    clips_per_shard: int = 500
    render_batch: int = 10  # clips rendered and encoded at once

    def __post_init__(self) -> None:
        get_curriculum(self.curriculum)
        for name in ("clips", "start", "clips_per_shard", "render_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 1 or more")
        if self.start > self.clips or self.clips % self.clips_per_shard:
            raise ValueError(
                f"clips is {self.clips}; use a multiple of clips_per_shard ({self.clips_per_shard}), "
                f"and at least start ({self.start})"
            )

    @property
    def shards(self) -> int:
        return self.clips // self.clips_per_shard


# -- encoding ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def encode_clips(autoencoder: Any, frames: Tensor) -> Tensor:
    """Normalised latents (B, C, T', H/16, W/16) float32 of frames (B, T, H, W, 3) uint8; the posterior's mean."""
    device = next(autoencoder.parameters()).device
    latents = autoencoder.encode(as_video(frames.to(device))).latent_dist.mode().float()
    return Codec.of(autoencoder).scaled(latents)


def encoder_hash(folder: Path) -> str:
    """SHA-256 over the encoder's weights and latent scale in a model folder, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"there are no weights in {folder}; train the autoencoder first")
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in sorted(key for key in file.keys() if key.startswith("encoder.")):  # noqa: SIM118
                digest.update(key.encode() + file.get_tensor(key).float().numpy().tobytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest.update(json.dumps([config.get("latents_mean"), config.get("latents_std")]).encode())
    return digest.hexdigest()[:16]


# -- filling -----------------------------------------------------------------------------------------------------


def render_latents(autoencoder: Any, specs: Sequence[SceneSpec], batch: int, device: str = "cpu") -> Tensor:
    """Latents (N, C, T, H, W) float16 of N scenes, rendered and encoded `batch` at a time."""
    from kinema.world.motion import simulate
    from kinema.world.render import render_frames

    parts = []
    for i in range(0, len(specs), batch):
        state, _ = simulate(list(specs[i : i + batch]))
        frames = render_frames(state.to(device))
        parts.append(encode_clips(autoencoder, frames).half().cpu())
    return torch.cat(parts).contiguous()


def open_cache(folder: Path, settings: CacheSettings, autoencoder_folder: Path) -> None:
    """Make the folder and its manifest, or check that it holds what these settings would make.

    Raises: ValueError when it was made with another autoencoder or another part of the world.
    """
    made_of = {
        "format": FORMAT,
        "encoder": encoder_hash(autoencoder_folder),
        "curriculum": settings.curriculum,
        "first_seed": settings.first_seed,
        "clips_per_shard": settings.clips_per_shard,
    }
    path = folder / MANIFEST
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in made_of.items() if found.get(key) != value]
        if different:
            raise ValueError(
                f"the latent cache in {folder} was made with another {different[0]}; delete it or use another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(made_of, indent=1) + "\n")


def fill_cache(
    folder: Path,
    settings: CacheSettings,
    autoencoder: Any,
    until: int | None = None,
    device: str = "cpu",
    on_shard: Callable[[int], None] = lambda clips: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Render the missing shards in order, until the cache holds `until` clips (default: all of them).

    A shard that another process is at work on is left to it. `stop` is asked before each shard; `on_shard` is
    told the number of clips present after each one.
    """
    from kinema.world.sample import sample_spec

    last = settings.shards if until is None else -(-until // settings.clips_per_shard)
    for number in range(last):
        path = shard_path(folder, number)
        if path.exists():
            continue
        with _claimed(folder, number) as mine:
            if not mine or path.exists():
                continue
            if stop():
                return
            first = settings.first_seed + number * settings.clips_per_shard
            specs = [sample_spec(first + i, settings.curriculum) for i in range(settings.clips_per_shard)]
            latents = render_latents(autoencoder, specs, settings.render_batch, device)
            temporary = path.with_name(f".writing-{number:05d}")
            scenes = json.dumps([spec.to_dict() for spec in specs])
            save_file({"latents": latents}, temporary, metadata={"scenes": scenes})
            temporary.replace(path)
            on_shard(len(shard_paths(folder)) * settings.clips_per_shard)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def shard_paths(folder: Path) -> list[Path]:
    """The whole shards of a cache in order."""
    return sorted(folder.glob("shard-*.safetensors"))


@contextmanager
def _claimed(folder: Path, number: int) -> Iterator[bool]:
    """Hold a shard's lock inside the `with`; False when another process holds it. A dead process holds none."""
    path = folder / f".lock-{number:05d}"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


# -- reading -----------------------------------------------------------------------------------------------------


class LatentCache:
    """The clips of a cache that are there; `refresh` takes in what has come since. All of it is held in memory.

    `most` is the number of shards to read at most, for those who need only a few clips.
    """

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self.folder, self.most = folder, most
        self.shards: list[Tensor] = []
        self.scenes: list[list[dict[str, Any]]] = []
        self.names: set[str] = set()
        self.ends: list[int] = []  # clips up to and with each shard
        self.refresh()

    @staticmethod
    def count(folder: Path) -> int:
        """Clips of a cache on disk."""
        number = 0
        for path in shard_paths(folder):
            with safe_open(path, framework="pt") as file:
                number += file.get_slice("latents").get_shape()[0]
        return number

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def refresh(self) -> int:
        """Read new shards; gives the number of clips."""
        for path in shard_paths(self.folder)[: self.most]:
            if path.name in self.names:
                continue
            with safe_open(path, framework="pt") as file:
                latents = file.get_tensor("latents")
                scenes = json.loads(file.metadata()["scenes"])
            self.names.add(path.name)
            self.shards.append(latents)
            self.scenes.append(scenes)
            self.ends.append(len(self) + len(scenes))
        return len(self)

    def latents(self, indices: Sequence[int], frames: int) -> Tensor:
        """The first `frames` latent frames of clips, (B, C, frames, H, W) float32."""
        found = [self._find(i) for i in indices]
        return torch.stack([self.shards[s][k, :, :frames] for s, k in found]).float()

    def scene(self, index: int) -> SceneSpec:
        """What clip `index` was rendered from."""
        return SceneSpec.from_dict(self.scene_dict(index))

    def scene_dict(self, index: int) -> dict[str, Any]:
        """The same as `SceneSpec.to_dict` gives it."""
        shard, place = self._find(index)
        return self.scenes[shard][place]

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} is not in the cache of {len(self)}")
        shard = next(s for s, end in enumerate(self.ends) if index < end)
        return shard, index - (self.ends[shard] - len(self.scenes[shard]))


# -- the process that fills --------------------------------------------------------------------------------------


class Filler:
    """A process that fills a cache until it is full, or until the process that started it ends.

    It runs on one CPU thread at a lower priority, and writes what it says to `filling.log` in the cache.
    """

    def __init__(self, folder: Path, settings: CacheSettings, autoencoder_folder: Path, device: str = "cpu") -> None:
        self.log = folder / "filling.log"
        arguments = [str(folder), str(autoencoder_folder), json.dumps(asdict(settings)), device, str(os.getpid())]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kinema.training.latents", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the training, which stops this one itself
            )

    def check(self) -> None:
        """Raises RuntimeError when the process has failed."""
        if self.process.poll() not in (None, 0):
            lines = self.log.read_text(encoding="utf-8").strip().splitlines()
            raise RuntimeError(f"rendering in the background failed: {lines[-1] if lines else 'no message'}")

    def stop(self) -> None:
        """End the process; a shard half done is lost, whole ones stay."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m kinema.training.latents FOLDER AUTOENCODER SETTINGS_JSON DEVICE PARENT_PID`; started by `Filler`."""
    from kinema.models.autoencoder import AutoencoderKLKinema

    parser = argparse.ArgumentParser(description="Fill a cache of latents.")
    for name in ("folder", "autoencoder", "settings", "device"):
        parser.add_argument(name)
    parser.add_argument("parent", type=int)
    given = parser.parse_args(arguments)
    os.nice(5)
    torch.set_num_threads(1)
    autoencoder = AutoencoderKLKinema.from_pretrained(given.autoencoder).to(given.device).eval()
    begun = time.monotonic()

    def say(clips: int) -> None:
        print(f"{clips} clips after {time.monotonic() - begun:.0f} s", flush=True)

    fill_cache(
        Path(given.folder),
        CacheSettings(**json.loads(given.settings)),
        autoencoder,
        device=given.device,
        on_shard=say,
        stop=lambda: os.getppid() != given.parent,
    )


if __name__ == "__main__":
    main()
