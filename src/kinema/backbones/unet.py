"""AnimateDiff: the UNet of an image model with motion modules between its layers.

Guo et al., "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without Specific Tuning", 2023,
arXiv:2307.04725. A folder holds either the joined UNet (`UNetMotionModel`, as diffusers saves the pipeline) or the
UNet of a Stable Diffusion 1.5 model beside a `MotionAdapter`, which are joined when they are read; the authors publish
the adapters alone, so there is no hub id to name here. Latents and frames equal those of diffusers' pipeline.

A small model may have kinema's autoencoder, whose latent frames stand for four frames each, and a UMT5 encoder with few
words in the place of CLIP's (`mini-unet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import decoding
from kinema.backbones.codec import Codec
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.solvers import NOISE
from kinema.backbones.unet_attention import frame_tables, lengthen_tables, placed_by
from kinema.backbones.unet_base import UNetBackbone
from kinema.backbones.words import Spelling, spans_of
from kinema.core.attention import current_taps
from kinema.core.errors import KinemaError
from kinema.models.text import clean_prompt, encode_prompts

PIPELINES = ("AnimateDiffPipeline",)
CHECKPOINTS: tuple[str, ...] = ()


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> AnimateDiffBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    import transformers

    from kinema.models.autoencoder import AutoencoderKLKinema

    module = folder.reader(device, dtype)

    schedulers = (
        diffusers.DDIMScheduler,
        diffusers.DPMSolverMultistepScheduler,
        diffusers.EulerAncestralDiscreteScheduler,
        diffusers.EulerDiscreteScheduler,
    )
    unet = module("unet", diffusers.UNetMotionModel, diffusers.UNet2DConditionModel)
    if isinstance(unet, diffusers.UNet2DConditionModel):
        unet = _joined(unet, module("motion_adapter", diffusers.MotionAdapter), folder)
    vae = module("vae", diffusers.AutoencoderKL, AutoencoderKLKinema, dtype=torch.float32)
    _check_unet(unet, vae, folder)
    return AnimateDiffBackbone(
        folder=folder,
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", transformers.CLIPTextModel, transformers.UMT5EncoderModel),
        unet=unet,
        vae=vae,
        scheduler=folder.scheduler(*schedulers),
        device=device,
        dtype=dtype,
    )


def _joined(unet: Any, adapter: Any, folder: Folder) -> Any:
    """The UNet of the image model with the motion modules of the adapter."""
    from diffusers import UNetMotionModel
    from diffusers.utils import logging

    heard = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of its own cast
    try:
        with unet.device if unet.device.type == "meta" else nullcontext():
            joined = UNetMotionModel.from_unet2d(unet, adapter)
    except (ValueError, RuntimeError, IndexError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise KinemaError(f"unet and motion_adapter of model {folder.name!r} do not fit: {reason}") from error
    finally:
        logging.set_verbosity(heard)
    return joined.to(unet.device).eval().requires_grad_(False)


def _check_unet(unet: Any, vae: Any, folder: Folder) -> None:
    """Only text as a condition: what else a UNet may ask for would be left out without a word."""
    config = unet.config
    wants_more = config.encoder_hid_dim_type or config.addition_embed_type
    if wants_more or not config.in_channels == config.out_channels == Codec.of(vae).channels:
        raise KinemaError(
            f"unet of model {folder.name!r} wants more than noise and a prompt ({wants_more or 'other channels'}); "
            "take the one of a Stable Diffusion 1.5 model"
        )


class AnimateDiffBackbone(UNetBackbone):
    """An AnimateDiff model in kinema's convention."""

    family = "unet"
    schedulers = NOISE
    hooks = UNetBackbone.hooks | {"positions"}
    longer_calls = True

    def __init__(self, *, tokenizer: Any, text_encoder: Any, unet: Any, vae: Any, scheduler: Any, **parts: Any) -> None:
        import diffusers

        self.text_encoder = text_encoder
        kind: Any = diffusers.AnimateDiffPipeline  # diffusers is not fully typed
        self.pipeline = kind(None, text_encoder, tokenizer, unet, None, scheduler)  # its `encode_prompt` needs no vae
        self.most_tokens = (int(unet.config.motion_max_seq_length), None, None)  # the table of frames ends there
        lengthen_tables(unet)
        super().__init__(unet=unet, vae=vae, scheduler=scheduler, defaults=_defaults(unet, vae), **parts)

    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """CLIP's last layer, (B, 77, D), as diffusers' AnimateDiffPipeline makes it; of UMT5 as for Wan, (B, P, D)."""
        if type(self.text_encoder).__name__ == "UMT5EncoderModel":
            tokenizer = self.pipeline.tokenizer
            text = encode_prompts(tokenizer, self.text_encoder, prompts, tokenizer.model_max_length)
            return {"text": text.to(self.dtype)}
        return {"text": self.pipeline.encode_prompt(list(prompts), self.device, 1, False)[0]}

    def spelling(self, prompt: str) -> Spelling:
        tokenizer = self.pipeline.tokenizer
        if type(self.text_encoder).__name__ == "UMT5EncoderModel":
            prompt = clean_prompt(prompt)
        return Spelling(prompt, spans_of(tokenizer, prompt, tokenizer.model_max_length))

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        """One noise level a clip: `t` is a float or (B,)."""
        time = self.network_time(t, x, conditions)
        if current_taps.get() is None:  # nobody moves its frames
            self.check_length(x.shape[2])
        with placed_by(frame_tables(self.unet)):  # of a twin, where a cache put one in its place
            output: Tensor = self.unet(
                self.network_input(x, t, conditions).to(self.dtype),
                time,
                encoder_hidden_states=inputs["text"].repeat_interleave(x.shape[2], dim=0),
                return_dict=False,
            )[0]
        return self.network_velocity(output, x, t)

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        return decoding.pieces(self.vae, self.codec.latents(x.to(self.vae.dtype)))


def _defaults(unet: Any, vae: Any) -> Defaults:
    """What diffusers' AnimateDiffPipeline takes: the size of the image model, 16 frames at 8 fps, 50 steps, 7.5."""
    size = int(unet.config.sample_size or 64) * Codec.of(vae).pixels_per_cell
    return Defaults(height=size, width=size, num_frames=16, fps=8, num_inference_steps=50, guidance_scale=7.5)
