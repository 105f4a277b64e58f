"""The Wan family: Wan 2.1 and 2.2, text and image to video, one transformer or two, and models of their architecture.

Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025, arXiv:2503.20314. A Wan transformer
already gives noise - x0 on x_t = (1 - t) x0 + t noise; the border only turns t into its clock, 1000 t, and gives every
token its own time where the model wants it. Latents and frames equal those of diffusers' Wan pipelines.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from kinema.backbones import wan_images
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.wan_attention import AttentionDoor, attentions
from kinema.core.attention import Positions, current_taps
from kinema.core.errors import KinemaError
from kinema.core.schedule import Solver
from kinema.models.text import encode_text, tokenize

if TYPE_CHECKING:
    from kinema.request import Request

PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
CHECKPOINTS = (  # the layouts this file is written for
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
)
MAX_TOKENS = 512  # length Wan pads its prompts to; a smaller tokenizer says so itself
CLOCK = 1000  # the model's time at t = 1


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> WanBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import transformers
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        UniPCMultistepScheduler,
        WanTransformer3DModel,
    )

    from kinema.models.autoencoder import AutoencoderKLKinema

    def module(part: str, *known: type, dtype: torch.dtype = dtype) -> Any:
        return folder.module(part, {kind.__name__: kind for kind in known}, device, dtype)

    scheduler = folder.scheduler(
        {kind.__name__: kind for kind in (UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler)}
    )
    _check_flow(scheduler, folder)
    image_encoder = image_processor = None
    if folder.declared("image_encoder"):
        image_encoder = module(
            "image_encoder", transformers.CLIPVisionModel, transformers.CLIPVisionModelWithProjection
        )
        kinds = [getattr(transformers, name) for name in dir(transformers) if name.startswith("CLIPImageProcessor")]
        image_processor = folder.processor({kind.__name__: kind for kind in kinds})
    boundary = folder.index.get("boundary_ratio")
    return WanBackbone(
        folder=folder,
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", transformers.UMT5EncoderModel),
        transformer=module("transformer", WanTransformer3DModel),
        transformer_2=None if boundary is None else module("transformer_2", WanTransformer3DModel),
        vae=module("vae", AutoencoderKLWan, AutoencoderKLKinema, dtype=torch.float32),
        scheduler=scheduler,
        image_encoder=image_encoder,
        image_processor=image_processor,
        device=device,
        dtype=dtype,
    )


def _check_flow(scheduler: Any, folder: Folder) -> None:
    """Only noise levels 0..1 and velocities: anything else would be another convention."""
    config = scheduler.config
    flow = config.get("prediction_type", "flow_prediction") == "flow_prediction" and config.get("use_flow_sigmas", True)
    if not flow or config.get("use_dynamic_shifting") or config.num_train_timesteps != CLOCK:
        raise KinemaError(
            f"scheduler of model {folder.name!r} is not a flow scheduler of {CLOCK} timesteps with a fixed shift, "
            "as the Wan family needs; take the one of its checkpoint"
        )


class WanBackbone:
    """A Wan model in kinema's convention (see core/path.py and backbones/protocol.py).

    x is (B, C, T, H, W) in normalised latent units, float32 outside the transformer whatever its dtype is.
    """

    family = "wan"
    hooks = frozenset(
        {"init_noise", "before_step", "after_step", "velocity", "positions", "attend", "guide", "clean", "finish"}
    )
    droppable = frozenset({"text"})

    def __init__(
        self,
        *,
        folder: Folder,
        tokenizer: Any,
        text_encoder: Any,
        transformer: Any,
        transformer_2: Any,
        vae: Any,
        scheduler: Any,
        image_encoder: Any,
        image_processor: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.folder = folder
        self.name = folder.name
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.transformer = transformer
        self.transformer_2 = transformer_2
        self.vae = vae
        self.scheduler = scheduler
        self.image_encoder = image_encoder
        self.image_processor = image_processor
        self.device = device
        self.dtype = dtype
        boundary = folder.index.get("boundary_ratio")
        self.expert_boundary: float | None = None if boundary is None else float(boundary)
        self.time_per_frame = bool(folder.index.get("expand_timesteps", False))
        self._check_parts()
        self.defaults = _defaults(self)
        self.sites = tuple(site for site, _ in attentions(transformer))
        self._door = AttentionDoor([m for m in (transformer, transformer_2) if m is not None])

    def _check_parts(self) -> None:
        z, config = self.vae.config.z_dim, self.transformer.config
        wanted = (z, z) if not self.needs_image else (2 * z + self.frames_per_latent, z)
        if (config.in_channels, config.out_channels) != wanted:
            raise KinemaError(
                f"transformer of model {self.name!r} has {config.in_channels} channels in and {config.out_channels} "
                f"out, its autoencoder has {z}; they do not belong together"
            )
        if config.image_dim is not None and self.image_encoder is None:
            raise KinemaError(f"model {self.name!r} looks at its image through an image_encoder, but has none")

    # What the model is.

    @property
    def frames_per_latent(self) -> int:
        """Frames of a latent frame, except the first, which stands for one."""
        return int(self.vae.config.scale_factor_temporal)

    @property
    def pixels_per_cell(self) -> int:
        return int(self.vae.config.scale_factor_spatial)

    @property
    def needs_image(self) -> bool:
        """Image-to-video only: the image comes as channels beside the latents."""
        return int(self.transformer.config.in_channels) != int(self.vae.config.z_dim)

    @property
    def takes_image(self) -> bool:
        return self.needs_image or self.time_per_frame

    @property
    def takes_last_image(self) -> bool:
        """Whether a model with a time per frame was trained with a given last frame; its card says so."""
        return self.time_per_frame and bool(self.folder.card.get("takes_last_image", False))

    @cached_property
    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and reciprocal deviation of the autoencoder's latents, (1, C, 1, 1, 1) each."""
        config = self.vae.config
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
        scale = 1.0 / torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
        return mean.to(self.device), scale.to(self.device)

    # The face.

    @torch.no_grad()
    def prepare(self, requests: Sequence[Request]) -> Conditions:
        """Sizes, text and images of a batch. Raises: KinemaError for what this model cannot make."""
        frames, height, width, steps, fps = self._settle(requests)
        shape = (
            len(requests),
            int(self.vae.config.z_dim),
            (frames - 1) // self.frames_per_latent + 1,
            height // self.pixels_per_cell,
            width // self.pixels_per_cell,
        )
        wan_images.check(self, requests)
        conditions = Conditions(shape=shape, num_inference_steps=steps, fps=fps)
        conditions.inputs["text"] = self.encode_prompt([r.prompt for r in requests])
        conditions.inputs["negative_prompt"] = [r.negative_prompt or "" for r in requests]
        if requests[0].image is not None:
            wan_images.condition(self, conditions, requests, (frames, height, width))
        return conditions

    def solver(self, conditions: Conditions) -> Solver:
        return Solver(self.scheduler, conditions.num_inference_steps, self.device)

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents, float32; drawn on the generator's device, so that a seed means the same everywhere."""
        _, *one = conditions.shape
        drawn = [torch.randn((1, *one), generator=g, device=g.device, dtype=torch.float32) for g in generators]
        return torch.cat(drawn).to(self.device)

    def velocity(
        self, x: Tensor, t: float | Tensor, conditions: Conditions, dropped: frozenset[str] = frozenset()
    ) -> Tensor:
        """dx/dt = noise - x0 for x (B, C, T, H, W) at noise level t: a float, (B,), or (B, T) for one a latent frame.

        The result has the type of x, so that guidance is computed in float32 also where the transformer is bfloat16;
        diffusers' pipelines guide in bfloat16, the only difference to them. Frames given in `conditions` are at
        level 0. `dropped` may hold "text": the negative prompt stands in.
        Raises: KinemaError for levels by frame on a model that has one clock for the whole clip.
        """
        model = self._expert(t)
        inputs = conditions.inputs
        latents = x if "picture" not in inputs else torch.cat([x, inputs["picture"]], dim=1)
        taps = current_taps.get()
        if taps is not None:
            places = self.grid(x.shape)
            token = current_taps.set(dataclasses.replace(taps, positions=Positions(places, places)))
        try:
            v: Tensor = model(
                hidden_states=latents.to(self.dtype),
                timestep=self._timestep(t, x, conditions.known_frames),
                encoder_hidden_states=self._text(conditions, dropped),
                encoder_hidden_states_image=inputs.get("image_tokens"),
                return_dict=False,
            )[0]
        finally:
            if taps is not None:
                current_taps.reset(token)
        return v.to(x.dtype)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Latents (B, C, T, H, W) -> frames (B, 1 + 4 (T - 1), H', W', 3) uint8."""
        mean, scale = self._latent_statistics
        z = x.to(self.vae.dtype)
        video: Tensor = self.vae.decode(z / scale + mean, return_dict=False)[0]  # (B, 3, T', H', W'), -1..1
        video = (video.float() * 0.5 + 0.5).clamp(0, 1)
        return (video * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).cpu()

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Video (B, 3, 1 + 4k, H', W') in -1..1 -> normalised latents (B, C, 1 + k, H, W) float32, without sampling."""
        mean, scale = self._latent_statistics
        z: Tensor = self.vae.encode(video.to(self.device, self.vae.dtype)).latent_dist.mode()
        return (z.float() - mean) * scale

    def grid(self, shape: Sequence[int]) -> Tensor:
        """(frame, row, column) of the first latent cell of each token, (L, 3), in the order of the transformer."""
        patch = self.transformer.config.patch_size
        counts = [n // p for n, p in zip(shape[-3:], patch, strict=True)]
        axes = [torch.arange(n, device=self.device) * p for n, p in zip(counts, patch, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def tapped(self, on: bool) -> AbstractContextManager[None]:
        return self._door.opened() if on else nullcontext()

    # Text.

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, P, D), zero behind the end of each prompt, as diffusers' WanPipeline makes them."""
        length = min(MAX_TOKENS, self.tokenizer.model_max_length)
        ids, mask = tokenize(self.tokenizer, [clean_prompt(p) for p in prompts], length)
        text = encode_text(self.text_encoder, ids.to(self.device), mask.to(self.device)).to(self.dtype)
        if self.transformer.config.added_kv_proj_dim is not None:
            # Behind image tokens diffusers counts 512 text tokens from the end, whatever the tokenizer says.
            text = torch.nn.functional.pad(text, (0, 0, 0, MAX_TOKENS - text.shape[1]))
        return text

    def _text(self, conditions: Conditions, dropped: frozenset[str]) -> Tensor:
        """The prompt's embeddings, or the negative prompt's, made when they are first asked for."""
        inputs, name = conditions.inputs, "negative_text" if "text" in dropped else "text"
        if name not in inputs:
            inputs[name] = self.encode_prompt(inputs["negative_prompt"])
        return cast(Tensor, inputs[name])

    # Time.

    def _expert(self, t: float | Tensor) -> Any:
        """The transformer for noise level t: the second one below the boundary."""
        level = float(t.max()) if isinstance(t, Tensor) else t
        return self.transformer if self.expert_boundary is None or level >= self.expert_boundary else self.transformer_2

    def _timestep(self, t: float | Tensor, x: Tensor, known_frames: Tensor | None) -> Tensor:
        """The model's clock: (B,), or (B, L) where each token has its own."""
        batch, _, frames, rows, columns = x.shape
        clock = CLOCK * torch.as_tensor(t, dtype=torch.float64, device=x.device)
        if not self.time_per_frame:
            if clock.ndim == 2:
                raise KinemaError(f"model {self.name!r} has one noise level for the whole clip; use a model like TI2V")
            return clock.expand(batch).float()
        clock = clock.reshape(-1, 1) if clock.ndim == 1 else clock
        clock = clock.expand(batch, frames).float()
        if known_frames is not None:
            clock = clock.masked_fill(known_frames[:, 0, :, 0, 0].expand(batch, frames), 0.0)
        patch = self.transformer.config.patch_size
        tokens = (rows // patch[1]) * (columns // patch[2])
        return clock[:, :: patch[0]].repeat_interleave(tokens, dim=1)

    # Sizes.

    def _settle(self, requests: Sequence[Request]) -> tuple[int, int, int, int, float]:
        """num_frames, height, width, num_inference_steps and fps of a batch, open fields filled in and checked."""
        settled = set()
        for r in requests:
            d = self.defaults
            steps, fps = r.num_inference_steps or d.num_inference_steps, r.fps or d.fps
            settled.add((r.num_frames or d.num_frames, r.height or d.height, r.width or d.width, steps, fps))
        if len(settled) != 1:
            raise KinemaError("the requests of a batch differ in size, length, steps or fps; make them equal")
        frames, height, width, steps, fps = settled.pop()
        patch, reach = self.transformer.config.patch_size, self.transformer.config.rope_max_seq_len
        k = self.frames_per_latent
        _check_multiple("num_frames", frames - 1, k * patch[0], (reach * patch[0] - 1) * k, add=1)
        for name, value, axis in (("height", height, 1), ("width", width, 2)):
            multiple = self.pixels_per_cell * patch[axis]
            _check_multiple(name, value, multiple, reach * multiple, least=multiple)
        return frames, height, width, steps, float(fps)


def clean_prompt(text: str) -> str:
    """Repairs broken characters and HTML entities and folds white space, as Wan's authors do."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def _check_multiple(name: str, value: int, multiple: int, most: int, least: int = 0, add: int = 0) -> None:
    """Raises KinemaError with the nearest allowed values, when value is no multiple between least and most."""
    if value % multiple == 0 and least <= value <= most:
        return
    below = min(max(value // multiple * multiple, least), most // multiple * multiple)
    above = min(max(below + multiple, least), most // multiple * multiple) if value > below else below
    near = " or ".join(str(n + add) for n in dict.fromkeys((below, above)))
    rule = f"a multiple of {multiple}" + (f" plus {add}" if add else "")
    raise KinemaError(f"{name} is {value + add}; this model makes {rule}, {least + add} to {most + add}: use {near}")


def _defaults(backbone: WanBackbone) -> Defaults:
    """Of the model's card where it has some, else what the code of the Wan authors takes for this kind of checkpoint.

    Wan 2.1 (generate.py): 81 frames, 50 steps, 40 for image to video but not for two images, guidance 5. Wan 2.2
    (wan/configs): A14B 40 steps, guidance 4 and 3 for text, 3.5 for images; TI2V-5B 121 frames at 24 fps, 50 steps,
    guidance 5. The smaller of the two sizes they name is taken. The shift of the noise levels is the scheduler's.
    Raises: KinemaError when the card holds anything else than numbers for these.
    """
    if backbone.time_per_frame:  # TI2V-5B
        known = Defaults(height=704, width=1280, num_frames=121, fps=24, num_inference_steps=50, guidance_scale=5.0)
    else:
        known = Defaults(height=480, width=832, num_frames=81, fps=16, num_inference_steps=50, guidance_scale=5.0)
    config = backbone.transformer.config
    if config.image_dim is not None and config.pos_embed_seq_len is None:  # 2.1 image to video, and not FLF2V
        known = dataclasses.replace(known, num_inference_steps=40)
    if backbone.expert_boundary is not None:  # A14B
        scales = (3.5, 3.5) if backbone.needs_image else (4.0, 3.0)
        known = dataclasses.replace(
            known, num_inference_steps=40, guidance_scale=scales[0], low_noise_guidance_scale=scales[1]
        )
    card = backbone.folder.card.get("defaults", {})
    names = {f.name for f in dataclasses.fields(Defaults)}
    if not isinstance(card, dict) or not card.keys() <= names:
        raise KinemaError(f"card.json of model {backbone.name!r} has defaults that kinema does not know; is it newer?")
    for name, value in card.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise KinemaError(f"{name} is {value!r} in card.json of model {backbone.name!r}; use a number above 0")
    return dataclasses.replace(known, **card)
