"""What adapters learn from: from clips to the conditions that they are told, by the kind of condition.

A **signal** is asked when clips are encoded, for what is kept beside their latents (`kept`), when a batch is drawn, for
what it learns from (`drawn`), which may take some of that away again, and when the batch is seen, for what the network
is given (`given`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kinema.camera.steered import latent_rays
from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.events import mint
from kinema.layers.camera_path import HEIGHT
from kinema.layers.pace import pace
from kinema.layers.structure import LEVELS, detail, structure, structure_of_depth
from kinema.structure.source import structure_video
from kinema.timeline import Event, Prompt, Timeline
from kinema.timeline.events import middles
from kinema.world.caption import Form, noun_phrase, verb
from kinema.world.spec import EventSpec, SceneSpec, SceneState
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES


@dataclass(frozen=True, kw_only=True)
class Material:
    """Clips as they come: rendered ones with all that is true of them, or a user's own."""

    frames: Tensor  # (N, F, H, W, 3) uint8
    fps: float
    captions: Sequence[str] = ()  # of own clips
    specs: Sequence[SceneSpec] | None = None  # of rendered ones
    state: SceneState | None = None
    depth: Tensor | None = None  # (N, F, H, W) metres, inf in the sky


class Signal:
    """What one kind of condition is learned from."""

    truth: bool = False  # wants depth, beside the frames of rendered clips

    def said(self, caption: str, start: float, stop: float) -> str:
        """What is said of a part of an own clip, seconds. Raises: KinemaError for a caption that does not tell it."""
        return caption

    def read(self, said: str) -> str:
        """What the model itself reads of that."""
        return said

    def kept(self, material: Material, backbone: Any) -> dict[str, Tensor]:
        """What is kept of clips, each (N, ...). Raises: KinemaError for clips that do not tell it."""
        return {}

    def drawn(self, kept: Mapping[str, Tensor], told: Sequence[Any], generator: torch.Generator) -> dict[str, Any]:
        """What a batch learns from, tensors (B, ...) and lists of B: of what was kept, and of scenes or captions."""
        return dict(kept)

    def given(self, drawn: Mapping[str, Any], backbone: Any) -> dict[str, Tensor]:
        """What the network is given of a batch, each (B, ...), as by `Adapter.given`; may ask the text encoder."""
        return dict(drawn)


class Camera(Signal):
    """Rays of the exact path of a rendered clip; of own clips, of the path that can be followed over the ground."""

    def kept(self, material: Material, backbone: Any) -> dict[str, Tensor]:
        count, frames, height, width, _ = material.frames.shape
        if material.state is not None:
            intrinsics, poses = material.state.intrinsics, material.state.world_to_camera
        else:
            found = [_followed(clip, material.fps) for clip in material.frames]
            intrinsics, poses = (torch.stack(each) for each in zip(*found, strict=True))
        cells = backbone.latent_shape(count, frames, height, width)[2:]
        k = backbone.frames_per_latent
        return {"rays": latent_rays(intrinsics.float(), poses.float(), height, width, cells, k).half()}


def _followed(frames: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    """Intrinsics (F, 3, 3) and poses (F, 4, 4) of a clip (F, H, W, 3), in metres if its camera is as high as `HEIGHT`.

    The focal length of the first frame, which nothing tells, is taken for that of the world's cameras.
    """
    from kinema.metrics.camera import camera_path
    from kinema.metrics.viewing import Viewing

    path = camera_path(Viewing(frames.numpy(), fps))
    if path is None:
        raise KinemaError("its camera cannot be followed; give clips with more to see on the ground")
    height, width = frames.shape[1:3]
    intrinsics = torch.eye(3).repeat(len(frames), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = torch.from_numpy(path.focal)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    poses = torch.from_numpy(path.world_to_camera).clone()
    poses[:, :3, 3] *= HEIGHT
    return intrinsics, poses


class Structure(Signal):
    """Depth at several levels of detail, coded as a video, and a frame as a picture of the content.

    Of rendered clips the true depth, so that the network which sees it at other times is no part of the training.
    """

    truth = True
    levels = 3  # of each clip, drawn anew for each

    def kept(self, material: Material, backbone: Any) -> dict[str, Tensor]:
        count, frames = material.frames.shape[:2]
        generator = torch.Generator().manual_seed(int(material.frames.long().sum()) % 2**31)
        levels = LEVELS * torch.rand(count, self.levels, generator=generator)
        levels[torch.rand(count, self.levels, generator=generator) < 0.15] = 0
        coded = []
        for i in range(count):
            exact = (
                structure_of_depth(material.depth[i])
                if material.depth is not None
                else structure(material.frames[i].numpy(), "depth")
            )
            coded.append(structure_video([detail(exact, float(level)) for level in levels[i]]))
        latents = torch.cat([backbone.encode(video.to(backbone.device)) for video in torch.stack(coded, 1)])
        at = torch.randint(frames, (count,), generator=generator)
        return {
            "structure": latents.reshape(self.levels, count, *latents.shape[1:]).transpose(0, 1),
            "level": levels / LEVELS,
            "picture": backbone.encode(varied(material.frames[torch.arange(count), at], generator)),
        }

    def drawn(self, kept: Mapping[str, Tensor], told: Sequence[Any], generator: torch.Generator) -> dict[str, Any]:
        count = len(kept["level"])
        which, row = torch.randint(self.levels, (count,), generator=generator), torch.arange(count)
        return {
            "structure": kept["structure"][row, which].float(),
            "level": kept["level"][row, which].float(),
            "picture": kept["picture"].float(),
            "pictured": torch.rand(count, generator=generator) < self.pictured,
        }

    pictured = 0.3  # share of clips whose content is told by a picture


def varied(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Frames (N, H, W, 3) uint8 as pictures (N, 3, 1, H, W) in -1..1, mirrored and cut out at random.

    So their layout is not that of the clip.
    """
    pictures = as_video(frames[:, None])
    height, width = pictures.shape[3:]
    out = []
    for picture in pictures:
        share, x, y, turn = torch.rand(4, generator=generator).tolist()
        rows, columns = (max(8, int(n * (0.7 + 0.3 * share))) for n in (height, width))
        top, left = int(y * (height - rows)), int(x * (width - columns))
        part = picture[:, 0, top : top + rows, left : left + columns]
        part = torch.nn.functional.interpolate(part[None], (height, width), mode="bilinear")[0]
        out.append(part.flip(-1) if turn < 0.5 else part)
    return torch.stack(out)[:, :, None]


class Intensity(Signal):
    """How fast what moves in a clip moves, of any clip."""

    def kept(self, material: Material, backbone: Any) -> dict[str, Tensor]:
        return {"motion": torch.tensor([pace(clip.cpu().numpy(), material.fps) for clip in material.frames])}


class Events(Signal):
    """Texts of events with exact start and end: of rendered clips in fresh words, of own ones as their captions say.

    Such a caption is a timeline, "0-1.5s: a dog runs | 1.5-4s: it sits down", over the whole clip.
    """

    placed, lit = 0.5, 0.5  # shares of the texts that say the place, and of those the ones that say the sky, too

    def said(self, caption: str, start: float, stop: float) -> str:
        timeline = Timeline.parse(caption)
        if not timeline.timed or timeline.unit != "s":
            raise KinemaError(
                f"the caption {caption[:60]!r} says no times in seconds; write it as in '0-1.5s: text | 1.5-4s: text'"
            )
        events = [
            (e, max(e.span[0] - start, 0.0), min(e.span[1], stop) - start) for e in mint.in_turn(timeline.completed())
        ]
        there = [replace(e, start=round(a, 3), end=round(b, 3)) for e, a, b in events if b - a > 1e-3]
        if not there:
            raise KinemaError(f"nothing happens from {start:g} to {stop:g} s of {caption[:60]!r}; say what does")
        return str(Timeline(tuple(there)))

    def read(self, said: str) -> str:
        return Prompt.parse(said).text

    def kept(self, material: Material, backbone: Any) -> dict[str, Tensor]:
        if not all(spec.events for spec in material.specs or ()):
            raise KinemaError("nothing happens in some of these clips; use a curriculum in which something does")
        return {}

    def drawn(self, kept: Mapping[str, Tensor], told: Sequence[Any], generator: torch.Generator) -> dict[str, Any]:
        seeds = torch.randint(2**31, (len(told),), generator=generator).tolist()
        found = [self._told(each, random.Random(seed)) for each, seed in zip(told, seeds, strict=True)]
        return {
            "texts": [[e.text for e in each] for each in found],
            "spans": [[e.span for e in each] for each in found],
        }

    def given(self, drawn: Mapping[str, Any], backbone: Any) -> dict[str, Tensor]:
        d = backbone.defaults
        times = middles(d.num_frames, d.fps, backbone.frames_per_latent)
        return mint.told(backbone, drawn["texts"], drawn["spans"], times, ahead=backbone.padding)

    def _told(self, clip: SceneSpec | str, rng: random.Random) -> list[Event]:
        if isinstance(clip, str):
            return list(Timeline.parse(clip))
        return [Event(text=self._text(clip, event, rng), start=event.start, end=event.end) for event in clip.events]

    def _text(self, spec: SceneSpec, event: EventSpec, rng: random.Random) -> str:
        """In words that stand alone, for example "a red ball bounces on the grass"."""
        form: Form = rng.choices(("simple", "progressive", "gerund"), (0.75, 0.15, 0.1))[0]
        who = noun_phrase(spec.objects[event.subject], rng, rng.choice(("a", "the")))
        words = [who, verb(spec, event, rng, form)]
        if rng.random() < self.placed:
            words.append(rng.choice(GROUND_PHRASES[spec.ground]))
            words += [rng.choice(SKY_PHRASES[spec.sky])] if rng.random() < self.lit else []
        return " ".join(words)


SIGNALS: dict[str, Signal] = {  # by the condition of an adapter
    "structure": Structure(),
    "camera": Camera(),
    "intensity": Intensity(),
    "events": Events(),
}
