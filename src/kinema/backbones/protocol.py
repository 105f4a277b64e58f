"""What a backbone is: the only thing the loop and the techniques know of a model."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kinema.backbones.folder import Folder
    from kinema.core.attention import Site
    from kinema.core.companion import Companion
    from kinema.core.footage import Footage
    from kinema.core.run import Run
    from kinema.core.schedule import Solver
    from kinema.core.technique import Step, Technique
    from kinema.core.tokens import Tokens
    from kinema.core.windows import Window
    from kinema.request import Lora, Placement, Request


@dataclass
class Conditions:
    """A batch of requests as the model wants them: sizes settled, text and images encoded."""

    shape: tuple[int, int, int, int, int]  # latents (B, C, T, H, W)
    num_inference_steps: int
    fps: float
    num_frames: int = 0  # of the video
    scheduler: Any = None  # of diffusers, which brings the batch from noise to data; a solver works on a copy
    prompts: list[str] = field(default_factory=list)
    negative_prompts: list[str] = field(default_factory=list)
    exact: bool = True  # computed as diffusers does, to the bit; otherwise a family may do the same faster
    known: Tensor | None = None  # clean latents (B, C, T, H, W) of given frames; other frames are ignored
    known_frames: Tensor | None = None  # (B or 1, 1, T, 1, 1) bool: which latent frames are given
    inputs: dict[str, Tensor] = field(default_factory=dict)  # the family's own for the network: pictures, ... (B, ...)
    texts: dict[bool, dict[str, Tensor]] = field(default_factory=dict)  # of prompts (False) and negative ones (True)
    more_texts: list[dict[str, Tensor]] | None = None  # what the hook `context` may let frames read
    companion: Companion | None = None  # what is made along with the video, at present only sound
    extra: dict[str, Any] = field(default_factory=dict)  # the family's own notes

    def part(self, window: Window, by_frame: Mapping[str, int]) -> Conditions:
        """Those of some latent frames; what was made of all of them is made anew for these.

        by_frame: inputs by latent frame -> their axis of frames.
        """

        def cut(u: Tensor, dim: int) -> Tensor:
            return u.narrow(dim, window.first, window.stop - window.first)

        batch, channels, _, rows, columns = self.shape
        return replace(
            self,
            shape=(batch, channels, window.stop - window.first, rows, columns),
            known=None if self.known is None else cut(self.known, 2),
            known_frames=None if self.known_frames is None else cut(self.known_frames, 2),
            inputs={name: cut(u, by_frame[name]) if name in by_frame else u for name, u in self.inputs.items()},
            extra={name: value for name, value in self.extra.items() if name not in ("joined", "without_image")},
        )

    def joined(self, each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The inputs of several branches as one batch; what has not changed since the last call is the same object."""
        before, now = self.extra.setdefault("joined", {}), {}
        for name in each[0]:
            parts = [inputs[name] for inputs in each]
            same = name in before and all(a is b for a, b in zip(before[name][0], parts, strict=False))
            now[name] = before[name] if same and len(before[name][0]) == len(parts) else (parts, torch.cat(parts))
        self.extra["joined"] = now
        return {name: tensor for name, (_, tensor) in now.items()}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a request that leaves a field open gets: what the model was trained for, or its authors recommend."""

    height: int  # pixels
    width: int  # pixels
    num_frames: int
    fps: float
    num_inference_steps: int
    guidance_scale: float  # no unit
    embedded_guidance: bool = False  # guidance_scale is told to the network, a second call is a technique's business
    low_noise_guidance_scale: float | None = None  # of the second expert; None is guidance_scale
    first_frame_guidance_scale: float | None = None  # it grows to guidance_scale at the last; None is one for all
    sound_guidance_scale: float | None = None  # of the sound that is made along with the video; None makes none
    perturbed_block: int | None = None  # whose self-attention guidance switches off; None is for the method to say


class Backbone(Protocol):
    """A video diffusion model in kinema's convention (see core/path.py)."""

    name: str  # what the user called it
    family: str  # the file it lives in
    folder: Folder  # where its weights were read
    hooks: frozenset[str]  # hooks of kinema.core.technique.HOOKS it honours
    droppable: frozenset[str]  # conditions that a branch of the guidance may leave out
    defaults: Defaults
    takes_image: bool  # a request may name a first frame
    expert_boundary: float | None  # noise level below which a second expert takes over; None has one expert
    joint_branches: bool  # the branches of the guidance go through the network as one batch: faster, more memory
    channels: int  # of the latents
    frames_per_latent: int  # frames of a latent frame, except the first, which stands for one
    longer_calls: bool  # a call may have more latent frames than there are places, where attention sees parts of them
    padding: int  # latent frames ahead of the clip's first, which are not shown
    frames_step: int  # a video has a multiple of so many frames, and one
    pixels_per_cell: int  # rows and columns of pixels of a latent cell
    time_per_frame: bool  # latent frames may have noise levels of their own
    patch: tuple[int, int, int]  # latent cells of a token: frames, rows, columns
    sites: tuple[Site, ...]  # its attention sites
    block_count: int  # blocks that the hook `skip` may leave out: 0 .. block_count - 1
    lora: tuple[tuple[Lora, str], ...]  # what was put into its networks, with the SHA-256 of each file
    placement: Placement  # how its weights were placed
    device: torch.device
    dtype: torch.dtype

    def prepare(self, requests: Sequence[Request]) -> Conditions:
        """Checks sizes, fills in the model's defaults, encodes text and images. Raises KinemaError."""

    def of_any_length(self) -> Backbone:
        """The same model, which prepares clips of more frames than it has places for; `check_length` comes later."""

    def check_length(self, seen: int) -> None:
        """Raises: KinemaError, one sentence, when `seen` latent frames that attention sees together have no places."""

    def encode_texts(self, prompts: Sequence[str], conditions: Conditions | None = None) -> dict[str, Tensor]:
        """What the network is given of prompts, each (B, ...), read beside the pictures of `conditions`."""

    def word_tokens(self, prompt: str, words: str) -> list[int]:
        """Which text tokens spell a word or phrase of the prompt, counted as attention reads them.

        Raises: KinemaError when the prompt does not say it.
        """

    def check_tokens(self, beside: Sequence[Tokens], conditions: Conditions) -> None:
        """Raises: KinemaError, one sentence, for what cannot stand beside the clip of a run."""

    def part(self, conditions: Conditions, window: Window) -> Conditions:
        """The conditions of some latent frames of a clip, as the network sees them alone."""

    def solver(self, conditions: Conditions) -> Solver: ...

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents of `conditions.shape`, one generator per sample."""

    def velocity(
        self, x: Tensor, t: float | Tensor, conditions: Conditions, dropped: frozenset[str] = frozenset()
    ) -> Tensor:
        """dx/dt at noise level t, with the conditions in `dropped` left out.

        t: a float, or (B,), or (B, T) with one level a latent frame; the frames given in `conditions` are at level 0.
        """

    def velocities(
        self, x: Tensor, t: float | Tensor, conditions: Conditions, branches: Sequence[frozenset[str]]
    ) -> list[Tensor]:
        """The velocity for each set of dropped conditions, all from one call of the network."""

    def decode_pieces(self, x: Tensor, conditions: Conditions | None = None) -> Generator[Tensor, None, None]:
        """The same as `decode`, piece after piece of the clip, so that memory does not grow with it."""

    def decode(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Latents (B, C, T, H, W) -> frames (B, T', H', W', 3) uint8."""

    def encode(self, video: Tensor) -> Tensor:
        """Video (B, 3, T', H', W') in -1..1 -> latents (B, C, T, H, W). Raises: KinemaError for another size."""

    def continues(self, frames: int) -> bool:
        """Whether `continuing` can give the model so many frames, 1 and whole latent frames."""

    def continuing(self, request: Request, frames: Tensor) -> Request:
        """The request, with frames (n, H, W, 3) uint8 that are its first ones, given and clean.

        Raises: KinemaError for a model that takes none.
        """

    def opening(self, request: Request) -> Footage:
        """The clip of a request as what its video begins with: at its size and its rate, with its sound.

        Raises: KinemaError when it cannot be read.
        """

    def sound(self, conditions: Conditions) -> tuple[Tensor, int] | None:
        """What was made along with the latents of a finished run: (B, channels, samples) float32 in -1..1, and samples
        per second; None where a model makes no sound."""

    def grid(self, shape: Sequence[int]) -> Tensor:
        """For latents of `shape`: the (frame, row, column) of each token in latent cells, (L, 3)."""

    def cached(self, run: Run, technique: Technique) -> AbstractContextManager[Backbone]:
        """The model for `run` alone, keeping from call to call what the hook `cache` of `technique` asks for.

        Raises: KinemaError, one sentence, when its networks cannot.
        """

    def at(self, step: Step) -> Backbone:
        """The same model, told which step and branch its next calls are for."""

    def keeping_texts(self) -> AbstractContextManager[Backbone]:
        """This model for one run, which makes of the texts once what does not depend on the latents."""

    def tapped(self, on: bool) -> AbstractContextManager[None]:
        """While open and `on`, attention goes through `kinema.core.attention.current_taps`; undone on leaving."""
