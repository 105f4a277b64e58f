"""A video as passes of the loop, one behind the other: what is carried from each to the next, and its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from kinema.core import checks
from kinema.core.chunks import Chunk
from kinema.core.errors import KinemaError
from kinema.core.loop import loop
from kinema.core.run import Run, prepared, seeded
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone, Conditions
    from kinema.core.footage import Footage
    from kinema.request import Request

Carried = Sequence[Mapping[str, Tensor]]  # what each technique hands to the next chunk, in their order


@dataclass(frozen=True)
class Finished:
    """A chunk that is made, as it is kept: its latents and what else its frames and the next chunk depend on."""

    tensors: Mapping[str, Tensor]
    carried: Carried = field(default_factory=tuple)


class Shelf(Protocol):
    """Where finished chunks are kept, so that a rollout that was interrupted goes on behind them."""

    def load(self, index: int) -> Finished | None: ...

    def save(self, index: int, finished: Finished) -> None: ...


class Rollout:
    """All passes of a video, or of a batch of them. Without a technique that plans chunks it is one.

    Raises: KinemaError, one sentence, before the first pass, for anything in any of them that cannot be honoured.
    """

    def __init__(
        self,
        backbone: Backbone,
        request: Request | Sequence[Request],
        techniques: Sequence[Technique] = (),
        on_step: Callable[[Step, Tensor], None] | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.backbone, self.techniques, self.on_step = backbone, tuple(techniques), on_step
        requests = request if isinstance(request, Sequence) else (request,)
        self.chunks = planned(backbone, requests, self.techniques)  # each for all requests of the batch
        self.opening = opened([chunk.opening for chunk in self.chunks[0]])
        self.finish = self.chunks[0][0].finish
        self.shelf = shelf if len(self.chunks) > 1 else None
        self._carried: Carried = [{} for _ in self.techniques]
        self._most = max(1, *(chunks[0].overlap for chunks in self.chunks))
        self._before = self._last(self.opening)  # frames of the video so far, as many as a chunk may repeat
        self._begun: tuple[Tensor, Conditions] | None = None
        self._heard: list[tuple[Chunk, Conditions]] = []
        if len(self.chunks) > 1 or self.opening is not None:
            self._rehearse()

    @property
    def num_frames(self) -> int | None:
        """Frames of the video; None for one chunk whose model says it."""
        shown = [chunks[0].shown for chunks in self.chunks]
        begun = 0 if self.opening is None else self.opening.shape[1]
        return None if None in shown else begun + sum(n for n in shown if n is not None)

    def begin(self) -> Conditions:
        """Makes the first chunk before anybody asks for its frames; returns what it was made under."""
        self._begun = self._pass(0)
        return self._begun[1]

    @torch.no_grad()
    def frames(self) -> Iterator[Tensor]:
        """Frames (B, n, H, W, 3) uint8, each of the video once, in pieces as they are decoded; asked for once.

        No more of them is held than the next chunk repeats.
        """
        if self.opening is not None:
            yield self.opening
        for i, (chunk, *_) in enumerate(self.chunks):
            latents, conditions = self._begun if i == 0 and self._begun is not None else self._pass(i)
            self._begun = None
            with closing(self.backbone.decode_pieces(latents, conditions)) as pieces:
                for piece in cut(pieces, chunk.overlap, chunk.shown):
                    self._remember(piece)
                    yield piece

    def sound(self) -> tuple[Tensor, int] | None:
        """Waves (B, channels, samples) float32 in -1..1 of all frames, samples per second; None where there is none."""
        parts = [(chunk, conditions.fps, self.backbone.sound(conditions)) for chunk, conditions in self._heard]
        if len(self.chunks) == 1:
            return parts[0][2] if parts else None
        heard = [(chunk, fps, *made) for chunk, fps, made in parts if made is not None]
        return joined(heard) if heard else None

    @torch.no_grad()
    def _pass(self, index: int) -> tuple[Tensor, Conditions]:
        """Clean latents of a chunk, from the shelf where it is finished, and what they were made under."""
        chunks = self.chunks[index]
        requests = self._requests(chunks, self._before)
        kept = None if self.shelf is None else self.shelf.load(index)
        if kept is None:
            finished, conditions = self._made(chunks, requests)
            if self.shelf is not None:
                self.shelf.save(index, finished)
        else:
            finished, conditions = kept, self._restored(requests, kept)
        device = self.backbone.device
        if finished.carried:
            self._carried = [{name: u.to(device) for name, u in handed.items()} for handed in finished.carried]
        if conditions.companion is not None:
            self._heard.append((chunks[0], conditions))
        return finished.tensors["latents"].to(device), conditions

    def _made(self, chunks: Sequence[Chunk], requests: Sequence[Request]) -> tuple[Finished, Conditions]:
        last = chunks[0].index == chunks[0].count - 1
        with self._open(chunks, requests, self._carried, self._before) as run:
            x = loop(run, self.on_step)
            carried = [] if last else [t.carry(run, x) for t in self.techniques]
            random = {f"random.{i}": g.get_state() for i, g in enumerate(run.generators)}
        if not x.isfinite().all():
            names = ", ".join(t.name or type(t).__name__ for t in self.techniques) or "no technique"
            raise KinemaError(
                f"the numbers grew beyond what their type holds, with {names}; use smaller weights, or --dtype float32"
            )
        companion = run.conditions.companion
        beside = {} if companion is None else {"companion": companion.x}
        return Finished({"latents": x, **random, **beside}, carried), run.conditions

    def _restored(self, requests: Sequence[Request], kept: Finished) -> Conditions:
        """The conditions of a finished chunk as they were when it was."""
        conditions = prepared(self.backbone, requests, self.techniques)
        generators = [seeded(r.seed) for r in requests]
        self.backbone.noise(conditions, generators)  # some decoders go on with the random numbers of the run
        for i, generator in enumerate(generators):
            generator.set_state(kept.tensors[f"random.{i}"])
        if conditions.companion is not None:
            conditions.companion.x = kept.tensors["companion"].to(self.backbone.device)
        return conditions

    def _open(
        self,
        chunks: Sequence[Chunk],
        requests: Sequence[Request],
        carried: Carried,
        before: Tensor | None,
        rehearsed: bool = False,
    ) -> AbstractContextManager[Run]:
        return Run.open(self.backbone, requests, self.techniques, chunks[0], carried, before, rehearsed)

    def _requests(self, chunks: Sequence[Chunk], before: Tensor | None) -> list[Request]:
        """The requests of a chunk, with the frames that they are given."""
        if not chunks[0].given:
            return [chunk.request for chunk in chunks]
        assert before is not None
        last = before[:, before.shape[1] - chunks[0].overlap :]
        with named(self._planner()):
            return [self.backbone.continuing(chunk.request, clip) for chunk, clip in zip(chunks, last, strict=True)]

    def _planner(self) -> Technique:
        return next(t for t in self.techniques if t.overrides("chunks"))

    @torch.no_grad()
    def _rehearse(self) -> None:
        """Opens every chunk once, with black frames and nothing carried, so that what cannot be done is known now."""
        seen = []
        for chunks in self.chunks:
            kinds = [(c.request.changed(seed=None), c.overlap, c.given, c.index > 0) for c in chunks]
            if kinds in seen:
                continue
            seen.append(kinds)
            size = (chunks[0].request.height, chunks[0].request.width)
            height, width = size[0] or self.backbone.defaults.height, size[1] or self.backbone.defaults.width
            black = torch.zeros(len(chunks), chunks[0].overlap, height, width, 3, dtype=torch.uint8)
            carried: Carried = [{} for _ in self.techniques]
            opened = self._open(chunks, self._requests(chunks, black), carried, None, rehearsed=True)
            with named(self._planner() if chunks[0].index else None), opened as run:
                made = run.conditions.companion
            if self.opening is not None and made is not None:
                raise KinemaError(f"model {self.backbone.name!r} makes {made.name} of its own; it continues no clips")

    def _last(self, frames: Tensor | None) -> Tensor | None:
        return None if frames is None else frames[:, -self._most :].clone()

    def _remember(self, frames: Tensor) -> None:
        """Keeps the last frames for the chunks to come."""
        if len(self.chunks) > 1:
            self._before = self._last(frames if self._before is None else torch.cat([self._before, frames], dim=1))


def planned(
    backbone: Backbone, requests: Sequence[Request], techniques: Sequence[Technique]
) -> list[tuple[Chunk, ...]]:
    """The chunks of a batch, each as many as there are requests. Raises: KinemaError."""
    checks.owner_of(techniques)
    if not requests:
        raise KinemaError("there is no request; give one or more")
    owner = next((t for t in techniques if t.overrides("chunks")), Technique())
    with named(owner):
        each = [list(owner.chunks(backbone, r)) for r in requests]
    if len(each[0]) > 1:
        each = [[replace(c, shown=_shown(backbone, c)) for c in chunks] for chunks in each]
    shapes = [[(c.overlap, c.given, c.shown) for c in chunks] for chunks in each]
    if not all(shapes) or any(shape != shapes[0] for shape in shapes):
        raise KinemaError(f"{owner.name} makes the requests of a batch in chunks that differ; make them alike")
    for r, chunks in zip(requests, each, strict=True):
        frames = sum(c.shown or 0 for c in chunks) + sum(len(c.opening) for c in chunks if c.opening is not None)
        if len(chunks) > 1 and r.num_frames not in (None, frames):
            raise KinemaError(
                f"{owner.name} makes {frames} frames in {len(chunks)} chunks; num_frames is {r.num_frames}"
            )
    return [tuple(batch) for batch in zip(*map(placed, each), strict=True)]


def placed(chunks: Sequence[Chunk]) -> Iterator[Chunk]:
    """The chunks of a video, each told which one it is."""
    frames = sum(c.shown or 0 for c in chunks) or None
    made = 0
    for i, chunk in enumerate(chunks):
        yield replace(chunk, index=i, count=len(chunks), first=made - chunk.overlap, frames=frames)
        made += chunk.shown or 0


@contextmanager
def named(owner: Technique | None) -> Iterator[None]:
    """A refusal of what a technique plans has its name."""
    try:
        yield
    except KinemaError as error:
        if owner is None or owner.name in str(error):
            raise
        raise KinemaError(f"{owner.name} cannot plan this video: {error}") from None


def _shown(backbone: Backbone, chunk: Chunk) -> int:
    whole = chunk.request.num_frames or backbone.defaults.num_frames
    return whole - chunk.overlap if chunk.shown is None else chunk.shown


def opened(openings: Sequence[Footage | None]) -> Tensor | None:
    """What the videos of a batch begin with, (B, n, H, W, 3) uint8. Raises: KinemaError when they differ in size."""
    frames = [torch.from_numpy(opening.frames) for opening in openings if opening is not None]
    if not frames:
        return None
    if len(frames) != len(openings) or len({f.shape for f in frames}) > 1:
        raise KinemaError("the requests of a batch go on from clips of other sizes or lengths; make them equal")
    return torch.stack(frames)


def cut(pieces: Iterable[Tensor], first: int, count: int | None) -> Iterator[Tensor]:
    """Frames `first` to `first + count` - 1 of a clip in pieces (B, n, H, W, 3); None is all that follow."""
    at = 0
    for piece in pieces:
        part = piece[:, max(first - at, 0) : None if count is None else max(first + count - at, 0)]
        at += piece.shape[1]
        if part.shape[1]:
            yield part
        if count is not None and at >= first + count:
            return


def joined(heard: Sequence[tuple[Chunk, float, Tensor, int]]) -> tuple[Tensor, int]:
    """The sounds of chunks (fps, waves and their rate), of each the part that belongs to the frames it adds."""
    parts = []
    for chunk, fps, waves, rate in heard:
        first, stop = (round(n / fps * rate) for n in (chunk.overlap, chunk.overlap + (chunk.shown or 0)))
        part = waves[..., first:stop]
        parts.append(torch.nn.functional.pad(part, (0, stop - first - part.shape[-1])))
    return torch.cat(parts, dim=-1), heard[0][3]
