"""The CogVideoX family: CogVideoX 2B and 5B and CogVideoX 1.5, text and image to video.

Yang et al., "CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer", 2024, arXiv:2408.06072. The
network reads z = a x0 + s noise and a whole training step, and gives a noise - s x0; the border changes the scale (see
core/path.py) and finds the training step of t. Latents and frames equal those of diffusers' CogVideoX pipelines. The
guidance that grows over the steps, which the authors use with the DPM scheduler, is no part of the model and left out.

A small model may have kinema's autoencoder and a UMT5 encoder of few words in the place of the family's own
(`mini-mm`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.backbones import decoding, rotary
from kinema.backbones.base import ALL_HOOKS
from kinema.backbones.codec import Codec
from kinema.backbones.cogvideox_attention import CogVideoXTapped, attentions, rotary_maker
from kinema.backbones.folder import Folder
from kinema.backbones.pipelined import PipelineBackbone
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.solvers import COGVIDEOX
from kinema.backbones.words import Spelling, spans_of
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.path import VariancePreserving
from kinema.core.schedule import Clock, NoiseSolver
from kinema.models.text import clean_prompt, encode_prompts
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from kinema.request import Request

IMAGE_PIPELINE = "CogVideoXImageToVideoPipeline"
PIPELINES = ("CogVideoXPipeline", IMAGE_PIPELINE)
CHECKPOINTS = (  # the layouts this file is written for
    "THUDM/CogVideoX-2b",
    "THUDM/CogVideoX-5b",
    "THUDM/CogVideoX-5b-I2V",
    "THUDM/CogVideoX1.5-5B",
    "THUDM/CogVideoX1.5-5B-I2V",
)
PAIR = 2  # latent frames that the family's autoencoder decodes at once, after one or three
OFFSET = 2.0  # the "ofs" that diffusers tells CogVideoX 1.5 image to video


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> CogVideoXBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    from diffusers.video_processor import VideoProcessor
    from transformers import T5EncoderModel, UMT5EncoderModel

    from kinema.models.autoencoder import AutoencoderKLKinema

    module = folder.reader(device, dtype)

    scheduler = folder.scheduler(diffusers.CogVideoXDDIMScheduler, diffusers.CogVideoXDPMScheduler)
    if scheduler.config.prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise KinemaError(
            f"scheduler of model {folder.name!r} has the prediction_type {scheduler.config.prediction_type!r}; the "
            "CogVideoX family knows epsilon, sample and v_prediction"
        )
    vae = module("vae", diffusers.AutoencoderKLCogVideoX, AutoencoderKLKinema, dtype=torch.float32)
    pipeline = getattr(diffusers, folder.pipeline)(
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", T5EncoderModel, UMT5EncoderModel),
        transformer=module("transformer", diffusers.CogVideoXTransformer3DModel),
        vae=None,  # of which it only asks how far it compresses
        scheduler=scheduler,
    )
    pipeline.vae = vae
    pipeline.vae_scale_factor_spatial = Codec.of(vae).pixels_per_cell
    pipeline.video_processor = VideoProcessor(vae_scale_factor=pipeline.vae_scale_factor_spatial)
    return CogVideoXBackbone(folder=folder, pipeline=pipeline, device=device, dtype=dtype)


class CogVideoXBackbone(PipelineBackbone):
    """A CogVideoX model in kinema's convention: x is in scaled latent units, float64 outside the transformer."""

    family = "cogvideox"
    tapped_processor = CogVideoXTapped
    solver_kind = NoiseSolver
    by_frame: Mapping[str, int] = {"picture": 1}
    schedulers = COGVIDEOX

    def __init__(self, *, folder: Folder, **parts: Any) -> None:
        self.needs_image = self.takes_image = folder.pipeline == IMAGE_PIPELINE
        if self.needs_image:
            self.droppable = frozenset({"text", "image"})
        super().__init__(folder=folder, **parts)
        config = self.transformer.config
        if config.patch_size_t is not None:  # 1.5 has rotary places for so many tokens
            self.most_tokens = (None, config.sample_height // self.patch[1], config.sample_width // self.patch[2])
        self.rotary = bool(config.use_rotary_positional_embeddings)
        if self.rotary and not config.use_learned_positional_embeddings:
            self.hooks = ALL_HOOKS
        else:  # a table added to the tokens does not move, nor grow with the text or the clip
            self.hooks = ALL_HOOKS - {"positions", "context", "tokens"}
        self.path = VariancePreserving(self.scheduler.config.prediction_type)
        self.clock = Clock(self.scheduler.alphas_cumprod)
        self._check_parts()

    def _check_parts(self) -> None:
        z, config = self.channels, self.transformer.config
        if (config.in_channels, config.out_channels) != (2 * z if self.needs_image else z, z):
            raise KinemaError(
                f"transformer of model {self.name!r} has {config.in_channels} channels in and {config.out_channels} "
                f"out, its autoencoder has {z}, which does not suit a {self.folder.pipeline}"
            )
        if self.patch[0] not in (1, 2):
            raise KinemaError(f"patch_size_t is {self.patch[0]} in model {self.name!r}; kinema knows 1 and 2")

    def recommended(self) -> Defaults:
        """What the authors recommend (README and inference/cli_demo.py of CogVideo): 50 steps, guidance 6.

        CogVideoX 1.0: the size it was trained for, 49 frames of 480x720 at 8 fps; 1.5: 81 of 768x1360 at 16 fps.
        """
        config, p = self.transformer.config, self.pixels_per_cell
        area = dict(height=config.sample_height * p, width=config.sample_width * p, fps=8.0)
        if config.patch_size_t is not None:
            area = dict(height=768, width=1360, fps=16.0)
        return Defaults(**area, num_frames=config.sample_frames, num_inference_steps=50, guidance_scale=6.0)

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.transformer)

    # Sizes.

    @property
    def frames_step(self) -> int:
        """Its own autoencoder takes latent frames in pairs, whatever the transformer does."""
        if type(self.vae).__name__ != "AutoencoderKLCogVideoX":
            return super().frames_step
        return self.frames_per_latent * math.lcm(PAIR, self.patch[0])

    def settle(self, requests: Sequence[Request]) -> tuple[int, int, int, int, float]:
        frames, height, width, steps, fps = super().settle(requests)
        if self.transformer.config.use_learned_positional_embeddings:
            d = self.defaults
            if (frames, height, width) != (d.num_frames, d.height, d.width):
                raise KinemaError(
                    f"model {self.name!r} has learned the positions of one size; use num_frames {d.num_frames}, "
                    f"height {d.height} and width {d.width}, or leave them out"
                )
        return frames, height, width, steps, fps

    @property
    def padding(self) -> int:  # type: ignore[override]
        """Latent frames before the video, where the transformer takes frames in pairs and their number is odd."""
        return self.patch[0] - 1

    # The network.

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        return {"frames_first": True}

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        z = self.path.outwards(x, t).to(self.dtype).transpose(1, 2).contiguous()  # (B, T, C, H, W)
        if "picture" in inputs:
            z = torch.cat([z, inputs["picture"].to(self.dtype)], dim=2)
        own, moved = self._rotary(x.shape, conditions)
        with nullcontext() if own is None else rotary.made_by(moved):
            output: Tensor = self.transformer(
                hidden_states=z,
                encoder_hidden_states=inputs["text"],
                timestep=self._timestep(t, len(x)),
                ofs=None if self.transformer.config.ofs_embed_dim is None else z.new_full((1,), OFFSET),
                image_rotary_emb=own,
                return_dict=False,
            )[0]
        return self.path.velocity(output.transpose(1, 2).to(x.dtype), x, t)

    def _rotary(self, shape: Sequence[int], conditions: Conditions) -> tuple[Any, Any]:
        """The model's rotary table for latents of a shape, and how it makes one for moved tokens; made once a run."""
        if not self.rotary:
            return None, None
        frames, rows, columns = size = tuple(shape[-3:])
        known = conditions.extra.setdefault("rotary", {})
        if size not in known:
            known[size] = self._make_rotary(frames, rows, columns)
        found: tuple[Any, Any] = known[size]
        return found

    def _make_rotary(self, frames: int, rows: int, columns: int) -> tuple[Any, Any]:
        height, width = rows * self.pixels_per_cell, columns * self.pixels_per_cell
        own = self.pipeline._prepare_rotary_positional_embeddings(height, width, frames, self.device)
        grid = (rows // self.patch[1], columns // self.patch[2])
        return own, rotary_maker(self.transformer.config, grid, self.patch)

    def _timestep(self, t: float | Tensor, batch: int) -> Tensor:
        """The model's clock, (B,)."""
        self.one_level(t)
        levels = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        told = torch.tensor([self.clock.at(level) for level in levels.reshape(-1).tolist()])
        return told.expand(batch).to(self.device)

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents, float32, drawn in the network's layout.

        A picture's latents are drawn before them, as diffusers does: until then they are the mean of what the
        autoencoder makes of it.
        """
        if "pictures" in conditions.extra:
            drawn = [seen.sample(g) for seen, g in zip(conditions.extra["pictures"], generators, strict=True)]
            conditions.inputs["picture"] = self._picture_frames(torch.cat(drawn), conditions)
        _, channels, frames, rows, columns = conditions.shape
        one = (1, frames, channels, rows, columns)
        noise = [torch.randn(one, generator=g, device=g.device, dtype=torch.float32) for g in generators]
        return torch.cat(noise).transpose(1, 2).to(self.device)

    # Text, pictures and pixels.

    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        length = self.transformer.config.max_text_seq_length
        if type(self.pipeline.text_encoder).__name__ == "UMT5EncoderModel":
            tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
            return {"text": encode_prompts(tokenizer, encoder, prompts, length).to(self.dtype)}
        text, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=length,
            device=self.device,
            dtype=self.dtype,
        )
        return {"text": text}

    def spelling(self, prompt: str) -> Spelling:
        tokenizer, length = self.pipeline.tokenizer, self.transformer.config.max_text_seq_length
        if type(self.pipeline.text_encoder).__name__ == "UMT5EncoderModel":
            prompt, length = clean_prompt(prompt), min(length, tokenizer.model_max_length)
        return Spelling(prompt, spans_of(tokenizer, prompt, length))

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        """The first frame as channels beside the first latent frame, stretched to the size, as diffusers does.

        In CogVideoX 1.5 that latent frame is the padding before the video, as in diffusers.
        """
        if not self.needs_image:
            return
        _, height, width = size
        seen = []
        for r in requests:
            picture = open_picture(r.image, "image")
            pixels = self.pipeline.video_processor.preprocess(picture, height=height, width=width)
            seen.append(self.vae.encode(pixels.to(self.device, self.vae.dtype)[:, :, None]).latent_dist)
        conditions.extra["pictures"] = seen
        conditions.inputs["picture"] = self._picture_frames(torch.cat([s.mode() for s in seen]), conditions)

    def _picture_frames(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """Picture latents (B, C, 1, H, W) of the autoencoder -> scaled (B, T, C, H, W), zero behind the first frame."""
        config = self.vae.config
        scale = 1 / config.scaling_factor if config.invert_scale_latents else config.scaling_factor
        frames = conditions.shape[2]
        return torch.nn.functional.pad((scale * latents).transpose(1, 2), (0, 0, 0, 0, 0, 0, 0, frames - 1))

    def without_image(self, conditions: Conditions) -> dict[str, Tensor]:
        """Zeros, which the authors put in the place of some pictures in training (sat/diffusion_video.py)."""
        return {"picture": torch.zeros_like(conditions.inputs["picture"])}

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        frames_first = x[:, :, self.padding :].to(self.vae.dtype).transpose(1, 2).contiguous()  # in memory, as theirs
        return decoding.pieces(self.vae, self.codec.latents(frames_first.transpose(1, 2)))

    def encode(self, video: Tensor) -> Tensor:
        """As for any model; the padding is the first latent frame once more, as in diffusers' training of 1.5."""
        x = super().encode(video)
        return torch.cat([x[:, :, :1].expand(-1, -1, self.padding, -1, -1), x], dim=2)
