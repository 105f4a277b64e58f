"""What the families share: sizes, text, guidance branches in one call, decoding. A family file adds its translation.

A family opens a folder into the modules of a diffusers pipeline and, where it helps, into the pipeline object itself,
whose own methods then prepare prompts and pictures; the forward of every network stays in diffusers.
"""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kinema.backbones import continuing, encoding, parallel, reuse, solvers, texts, watched
from kinema.backbones.codec import Codec
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.sizes import check_multiple, check_seen, defaults_of, settled
from kinema.backbones.taps import AttentionDoor, TappedProcessor
from kinema.backbones.words import Spelling, spelled
from kinema.core.attention import PADDING, Site, current_taps
from kinema.core.errors import KinemaError
from kinema.core.schedule import Solver
from kinema.request import Placement

if TYPE_CHECKING:
    from kinema.core.footage import Footage
    from kinema.core.run import Run
    from kinema.core.technique import Step, Technique
    from kinema.core.tokens import Tokens
    from kinema.core.windows import Window
    from kinema.request import Lora, Request

ALL_HOOKS = frozenset(
    {"init_noise", "before_step", "after_step", "velocity", "positions", "attend", "tokens", "skip", "guide", "clean"}
    | {"reword", "features", "context", "cache", "finish"}
)


class DiffusersBackbone(ABC):
    """A diffusers model in kinema's convention (see core/path.py and backbones/protocol.py).

    x is (B, C, T, H, W) in the units in which the transformer was trained, in the solver's number type outside the
    transformer whatever the transformer's own is.
    """

    family: ClassVar[str]
    hooks: frozenset[str] = ALL_HOOKS
    droppable: frozenset[str] = frozenset({"text"})
    tapped_processor: ClassVar[type[TappedProcessor]]
    text_networks: ClassVar[tuple[str, ...]] = ()  # in which layers see the texts alone, see texts.py
    solver_kind: ClassVar[Callable[..., Solver]] = Solver
    schedulers: Mapping[str, str] = {}
    transformer: Any
    codec: Codec
    expert_boundary: float | None = None
    joint_branches: bool = True
    takes_image = False
    needs_image = False
    takes_last_image = False
    takes_video = False  # parts of a clip, at any place that the model has learned
    coded_apart: ClassVar[bool] = False  # its autoencoder takes one sample at a time
    always_conditioned = False  # `condition` has something to enter for text alone, too
    reads_text = True
    context_parallel: ClassVar[bool] = False  # its networks can share the tokens of a video; see backbones/parallel.py
    lora: tuple[tuple[Lora, str], ...] = ()
    placement: Placement = Placement()

    def __init__(
        self, *, folder: Folder, scheduler: Any, vae: Any, device: torch.device, dtype: torch.dtype, defaults: Defaults
    ) -> None:
        self.folder, self.name = folder, folder.name
        self.scheduler, self.vae = scheduler, vae
        self.device, self.dtype = device, dtype
        self.defaults = defaults_of(folder, defaults)
        # diffusers' causal autoencoders keep frames on themselves while at work, fast tokenizers their padding.
        self._coding = threading.RLock()
        found = list(self.attentions())
        self.sites = tuple(dict.fromkeys(site for site, _ in found))
        blocks = list(self.blocks()) if "skip" in self.hooks else []
        self.block_count = 1 + max((index for index, _ in blocks), default=-1)
        self._door = AttentionDoor(found, self.tapped_processor, blocks, self.text_readers(), self.passages())

    # What a family says.

    frames_per_latent: int = 1  # frames of a latent frame, except the first, which stands for one
    pixels_per_cell: int = 8
    patch: tuple[int, int, int] = (1, 1, 1)  # latent cells of a token: frames, rows, columns
    most_tokens: tuple[int | None, int | None, int | None] = (None, None, None)  # along frames, rows, columns
    longer_calls: ClassVar[bool] = False  # a call may have more frames than that, where attention sees parts of them
    channels: int  # of the latents
    # Inputs by latent frame -> their axis of frames.
    by_frame: Mapping[str, int] = {"picture": 2, "control": 2, "known_frames": 1}
    padding: int = 0  # latent frames before the clip's first, which are not shown
    time_per_frame: bool = False  # latent frames may have noise levels of their own

    @abstractmethod
    def attentions(self) -> Iterable[tuple[Site, Any]]:
        """The attention sites with their modules, in the order they are passed."""

    def blocks(self) -> Iterable[tuple[int, Any]]:
        """The blocks that may be left out, numbered as in `attentions`."""
        network = self.transformer
        return enumerate([*network.transformer_blocks, *getattr(network, "single_transformer_blocks", ())])

    def passages(self) -> Iterable[tuple[int, Any]]:
        """Modules whose output is features of the clip, frame by frame (B T, C, H, W), where `blocks` has none."""
        return ()

    def text_readers(self) -> Iterable[Any]:
        """Modules of the network that read a text as a whole, and not token by token."""
        return ()

    @abstractmethod
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the transformer is given of prompts, each (B, ...)."""

    @abstractmethod
    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        """The velocity at x from one call of the network; all `inputs` have the batch size of x."""

    @abstractmethod
    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        """Latents -> video (B, 3, n, H', W') in -1..1, piece after piece; see `backbones/decoding.py`."""

    def one_level(self, t: float | Tensor) -> None:
        """Raises: KinemaError when `t` is a level a latent frame; for families with one clock for the whole clip."""
        if isinstance(t, Tensor) and t.ndim > 1:
            raise KinemaError(f"model {self.name!r} has one noise level for the whole clip; use a model like TI2V")

    def check_words(self, requests: Sequence[Request]) -> None:
        """Raises: KinemaError when a model that reads prompts gets none, or one that reads none gets some."""
        if self.reads_text and not all(r.text or r.video is not None for r in requests):
            raise KinemaError(f"prompt is empty, and model {self.name!r} reads one; say what the video shows")
        if not self.reads_text and any(r.text or r.negative_prompt for r in requests):
            raise KinemaError(f"model {self.name!r} reads no words; leave prompt and negative_prompt out or empty")

    def check_images(self, requests: Sequence[Request]) -> None:
        """Raises: KinemaError when the pictures of a batch are not those this model wants."""
        given = {(r.image is not None, r.last_image is not None, r.video is not None) for r in requests}
        if len(given) != 1:
            raise KinemaError("the requests of a batch differ in their images; give each of them the same kinds")
        image, last_image, video = given.pop()
        if video and not self.takes_video:
            raise KinemaError(f"model {self.name!r} keeps no frames of a clip; leave video out")
        if image and not self.takes_image:
            raise KinemaError(f"model {self.name!r} makes video from text alone; leave image out")
        if self.needs_image and not image:
            raise KinemaError(f"model {self.name!r} makes video from an image; give one")
        if last_image and not image:
            raise KinemaError("last_image needs an image for the first frame; give both")
        if last_image and not self.takes_last_image:
            raise KinemaError(f"model {self.name!r} takes a first image only; leave last_image out")

    def condition(  # noqa: B027 - most models have nothing to add
        self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]
    ) -> None:
        """Enters what is given beside text, above all the pictures of a batch, into `conditions`.

        size: frames, height and width of the video, pixels.
        """

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        """What the scheduler's `set_timesteps` is told beside the number of steps."""
        return {}

    # The face.

    @torch.no_grad()
    def prepare(self, requests: Sequence[Request]) -> Conditions:
        """Sizes, text and images of a batch. Raises: KinemaError for what this model cannot make."""
        frames, height, width, steps, fps = self.settle(requests)
        self.check_words(requests)
        self.check_images(requests)
        shape = self.latent_shape(len(requests), frames, height, width)
        if self.placement.context_parallel:
            parallel.check(self, requests, shape)
        conditions = Conditions(
            shape=shape,
            num_inference_steps=steps,
            fps=fps,
            num_frames=frames,
            scheduler=self.choose_scheduler(requests, shape),
            prompts=[r.text for r in requests],
            negative_prompts=[r.negative_prompt or "" for r in requests],
        )
        if requests[0].image is not None or requests[0].video is not None or self.always_conditioned:
            with self._coding:
                self.condition(conditions, requests, (frames, height, width))
        self.text(conditions, frozenset())  # behind the pictures: some text encoders look at them
        return conditions

    def part(self, conditions: Conditions, window: Window) -> Conditions:
        return conditions.part(window, self.by_frame)

    def latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        k, p = self.frames_per_latent, self.pixels_per_cell
        return batch, self.channels, (frames - 1) // k + 1 + self.padding, height // p, width // p

    def choose_scheduler(self, requests: Sequence[Request], shape: Sequence[int]) -> Any:
        """What solves a batch of latents of `shape`. Raises: KinemaError for what this model cannot be solved with."""
        d = self.defaults
        trained = self.latent_shape(1, d.num_frames, d.height, d.width)
        tokens, trained_tokens = (math.prod(s[2:]) for s in (shape, trained))
        return solvers.chosen(self.scheduler, self.schedulers, requests, tokens, trained_tokens, self.name)

    def solver(self, conditions: Conditions) -> Solver:
        options = self.schedule_options(conditions)
        return self.solver_kind(conditions.scheduler, conditions.num_inference_steps, self.device, **options)

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents, float32; drawn on the generator's device, so that a seed means the same everywhere."""
        return unit_noise(conditions.shape, generators, self.device)

    def velocity(
        self, x: Tensor, t: float | Tensor, conditions: Conditions, dropped: frozenset[str] = frozenset()
    ) -> Tensor:
        """dx/dt = noise - x0 for x (B, C, T, H, W) at noise level t: a float, (B,), or (B, T) for one a latent frame.

        The result has the type of x, so that guidance is computed in it also where the transformer is bfloat16;
        diffusers' pipelines guide in bfloat16 there. Frames given in `conditions` are at level 0. `dropped` may hold
        "text": the negative prompt stands in.
        Raises: KinemaError for levels by frame on a model that has one clock for the whole clip.
        """
        return self.velocities(x, t, conditions, [dropped])[0]

    def velocities(
        self, x: Tensor, t: float | Tensor, conditions: Conditions, branches: Sequence[frozenset[str]]
    ) -> list[Tensor]:
        """The velocity for each set of dropped conditions, from one call of the network where inputs agree in size."""
        each = [self.inputs(conditions, dropped) for dropped in branches]
        shapes = [{name: tensor.shape for name, tensor in inputs.items()} for inputs in each]
        if any(other != shapes[0] for other in shapes):
            return [self.velocity(x, t, conditions, dropped) for dropped in branches]
        inputs = conditions.joined(each) if len(each) > 1 else each[0]
        repeated = torch.cat([x] * len(branches)) if len(branches) > 1 else x
        if isinstance(t, Tensor) and t.ndim and len(branches) > 1:
            t = torch.cat([t] * len(branches))
        taps = current_taps.get()
        if taps is None:
            v = self.predict(repeated, t, inputs, conditions)
        else:
            v = watched.velocity(self, taps, repeated, t, inputs, conditions, branches)
        return list(v.to(x.dtype).chunk(len(branches)))

    def inputs(self, conditions: Conditions, dropped: frozenset[str]) -> dict[str, Tensor]:
        """All tensors that one branch of the guidance hands to `predict`, each (B, ...)."""
        found = {**self.text(conditions, dropped), **conditions.inputs}
        if conditions.known_frames is not None:
            batch, _, frames, _, _ = conditions.shape
            found["known_frames"] = conditions.known_frames[:, 0, :, 0, 0].expand(batch, frames)
        if "image" in dropped:
            if "without_image" not in conditions.extra:
                conditions.extra["without_image"] = self.without_image(conditions)
            found |= conditions.extra["without_image"]
        return found

    def without_image(self, conditions: Conditions) -> dict[str, Tensor]:
        """What stands for the inputs made of a picture where it is left out, as in the training of the network."""
        return {}

    def text(self, conditions: Conditions, dropped: frozenset[str]) -> dict[str, Tensor]:
        """What the transformer reads of the prompts, or of the negative ones; made when first asked for."""
        negative = "text" in dropped
        if negative not in conditions.texts:
            prompts = conditions.negative_prompts if negative else conditions.prompts
            conditions.texts[negative] = self.encode_texts(prompts, None if negative else conditions)
        return conditions.texts[negative]

    @torch.no_grad()
    def encode_texts(self, prompts: Sequence[str], conditions: Conditions | None = None) -> dict[str, Tensor]:
        """What the network is given of prompts; one thread at a time, because tokenizers keep their padding.

        conditions: of the run whose pictures the prompts are read beside, where a text encoder looks at them.
        """
        with self._coding:
            return self.text_inputs(prompts)

    def word_tokens(self, prompt: str, words: str) -> list[int]:
        """Which text tokens spell `words` in the prompt, counted as attention reads them (`Positions.text_keys`).

        Raises: KinemaError when the prompt does not say them.
        """
        with self._coding:
            return spelled(words, self.spelling(prompt))

    def spelling(self, prompt: str) -> Spelling:
        """What each text token spells that attention reads of a prompt."""
        raise KinemaError(f"model {self.name!r} reads no words; name none")

    def join_texts(self, texts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Several prompts' inputs as one, their tokens one behind the other."""
        return {name: torch.cat([text[name] for text in texts], dim=1) for name in texts[0]}

    def owners(self, inputs: Mapping[str, Tensor], texts: int) -> Tensor | None:
        """To which of several texts each text token of joint attention belongs, see `Taps.owners`.

        Where all tokens of a text count, which is what a family without `text_mask` has.
        """
        mask = inputs.get("text_mask")
        length = inputs["text"].shape[1] // texts
        owner = torch.arange(texts, device=self.device).repeat_interleave(length)[None]
        return owner if mask is None else torch.where(mask.bool(), owner, PADDING)

    def check_tokens(self, beside: Sequence[Tokens], conditions: Conditions) -> None:
        """Raises: KinemaError for what cannot stand beside the clip of a run."""
        watched.check(self, beside, conditions)

    @torch.no_grad()
    def decode_pieces(self, x: Tensor, conditions: Conditions | None = None) -> Generator[Tensor, None, None]:
        """Latents (B, C, T, H, W) -> frames (B, n, H', W', 3) uint8 on the CPU, piece after piece as they are decoded.

        Until the last piece, or `close`, other threads wait for the autoencoder.
        """
        with self._coding:
            for piece in self.pixels(x, conditions):
                video = (piece.float() * 0.5).add_(0.5).clamp_(0, 1).mul_(255).round_()
                yield video.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu()

    def decode(self, x: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Latents (B, C, T, H, W) -> frames (B, 1 + k (T - 1), H', W', 3) uint8."""
        return torch.cat(list(self.decode_pieces(x, conditions)), dim=1)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video (B, 3, 1 + k n, H', W') in -1..1 -> latents (B, C, T, H, W) float32, which `pixels` makes video of.

        The mode of the autoencoder's posterior, as x0 of the path. Raises: KinemaError for another size.
        """
        if video.ndim != 5 or video.shape[1] != 3:
            raise KinemaError(f"a video has the shape {tuple(video.shape)}; give (batch, 3, frames, height, width)")
        check_multiple("num_frames", video.shape[2] - 1, self.frames_per_latent, None, add=1)
        for name, value in zip(("height", "width"), video.shape[3:], strict=True):
            check_multiple(name, value, self.pixels_per_cell, None, least=self.pixels_per_cell)
        with self._coding:
            z = encoding.modes(self.vae, video.to(self.device, self.vae.dtype), self.coded_apart)
        return self.scaled(z.float())

    def scaled(self, z: Tensor) -> Tensor:
        """Latents in the units of the autoencoder -> x."""
        return self.codec.scaled(z)

    def continues(self, frames: int) -> bool:
        return continuing.learned(self, frames)

    def continuing(self, request: Request, frames: Tensor) -> Request:
        return continuing.after(self, request, frames)

    def opening(self, request: Request) -> Footage:
        return continuing.opening(self, request)

    def sound(self, conditions: Conditions) -> tuple[Tensor, int] | None:
        """Waves (B, channels, samples) float32 in -1..1 and samples per second; None, as the model makes no sound."""
        return None

    def grid(self, shape: Sequence[int]) -> Tensor:
        """(frame, row, column) of the first latent cell of each token, (L, 3), in the order of the transformer."""
        counts = [n // p for n, p in zip(shape[-3:], self.patch, strict=True)]
        axes = [torch.arange(n, device=self.device) * p for n, p in zip(counts, self.patch, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def cached(self, run: Run, technique: Technique) -> AbstractContextManager[DiffusersBackbone]:
        return reuse.cached(self, run, technique)

    def keeping_texts(self) -> AbstractContextManager[DiffusersBackbone]:
        if not self.text_networks or self.placement != Placement():
            return nullcontext(self)
        return texts.kept(self, self.text_networks)

    def at(self, step: Step) -> DiffusersBackbone:
        return self

    def tapped(self, on: bool) -> AbstractContextManager[None]:
        if self.placement.context_parallel:
            return parallel.alone(self)
        return self._door.opened() if on else nullcontext()

    # Sizes.

    def of_any_length(self) -> DiffusersBackbone:
        other = copy.copy(self)
        other.most_tokens = (None, *self.most_tokens[1:])
        return other

    def check_length(self, seen: int) -> None:
        check_seen(self, seen)

    @property
    def frames_step(self) -> int:
        """A video has a multiple of so many frames, and one."""
        return self.frames_per_latent * self.patch[0]

    def settle(self, requests: Sequence[Request]) -> tuple[int, int, int, int, float]:
        """num_frames, height, width, num_inference_steps and fps of a batch, open fields filled in and checked."""
        return settled(self, requests)


def unit_noise(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """Unit normal float32 of `shape`, sample by sample from its own generator, on whose device it is drawn."""
    drawn = [torch.randn((1, *shape[1:]), generator=g, device=g.device, dtype=torch.float32) for g in generators]
    return torch.cat(drawn).to(device)
