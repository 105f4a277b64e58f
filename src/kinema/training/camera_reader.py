"""Training of the camera reader (`kinema.metrics.camera_reader`) on rendered clips, whose cameras are known exactly.

The clips are kept as the encoder that the reader looks through gives them: as they are rendered; some after they went
through the autoencoder, which takes more from fast motion than any noise; and some after `mini` painted them anew
(`training.painting`), because what a model makes of textures is read worse by far than any rendered clip. Clips that a
model made from nothing are never learned from. The encoder is linear, so clips are mirrored, reversed in time and lit
otherwise as latents, by one matrix for each cell.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinema.files import write_text
from kinema.metrics.camera_reader import (
    CELL,
    FRAMES,
    GROUP,
    GROUPS,
    MIRROR,
    SIZE,
    CameraReader,
    Encoder,
    Motion,
    ReaderConfig,
    ReaderNet,
    numbers_of,
    own_encoder,
)
from kinema.training.judge import TEST_SEED
from kinema.training.kept import kept
from kinema.training.latents import CacheSettings, LatentCache, fill_cache, open_cache
from kinema.training.painting import Painter
from kinema.training.start import load_autoencoder
from kinema.training.trainer import Report, Trainer, TrainerSettings, seeded
from kinema.world.cameras import path_of
from kinema.world.curricula import get_curriculum
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

PARTS = ("turn", "place", "zoom")  # of the loss: radians, heights of the first camera, log of the focal length
FAR = 5.0  # heights; a clip that ends nearer to the ground, and so is backwards a longer way, is not reversed
OWN, BEGUN = "own", "begun.json"
AT_ONCE = 20  # clips of a file
DECODED_NOISE = 0.35  # standard deviation of the most noise on latents that are decoded
Change = Callable[[Tensor, Sequence[SceneSpec], torch.Generator], Tensor]
SHEET = 24  # clips of a sample sheet


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Sizes of the network, as in `ReaderConfig`."""

    stem: int = 48
    width: int = 64
    layers: int = 3
    heads: int = 4


@dataclass(frozen=True, kw_only=True)
class CameraReaderSettings:
    """Section `camera_reader` of a recipe."""

    trainer: TrainerSettings
    net: NetSettings = field(default_factory=NetSettings)
    paths: CacheSettings = field(default_factory=lambda: CacheSettings(curriculum="cameras", first_seed=2_000_000))
    named: CacheSettings = field(default_factory=CacheSettings)  # clips with the moves that captions name
    decoded: int = 700  # clips of `paths` that are also seen after the autoencoder
    painted: int = 1000  # others of them that are also seen painted anew by `mini`
    start_from: str | None = None  # folder of a reader to go on from, "own": the one that comes with kinema; None: anew
    named_share: float = 0.2  # share of clips with named moves, 0..1
    decoded_share: float = 0.3  # share of clips that are seen after the autoencoder, 0..1
    painted_share: float = 0.3  # share of clips that are seen painted anew, 0..1
    mirrored_share: float = 0.5  # share of clips with left and right changed, 0..1
    reversed_share: float = 0.25  # share of clips that run backwards, 0..1
    noisy_share: float = 0.5  # share of clips with noise on their latents, 0..1
    noise: float = 0.4  # standard deviation of the most noise; the latents have one of 1
    light: float = 0.12  # by which clips are brighter or darker, at most, 0..1
    weights: dict[str, float] = field(default_factory=lambda: {"turn": 3.0, "place": 1.0, "zoom": 2.0})

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; use 0 to 1")
        if self.named_share + self.decoded_share + self.painted_share > 1:
            raise ValueError("named_share, decoded_share and painted_share are at most 1 together")
        if min(self.decoded, self.painted) < 1:
            raise ValueError(f"decoded is {self.decoded} and painted {self.painted}; use 1 or more")
        if self.noise < 0 or not 0 <= self.light < 1:
            raise ValueError(f"noise is {self.noise} and light {self.light}; use 0 or more, and 0 to below 1")
        self.beginning()
        if set(self.weights) != set(PARTS):
            raise ValueError(f"weights has {', '.join(self.weights)}; use exactly {', '.join(PARTS)}")
        for cache in (self.paths, self.named):
            part = get_curriculum(cache.curriculum)
            if (part.num_frames, part.height, part.width) != (FRAMES, SIZE, SIZE):
                raise ValueError(
                    f"curriculum {cache.curriculum!r} has other clips than {FRAMES} frames of {SIZE}x{SIZE}"
                )

    def beginning(self) -> CameraReader | None:
        """The reader to go on from. Raises: KinemaError, ValueError for one that cannot be."""
        if self.start_from is None:
            return None
        begun = CameraReader.load(None if self.start_from == OWN else self.start_from)
        sizes = vars(self.net)
        if {name: getattr(begun.net.config, name) for name in sizes} != sizes:
            raise ValueError(f"start_from: the reader in {self.start_from!r} has other sizes than net says")
        return begun


class Remade:
    """What becomes of latents (B, C, T, h, w) when the frames they stand for are changed.

    A latent is E x + b of the pixels x of its cell, normalised. The pixels are taken back as the least ones that
    give it (the pseudo-inverse of E), so what the encoder does not see stays unseen.
    """

    def __init__(self, encoder: Encoder) -> None:
        first, groups = encoder.matrix
        back, backs = torch.linalg.pinv(first), torch.linalg.pinv(groups)
        order = torch.arange(first.shape[1]).view(CELL, CELL, 3).flip(1).flatten()
        every = torch.cat([order + i * len(order) for i in range(GROUP)])
        self.flips = [first[:, order] @ back, groups[:, every] @ backs]
        into, outof = groups.chunk(GROUP, 1), backs.chunk(GROUP, 0)
        self.alone = first @ outof[-1]  # the last frame of a group as a first frame
        self.same = torch.stack([into[i] @ outof[GROUP - 2 - i] for i in range(GROUP - 1)]).sum(0)
        self.before, self.begin = into[-1] @ outof[-1], into[-1] @ back
        self.white = [matrix.sum(1) for matrix in encoder.matrix]
        self.encoder = encoder

    def _plain(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """E x of the first frame (B, 1, h, w, C) and of the groups (B, T - 1, h, w, C)."""
        y = (z * self.encoder.std + self.encoder.mean).permute(0, 2, 3, 4, 1)
        return y[:, :1] - self.encoder.bias[0], y[:, 1:] - self.encoder.bias[1]

    def _latents(self, first: Tensor, groups: Tensor) -> Tensor:
        y = torch.cat([first + self.encoder.bias[0], groups + self.encoder.bias[1]], 1).permute(0, 4, 1, 2, 3)
        return (y - self.encoder.mean) / self.encoder.std

    def mirrored(self, z: Tensor) -> Tensor:
        """With left and right changed."""
        first, groups = (part @ flip.T for part, flip in zip(self._plain(z), self.flips, strict=True))
        return self._latents(first, groups).flip(-1)

    def backwards(self, z: Tensor) -> Tensor:
        """With the last frame first: three frames of each group are from one group of before, the last is not."""
        first, groups = self._plain(z)
        last = torch.cat([first @ self.begin.T, groups[:, :-1] @ self.before.T], 1)
        return self._latents(groups[:, -1:] @ self.alone.T, (groups @ self.same.T + last).flip(1))

    def lit(self, z: Tensor, gain: Tensor, more: Tensor) -> Tensor:
        """With frames in -1..1 times `gain` (B,) plus `more` (B,)."""
        gain, more = (u[:, None, None, None, None] for u in (gain, more))
        first, groups = (part * gain + more * white for part, white in zip(self._plain(z), self.white, strict=True))
        return self._latents(first, groups)


def told(spec: SceneSpec) -> Tensor:
    """Cameras of a scene as it is and of the scene backwards, (2, T, NUMBERS) float32."""
    zoomed, poses = (u.numpy() for u in path_of(spec.camera, spec.num_frames))
    both = [numbers_of(poses, zoomed), numbers_of(poses[::-1], zoomed[::-1])]
    return torch.from_numpy(np.stack(both)).float()


class Source:
    """Encoded clips of one curriculum with their cameras."""

    def __init__(self, folder: Path, settings: CacheSettings, autoencoder: Path) -> None:
        """Renders and encodes what is missing in the folder."""
        open_cache(folder, settings, autoencoder)
        if LatentCache.count(folder) < settings.clips:
            fill_cache(folder, settings, load_autoencoder(autoencoder))
        self.cache = LatentCache(folder, settings.shards)
        self.told = torch.stack([told(self.cache.scene(i)) for i in range(len(self.cache))])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (count, C, T, h, w) and cameras (count, 2, T, NUMBERS), see `told`."""
        chosen = torch.randint(len(self.told), (count,), generator=generator)
        return self.cache.latents(chosen.tolist(), GROUPS), self.told[chosen]


class Changed:
    """Clips of a source after a change that keeps their cameras, as the reader sees them."""

    def __init__(self, folder: Path, source: Source, chosen: Sequence[int], ready: Callable[[], Change]) -> None:
        """chosen: which clips of the source; ready: gives what changes latents (B, C, T, h, w) of scenes.

        Changes what is missing in the folder.
        """
        ready, parts = functools.cache(ready), []
        for n in range(0, len(chosen), AT_ONCE):
            some = chosen[n : n + AT_ONCE]
            scenes = [source.cache.scene(i) for i in some]

            def change(n: int = n, some: Sequence[int] = some, scenes: list[SceneSpec] = scenes) -> dict[str, Tensor]:
                z = source.cache.latents(some, GROUPS)
                return {"latents": ready()(z, scenes, seeded(0, n, 0)).half()}

            made_of = [scene.to_dict() for scene in scenes]
            parts.append(kept(folder / f"clips-{n:05d}.safetensors", made_of, change)["latents"])
        self.latents, self.told = torch.cat(parts), source.told[torch.tensor(chosen)]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `Source.draw`."""
        chosen = torch.randint(len(self.told), (count,), generator=generator)
        return self.latents[chosen].float(), self.told[chosen]


@torch.no_grad()
def again(z: Tensor, autoencoder: Any, encoder: Encoder) -> Tensor:
    """Latents (B, C, T, h, w) decoded to frames, and encoded again."""
    with torch.autocast("cpu", torch.bfloat16):  # half the time
        video = autoencoder.decode(z * encoder.std + encoder.mean).sample.float()
    frames = (255 * (video.clamp(-1, 1) + 1) / 2).round() / 255
    return encoder(frames.transpose(1, 2))


def noisy(z: Tensor, generator: torch.Generator) -> Tensor:
    """Latents (B, C, T, h, w), half of them with noise."""
    much = DECODED_NOISE * torch.rand(len(z), generator=generator) * (torch.rand(len(z), generator=generator) < 0.5)
    return z + much[:, None, None, None, None] * torch.randn(z.shape, generator=generator)


class CameraReaderStage:
    """What the trainer needs to know about the camera reader."""

    def __init__(self, settings: CameraReaderSettings, folder: Path, device: str = "cpu") -> None:
        """device: on which clips are painted anew."""
        from importlib import resources

        self.settings, self.encoder = settings, own_encoder()
        autoencoder = Path(str(resources.files("kinema") / "weights" / "autoencoder"))
        config = ReaderConfig(encoder=self.encoder.fingerprint(), **vars(settings.net))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.trainer.seed)
            self.net = ReaderNet(config)
        self.clips_before = self._begin(folder / BEGUN)
        self.modules: Mapping[str, nn.Module] = {"camera_reader": self.net}
        self.remade, self.motion = Remade(self.encoder), Motion(self.encoder)
        self.paths, self.named = (
            Source(folder / f"latents-{name}", cache, autoencoder)
            for name, cache in (("paths", settings.paths), ("named", settings.named))
        )
        self.decoded, self.painted = self._changed(folder, autoencoder, device)

    def _begin(self, path: Path) -> int:
        """Takes the weights that the training begins with; gives the clips that these have seen.

        Both are of the first time: a training that goes on has its own weights. Raises: ValueError where it began from
        something else.
        """
        start, begun = self.settings.start_from, self.settings.beginning()
        told: dict[str, Any] = {"start_from": start, "clips": 0}
        if begun is not None:
            self.net.load_state_dict(begun.net.state_dict())
            told["clips"] = begun.card.get("clips", 0) + begun.card.get("clips_before", 0)
        if path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
        else:
            write_text(path, json.dumps(told) + "\n")
        if told["start_from"] != start:
            raise ValueError(
                f"start_from is {start!r}, and the training began from {told['start_from']!r}; use --restart"
            )
        return int(told["clips"])

    def _changed(self, folder: Path, autoencoder: Path, device: str) -> tuple[Changed, Changed]:
        """Clips of `paths` after the autoencoder, and others painted anew, with fewer of the still cameras, from which
        there is less to learn."""
        s, encoder = self.settings, self.encoder
        scenes = enumerate(self.paths.cache.scene(i) for i in range(len(self.paths.told)))
        chosen = [i for i, spec in scenes if spec.camera.legs or i % 3 == 0]
        if len(chosen) < s.decoded + s.painted:
            raise ValueError(
                f"decoded and painted are {s.decoded + s.painted} together, and of the {len(self.paths.told)} clips of "
                f"paths {len(chosen)} have something to tell; use more clips or less of those"
            )

        def decoding() -> Change:
            decoder = load_autoencoder(autoencoder)
            return lambda z, _, generator: again(noisy(z, generator), decoder, encoder)

        def painting() -> Change:
            decoder, paint = load_autoencoder(autoencoder), Painter.of("mini", device)
            return lambda z, scenes, generator: again(paint(z, scenes, generator), decoder, encoder)

        return (
            Changed(folder / "decoded", self.paths, chosen[: s.decoded], decoding),
            Changed(folder / "painted", self.paths, chosen[s.decoded :][: s.painted], painting),
        )

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Latents of changed clips (B, C, T, h, w) with their motion, and cameras (B, FRAMES, NUMBERS)."""
        s, count = self.settings, self.settings.trainer.batch_size

        def lot(share: float) -> Tensor:
            return torch.rand(count, generator=generator) < share

        sources: tuple[Source | Changed, ...] = (self.named, self.decoded, self.painted, self.paths)
        ends = torch.tensor([s.named_share, s.decoded_share, s.painted_share]).cumsum(0)
        which = torch.bucketize(torch.rand(count, generator=generator), ends, right=True)
        counts = torch.bincount(which, minlength=len(sources)).tolist()
        drawn = [source.draw(n, generator) for source, n in zip(sources, counts, strict=True) if n]
        z, cameras = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        back, flip = lot(s.reversed_share) & (cameras[:, 1].abs().amax((1, 2)) < FAR), lot(s.mirrored_share)
        z = _where(back, self.remade.backwards(z), z)
        told = _where(back, cameras[:, 1], cameras[:, 0])
        z = _where(flip, self.remade.mirrored(z), z)
        told = _where(flip, told * torch.tensor(MIRROR), told)
        gain, more = (s.light * (2 * torch.rand(count, generator=generator) - 1) for _ in range(2))
        z = self.remade.lit(z, 1 + gain, more)
        strength = s.noise * torch.rand(count, generator=generator) * lot(s.noisy_share)
        z = z + strength[:, None, None, None, None] * torch.randn(z.shape, generator=generator)
        return {"z": z, "motion": self.motion(z), "told": told}

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Weighted sum of the PARTS: mean distances of the vectors, not squared, so that what is still is read so."""
        off = self.net(batch["z"], batch["motion"]) - batch["told"]
        parts = dict(zip(PARTS, (_length(part).mean() for part in off.split((3, 3, 1), -1)), strict=True))
        total = torch.stack([self.settings.weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def sheet(self, path: Path) -> None:
        """The seven numbers of test clips over time: above as they are, below as they are read."""
        from PIL import Image, ImageDraw

        from kinema.world.motion import simulate
        from kinema.world.render import render_frames

        specs = [sample_spec(TEST_SEED - 1 - i, self.settings.paths.curriculum, "all") for i in range(SHEET)]
        frames = render_frames(simulate(specs)[0])
        with torch.no_grad():
            z = self.encoder(frames.permute(0, 1, 4, 2, 3).float() / 255)
            read = self.net(z, self.motion(z))
        true = torch.stack([told(spec)[0] for spec in specs])
        wide, high = 160, 90
        picture = Image.new("RGB", (6 * wide, -(-SHEET // 6) * 2 * high), "white")
        pen = ImageDraw.Draw(picture)
        colours = ("crimson", "darkorange", "gold", "seagreen", "steelblue", "navy", "grey")
        for i in range(SHEET):
            for row, one in enumerate((true[i], read[i])):
                left, middle = i % 6 * wide, (2 * (i // 6) + row) * high + high / 2
                for colour, line in zip(colours, one.T.tolist(), strict=True):
                    at = [(left + 6 * t, middle - 30 * min(max(v, -1.4), 1.4)) for t, v in enumerate(line)]
                    pen.line(at, fill=colour, width=2)
        picture.save(path)


def _where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the clips chosen (B,), `old` for the others."""
    return torch.where(chosen.view(-1, *[1] * (old.ndim - 1)), new, old)


def _length(off: Tensor) -> Tensor:
    """(..., n) -> (...); smooth at 0."""
    return (off.square().sum(-1) + 1e-6).sqrt() - 1e-3


def train_camera_reader(
    settings: CameraReaderSettings, folder: Path, out: Path | None = None, device: str = "cpu", hardware: str = ""
) -> Report:
    """Train (or resume) in `folder`; when it is finished, write the averaged weights and their card.

    They go to `out`, or to the folder `camera_reader` of `folder`. An interrupted training writes none.
    """
    stage = CameraReaderStage(settings, folder, device)

    def write(report: Report) -> None:
        caches = [(cache.clips, cache.curriculum, cache.first_seed) for cache in (settings.paths, settings.named)]
        parts = " and ".join(f"{n} of curriculum {name!r} with seeds from {first}" for n, name, first in caches)
        card = {
            "what": "where the camera of a clip of kinema.world stands and turns, and its focal length",
            "data": f"rendered clips, training split: {parts}; {settings.decoded} of the first also after the "
            f"autoencoder, {settings.painted} others also painted anew by mini",
            "clips": report.clips,
            **({"clips_before": stage.clips_before} if stage.clips_before else {}),
            "steps": report.step,
            "hardware": hardware,
            "parameters": sum(p.numel() for p in stage.net.parameters()),
            "seconds": round(report.seconds),
        }
        CameraReader(stage.net, stage.encoder, card).save(out or folder / "camera_reader")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)
