"""A longer video, chunk after chunk: each begins with the last frames of the one ahead of it, given as clean frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.core.chunks import Chunk, split
from kinema.core.errors import KinemaError
from kinema.core.keep import in_frames
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.chunk_prompts import happening

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.request import Request


LONGEST = 100_000  # frames, as of a request


@technique("continuation", paper="arXiv:2310.20700", base="LaVie (SEINE)", neutral=dict(frames=100_001))
@dataclass(frozen=True, kw_only=True)
class Continuation(Technique):
    """Chunk c + 1 ~ model(prompt of c + 1 | its first `overlap` frames = the last `overlap` of chunk c).

    The prompt of a chunk is what happens in the frames that it adds. A clip of the request, where `keep` is left out,
    is what the video begins with; then the prompt counts from its end.

    Paper: "SEINE: Short-to-Long Video Diffusion Model for Generative Transition and Prediction", 2023,
    arXiv:2310.20700; its prediction, given the first frames and rolled on. One frame loses the velocity, three keep it.
    Departures: no channels of a mask and no training: the model's own way of being given clean frames is used, which
    has to have learned that; a causal autoencoder encodes the given frames anew, as the beginning of a clip, and they
    are whole latent frames. Every chunk has its own seed, drawn from the request's. The last chunk is as long as the
    others, and what it makes beyond the end is not shown.
    Shapes: frames are (B, overlap, H, W, 3) uint8.
    Raises: KinemaError before the first chunk, for lengths that leave nothing to be made, for a last picture, and for
    models that take no clean frames there.
    """

    frames: int | None = None  # of a chunk; None is the length that the model was trained on
    overlap: int = 5  # frames that a chunk is given, 1 plus whole latent frames
    seconds: float | None = None  # by which a clip is continued, above 0; None is what num_frames leaves

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        size = backbone.defaults.num_frames if self.frames is None else self.frames
        fps = request.fps or backbone.defaults.fps
        opening = backbone.opening(request) if request.video is not None and request.keep is None else None
        there = 0 if opening is None else len(opening)
        self._check(backbone, there, size, fps)
        frames = request.num_frames or (
            backbone.defaults.num_frames if opening is None else there + size - self.overlap
        )
        if self.seconds is not None:
            frames = there + max(1, round(self.seconds * fps))
        if frames <= there:
            raise KinemaError(f"num_frames is {frames}, and the clip to go on from has {there}; use more")
        if frames > size or opening is not None:
            self._check_given(request)
        asks = happening(request, frames, fps, backbone.frames_per_latent, there)
        return split(request, frames, size, self.overlap, given=True, asks=asks, opening=opening)

    def _check(self, backbone: Backbone, there: int, size: int, fps: float) -> None:
        k = backbone.frames_per_latent
        if self.overlap < 1 or (self.overlap - 1) % k:
            below = max(self.overlap - 1, 0) // k * k + 1
            raise KinemaError(
                f"overlap of {self.name} is {self.overlap}; use whole latent frames: {below} or {below + k}"
            )
        if size <= self.overlap:
            raise KinemaError(
                f"frames of {self.name} is {size}, and each pass is given {self.overlap} of them; use more"
            )
        if 0 < there < self.overlap:
            raise KinemaError(
                f"the clip has {in_frames(there)}, and overlap of {self.name} is {self.overlap}; use a longer clip, or "
                "less"
            )
        if self.seconds is not None and (not there or self.seconds <= 0):
            raise KinemaError(
                f"seconds of {self.name} is {self.seconds:g}; use more than 0, with a clip to go on from as video and "
                "without keep"
            )
        if self.seconds is not None and self.seconds * fps > LONGEST:
            raise KinemaError(
                f"seconds of {self.name} is {self.seconds:g}; use at most {LONGEST / fps:g}, which is {LONGEST} frames"
            )

    def _check_given(self, request: Request) -> None:
        if request.last_image is not None:
            raise KinemaError(f"{self.name} goes on from first frames alone; leave last_image out")
        if request.keep is not None and "-" in request.keep:
            raise KinemaError(
                f"keep is {request.keep!r}, and {self.name} goes on from first frames; keep some as in 0:5"
            )
