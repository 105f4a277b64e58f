"""The clip and the picture that structure and content are taken from: as passes of the loop, and as latents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.chunks import Chunk, seed_of
from kinema.core.errors import KinemaError
from kinema.core.footage import Finish
from kinema.layers.chunk_prompts import happening
from kinema.layers.clips import encoded, open_picture, sized
from kinema.layers.source import Source, spread
from kinema.layers.structure import Scale, detail, scale_of, structure

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.core.run import Run
    from kinema.request import Request

SAMPLES = 32  # frames of a shot, at most, by which its depth is scaled


@dataclass(frozen=True)
class Part:
    """Frames of one pass: `first` to `stop` - 1, of which `overlap` are there already, in a shot of the source."""

    first: int
    stop: int
    overlap: int
    shot: tuple[int, int]  # first frame and the one after the last


@dataclass(eq=False)
class Plan:
    """What the passes of one video share."""

    source: Source
    parts: Sequence[Part]
    _scales: dict[tuple[int, int], Scale] = field(default_factory=dict)  # of the shot that is being made
    _samples: Source | None = None

    def scale(self, shot: tuple[int, int], kind: str, depth: str) -> Scale:
        """What is black and white in the structure of a whole shot, found in a spread of its frames."""
        if shot not in self._scales:
            self._samples = self._samples or self.source.again()
            pair = kind == "flow"
            numbers = spread(shot[0], max(shot[1] - pair, shot[0] + 1), SAMPLES)
            parts = [self._samples.frames(range(i, min(i + 1 + pair, shot[1]))) for i in numbers]
            self._scales = {shot: scale_of(parts, kind, depth)}
        return self._scales[shot]


def cut_up(shots: Sequence[tuple[int, int]], count: int, size: int, overlap: int) -> Iterator[Part]:
    """The first `count` frames of a clip as parts of at most `size`.

    Every shot begins a part of its own; within it each part begins with the last `overlap` frames of the one ahead.
    Behind the clip's end its last shot goes on.
    """
    for number, (first, stop) in enumerate(shots):
        stop = count if number == len(shots) - 1 else min(stop, count)
        there = begin = first
        while there < stop:
            end = min(begin + size, stop)
            yield Part(begin, end, there - begin, (first, stop))
            there, begin = end, end - overlap


def passes(
    backbone: Backbone, request: Request, source: Source, frames: int | None, overlap: int | None, as_source: bool
) -> list[Chunk]:
    """The passes of the loop in which a request is made along a source.

    frames: of a pass, None is the length that the model was trained on. overlap: frames that a pass repeats. Each is as
    long as it has to be, in whole latent frames; what is too much is not shown. Passes that are given nothing begin
    with one noise.
    """
    k, step = backbone.frames_per_latent, backbone.frames_step
    size = backbone.defaults.num_frames if frames is None else frames
    repeated = overlapping(backbone, size, overlap)
    request = request.changed(**like(backbone, request, source)) if as_source else request
    count = request.num_frames or len(source)
    parts = list(cut_up(source.survey.shots, count, size, repeated))
    plan = Plan(source, parts)
    asks = happening(request, count, request.fps or backbone.defaults.fps, k)
    given = repeated > 0 and backbone.continues(repeated)
    chunks = []
    for i, part in enumerate(parts):
        made = 1 + -(-(part.stop - part.first - 1) // step) * step
        goes_on = given and part.overlap > 0
        changes: dict[str, Any] = dict(num_frames=made, seconds=None, seed=seed_of(request.seed, i if goes_on else 0))
        if i:
            changes |= dict(image=None, last_image=None, video=None, keep=None)
        if len(parts) > 1 or made != count:
            changes |= asks(range(part.first, part.first + made), range(part.first + part.overlap, part.stop))
        shown = part.stop - part.first - part.overlap
        asked = request.changed(**changes)
        finish = finish_of(source) if as_source and i == 0 else None
        chunks.append(Chunk(request=asked, overlap=part.overlap, given=goes_on, shown=shown, finish=finish, notes=plan))
    return chunks


def overlapping(backbone: Backbone, size: int, overlap: int | None) -> int:
    """Frames that a pass repeats. Raises: KinemaError for those that cut a latent frame in two, or leave nothing."""
    k = backbone.frames_per_latent
    if overlap is None:
        overlap = next((n for n in (1 + k, 1) if n < size and backbone.continues(n)), min(1 + k, size - 1))
    if overlap < 0 or (overlap and (overlap - 1) % k) or overlap >= size:
        raise KinemaError(
            f"overlap is {overlap} in passes of {size} frames; use less than these, 0, or 1 and a multiple of {k}"
        )
    return overlap


def like(backbone: Backbone, request: Request, source: Source) -> dict[str, Any]:
    """The source's rate, and the size nearest to its shape of those that the model makes, where none is asked for."""
    survey = source.survey
    height, width = nearest_size(backbone, survey.height / survey.width, request.height, request.width)
    return {"height": height, "width": width, "fps": request.fps or survey.fps}


def nearest_size(
    backbone: Backbone, shape: float, height: int | None = None, width: int | None = None
) -> tuple[int, int]:
    """Height and width in pixels that a model makes, near its own area and a shape, height by width.

    By their logarithms, with the shape counting twice, as the clip is stretched to it; a side that is given stays.
    """
    defaults = backbone.defaults
    area = defaults.height * defaults.width
    units = [backbone.pixels_per_cell * patch for patch in backbone.patch[1:]]
    ideal = math.sqrt(area * shape), math.sqrt(area / shape)
    sides = []
    for given, side, unit in zip((height, width), ideal, units, strict=True):
        near = {max(1, math.floor(side / unit) + more) * unit for more in (0, 1)}
        sides.append(sorted(near) if given is None else [given])

    def off(size: tuple[int, int]) -> float:
        return 2 * abs(math.log(size[0] / size[1] / shape)) + abs(math.log(size[0] * size[1] / area))

    return min(((h, w) for h in sides[0] for w in sides[1]), key=off)


def finish_of(source: Source) -> Finish:
    return Finish(source.survey.height, source.survey.width, source.sound)


def structure_video(maps: Sequence[Tensor]) -> Tensor:
    """Structures (T, H, W), or (T, H, W, 3), in 0..1 -> videos (B, 3, T, H, W) in -1..1, as autoencoders take them."""
    coloured = [u if u.ndim == 4 else u[..., None].expand(-1, -1, -1, 3) for u in maps]
    return torch.stack(coloured).permute(0, 4, 1, 2, 3) * 2 - 1


def structure_latents(run: Run, source: str, cuts: bool, kind: str, depth: str, level: float) -> Tensor:
    """The structure of a pass's part of a clip at a level of detail, latents (1, C, T, H, W) of the size of the run.

    In a rehearsal it is that of the first frame, standing still.
    """
    plan, part = planned(run, source, cuts)
    count = run.conditions.num_frames
    wanted = [min(part.first + i, part.shot[1] - 1) for i in range(count)]
    if run.rehearsed:
        maps = structure(plan.source.frames([0]), kind, depth) if run.chunk.index == 0 else torch.zeros(1, 8, 8)
        maps = maps.expand(count, *maps.shape[1:])
    else:
        behind = [min(wanted[-1] + 1, part.shot[1] - 1)] if kind == "flow" else []  # where the last frame goes
        frames = plan.source.frames([*wanted, *behind])
        maps = structure(frames, kind, depth, plan.scale(part.shot, kind, depth))[:count]
    size = tuple(n * run.backbone.pixels_per_cell for n in run.conditions.shape[3:])
    video = sized(structure_video([detail(maps, level)]), size)
    latents = run.backbone.encode(video.to(run.backbone.device))
    ahead = run.conditions.shape[2] - latents.shape[2]
    return torch.cat([latents[:, :, :1].expand(-1, -1, ahead, -1, -1), latents], dim=2)


def planned(run: Run, source: str, cuts: bool) -> tuple[Plan, Part]:
    """The plan of a run's video and the part that this pass is; all of the clip where nothing was planned."""
    plan = run.chunk.notes
    if isinstance(plan, Plan):
        return plan, plan.parts[run.chunk.index]
    opened = Source.open(source, cuts=cuts)
    whole = Part(0, run.conditions.num_frames, 0, (0, len(opened)))
    return Plan(opened, [whole]), whole


def content_latents(run: Run, picture: str) -> Tensor:
    """A picture as latents (1, C, 1, H, W)."""
    return encoded(run, np.asarray(open_picture(picture, "content"))[None])[:, :, :1]
