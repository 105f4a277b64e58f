"""The Wan family: Wan 2.1 and 2.2, text and image to video, one transformer or two, and models of their architecture.

Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025, arXiv:2503.20314. A Wan transformer
already gives noise - x0 on x_t = (1 - t) x0 + t noise; the border only turns t into its clock, 1000 t, and gives every
token its own time where the model wants it. Latents and frames equal those of diffusers' Wan pipelines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.backbones import decoding, wan_images
from kinema.backbones.base import DiffusersBackbone
from kinema.backbones.codec import Codec
from kinema.backbones.folder import CLOCK, Folder
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.solvers import FLOW
from kinema.backbones.wan_attention import WanTapped, attentions
from kinema.backbones.words import Spelling, spans_of
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.models.text import clean_prompt, encode_prompts

if TYPE_CHECKING:
    from kinema.request import Request

PIPELINES = ("WanPipeline", "WanImageToVideoPipeline", "WanVACEPipeline")
CHECKPOINTS = (  # the layouts this file is written for
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
    "Wan-AI/Wan2.1-VACE-1.3B-diffusers",
    "Wan-AI/Wan2.1-VACE-14B-diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
)
MAX_TOKENS = 512  # length Wan pads its prompts to; a smaller tokenizer says so itself


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> WanBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    network = WanVACETransformer3DModel if folder.pipeline == "WanVACEPipeline" else WanTransformer3DModel
    return WanBackbone(folder=folder, device=device, dtype=dtype, **open_parts(folder, device, dtype, network))


def open_parts(folder: Folder, device: torch.device, dtype: torch.dtype, network: type) -> dict[str, Any]:
    """All parts of a Wan-like model, its transformers of the class `network`."""
    import transformers
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    from kinema.models.autoencoder import AutoencoderKLKinema

    module = folder.reader(device, dtype)

    scheduler = folder.flow_scheduler(UniPCMultistepScheduler, FlowMatchEulerDiscreteScheduler)
    image_encoder = image_processor = None
    if folder.declared("image_encoder"):
        image_encoder = module(
            "image_encoder", transformers.CLIPVisionModel, transformers.CLIPVisionModelWithProjection
        )
        image_processor = folder.processor("CLIP")
    two = folder.index.get("boundary_ratio") is not None
    return dict(
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", transformers.UMT5EncoderModel),
        transformer=module("transformer", network),
        transformer_2=module("transformer_2", network) if two else None,
        vae=module("vae", AutoencoderKLWan, AutoencoderKLKinema, dtype=torch.float32),
        scheduler=scheduler,
        image_encoder=image_encoder,
        image_processor=image_processor,
    )


class WanBackbone(DiffusersBackbone):
    """A Wan model in kinema's convention: x is in normalised latent units, float32 outside the transformer."""

    family = "wan"
    tapped_processor = WanTapped
    text_networks = ("transformer", "transformer_2")
    context_parallel = True
    schedulers = FLOW

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        transformer: Any,
        transformer_2: Any,
        image_encoder: Any,
        image_processor: Any,
        folder: Folder,
        vae: Any,
        **parts: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.transformer = transformer
        self.transformer_2 = transformer_2
        self.image_encoder = image_encoder
        self.image_processor = image_processor
        boundary = folder.index.get("boundary_ratio")
        self.expert_boundary = None if boundary is None else float(boundary)
        self.time_per_frame = self.is_time_per_frame(folder)
        self.codec = Codec.of(vae)
        self.channels, self.frames_per_latent = self.codec.channels, self.codec.frames_per_latent
        self.pixels_per_cell = self.codec.pixels_per_cell
        self.patch = tuple(transformer.config.patch_size)
        self.most_tokens = (transformer.config.rope_max_seq_len,) * 3
        # Image-to-video only: the image comes as channels beside the latents.
        self.needs_image = transformer.config.in_channels != self.channels
        self.vace_layers = len(getattr(transformer.config, "vace_layers", ()))
        self.always_conditioned = self.vace_layers > 0
        if self.vace_layers:
            self.droppable = frozenset({"text", "image"})
        self.takes_image = self.needs_image or self.time_per_frame or self.vace_layers > 0
        super().__init__(folder=folder, vae=vae, defaults=self.recommended(), **parts)
        self._check_parts()

    def _check_parts(self) -> None:
        z, config = self.channels, self.transformer.config
        wanted = (z, z) if not self.needs_image else (2 * z + self.frames_per_latent, z)
        if (config.in_channels, config.out_channels) != wanted:
            raise KinemaError(
                f"transformer of model {self.name!r} has {config.in_channels} channels in and {config.out_channels} "
                f"out, its autoencoder has {z}; they do not belong together"
            )
        if config.image_dim is not None and self.image_encoder is None:
            raise KinemaError(f"model {self.name!r} looks at its image through an image_encoder, but has none")

    def recommended(self) -> Defaults:
        return _defaults(self, self.transformer.config)

    def is_time_per_frame(self, folder: Folder) -> bool:
        """Whether every latent frame may have its own noise level."""
        return bool(folder.index.get("expand_timesteps", False))

    @property
    def takes_last_image(self) -> bool:  # type: ignore[override]
        """Two pictures: where the card of a model with a time per frame says so, FLF2V, VACE, A14B image to video."""
        if self.time_per_frame:
            return bool({"any", "first_and_last"} & set(self.learned_frames))
        config = self.transformer.config
        if self.vace_layers:
            return True
        return self.needs_image and (config.image_dim is None or config.pos_embed_seq_len is not None)

    @property
    def takes_video(self) -> bool:  # type: ignore[override]
        """Parts of a clip: models with a time per frame, where their card says so, and VACE."""
        return self.time_per_frame or self.vace_layers > 0

    @property
    def learned_frames(self) -> tuple[str, ...]:
        """Where a model with a time per frame has learned to be given clean latent frames, see `core.keep.pattern`.

        The card's `given` says which share of such clips of the training had them where. A card without it is that of a
        model like TI2V-5B, which has seen its first frame, or an older one that only knows of `takes_last_image`.
        """
        card = self.folder.card
        older = {"first": 1, "first_and_last": int(bool(card.get("takes_last_image", False)))}
        return tuple(name for name, share in card.get("given", older).items() if share > 0)

    @cached_property
    def _latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and reciprocal deviation of the autoencoder's latents, (1, C, 1, 1, 1) each."""
        config = self.vae.config
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
        scale = 1.0 / torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
        return mean.to(self.device), scale.to(self.device)

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        for transformer in (self.transformer, self.transformer_2):
            if transformer is not None:
                yield from attentions(transformer)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        for transformer in (self.transformer, self.transformer_2):
            if transformer is not None:
                yield from enumerate(transformer.blocks)

    # The network.

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        latents = x if "picture" not in inputs else torch.cat([x, inputs["picture"]], dim=1)
        control = {} if "control" not in inputs else {"control_hidden_states": inputs["control"].to(self.dtype)}
        v: Tensor = self._expert(t)(
            hidden_states=latents.to(self.dtype),
            timestep=self._timestep(t, x, inputs.get("known_frames"), conditions),
            encoder_hidden_states=inputs["text"],
            encoder_hidden_states_image=inputs.get("image_tokens"),
            return_dict=False,
            **control,
        )[0]
        return v

    def _expert(self, t: float | Tensor) -> Any:
        """The transformer for noise level t: the second one below the boundary."""
        level = float(t.max()) if isinstance(t, Tensor) else t
        return self.transformer if self.expert_boundary is None or level >= self.expert_boundary else self.transformer_2

    def _timestep(
        self, t: float | Tensor, x: Tensor, known_frames: Tensor | None, conditions: Conditions | None = None
    ) -> Tensor:
        """The model's clock: (B,), or (B, L) where each token has its own.

        In a joint call of several branches, where no bit is equal to diffusers' anyway, tokens of one time share it.
        """
        batch, _, frames, rows, columns = x.shape
        clock = CLOCK * torch.as_tensor(t, dtype=torch.float64, device=x.device)
        if not self.time_per_frame:
            self.one_level(clock)
            return clock.expand(batch).float()
        shared = conditions is not None and (len(x) > conditions.shape[0] or not conditions.exact)
        if shared and clock.ndim < 2 and known_frames is None:
            return clock.expand(batch).float()
        clock = clock.reshape(-1, 1) if clock.ndim == 1 else clock
        clock = clock.expand(batch, frames).float()
        if known_frames is not None:
            clock = clock.masked_fill(known_frames, 0.0)
        return self._per_token(clock, rows, columns)

    def _per_token(self, clock: Tensor, rows: int, columns: int) -> Tensor:
        """Times of the tokens (B, L) from those of latent frames (B, T)."""
        tokens = (rows // self.patch[1]) * (columns // self.patch[2])
        return clock[:, :: self.patch[0]].repeat_interleave(tokens, dim=1)

    # Pixels and pictures.

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        mean, scale = self._latent_statistics
        return decoding.pieces(self.vae, x.to(self.vae.dtype) / scale + mean)

    def scaled(self, z: Tensor) -> Tensor:
        mean, scale = self._latent_statistics
        return (z - mean) * scale

    def check_images(self, requests: Sequence[Request]) -> None:
        super().check_images(requests)
        pairs = self.needs_image and self.transformer.config.pos_embed_seq_len is not None
        if pairs and requests[0].last_image is None:
            raise KinemaError(f"model {self.name!r} wants a first and a last picture; give last_image too")

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        if self.vace_layers:
            conditions.inputs["control"] = wan_images.control(self, conditions, requests)
        else:
            wan_images.condition(self, conditions, requests, size)

    def without_image(self, conditions: Conditions) -> dict[str, Tensor]:
        """VACE with nothing given, which is its text to video."""
        return {"control": wan_images.control(self, conditions, ())}

    # Text.

    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {"text": self.encode_prompt(prompts)}

    def spelling(self, prompt: str) -> Spelling:
        text, length = clean_prompt(prompt), min(MAX_TOKENS, self.tokenizer.model_max_length)
        return Spelling(text, spans_of(self.tokenizer, text, length))

    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, P, D), zero behind the end of each prompt, as diffusers' WanPipeline makes them."""
        text = encode_prompts(self.tokenizer, self.text_encoder, prompts, MAX_TOKENS).to(self.dtype)
        if self.transformer.config.added_kv_proj_dim is not None:
            # Behind image tokens diffusers counts 512 text tokens from the end, whatever the tokenizer says.
            text = torch.nn.functional.pad(text, (0, 0, 0, MAX_TOKENS - text.shape[1]))
        return text


def _defaults(backbone: WanBackbone, config: Any) -> Defaults:
    """What the code of the Wan authors takes for this kind of checkpoint.

    Wan 2.1 (generate.py): 81 frames, 50 steps, 40 for image to video but not for two images, guidance 5. Wan 2.2
    (wan/configs): A14B 40 steps, guidance 4 and 3 for text, 3.5 for images; TI2V-5B 121 frames at 24 fps, 50 steps,
    guidance 5. The smaller of the two sizes they name is taken. The shift of the noise levels is the scheduler's.
    """
    if backbone.time_per_frame:  # TI2V-5B
        known = Defaults(height=704, width=1280, num_frames=121, fps=24, num_inference_steps=50, guidance_scale=5.0)
    else:
        known = Defaults(height=480, width=832, num_frames=81, fps=16, num_inference_steps=50, guidance_scale=5.0)
    if config.image_dim is not None and config.pos_embed_seq_len is None:  # 2.1 image to video, and not FLF2V
        known = dataclasses.replace(known, num_inference_steps=40)
    if backbone.expert_boundary is not None:  # A14B
        scales = (3.5, 3.5) if backbone.needs_image else (4.0, 3.0)
        known = dataclasses.replace(
            known, num_inference_steps=40, guidance_scale=scales[0], low_noise_guidance_scale=scales[1]
        )
    return known
