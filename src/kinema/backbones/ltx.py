"""The LTX-Video family, 0.9 to 0.9.8: text and image to video in one model, each token with its own time.

HaCohen et al., "LTX-Video: Realtime Video Latent Diffusion", 2024, arXiv:2501.00103. The transformer already gives
noise - x0 on x_t = (1 - t) x0 + t noise; the border packs latents into tokens, turns t into its clock, 1000 t, and
places tokens in seconds and pixels. Latents and frames equal those of diffusers' LTX pipelines, LTXConditionPipeline
with an image_cond_noise_scale of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinema.backbones import ltx_decoder, rotary
from kinema.backbones.folder import CLOCK, Folder
from kinema.backbones.ltx_attention import LTXTapped, attentions
from kinema.backbones.pipelined import PipelineBackbone
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.solvers import EULER_AND_UNIPC
from kinema.backbones.words import Spelling, default_of, spans_of
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from PIL import Image

    from kinema.request import Request

CONDITION = "LTXConditionPipeline"  # 0.9.7 and later: other noise levels, other places in time, longer prompts
PIPELINES = ("LTXPipeline", "LTXImageToVideoPipeline", CONDITION)
CHECKPOINTS = (  # the layouts this file is written for
    "Lightricks/LTX-Video",
    "Lightricks/LTX-Video-0.9.1",
    "Lightricks/LTX-Video-0.9.5",
    "Lightricks/LTX-Video-0.9.7-dev",
    "Lightricks/LTX-Video-0.9.7-distilled",
    "Lightricks/LTX-Video-0.9.8-13B-distilled",
)


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> LTXBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    from transformers import T5EncoderModel

    module = folder.reader(device, dtype)

    dynamic = folder.pipeline != CONDITION
    pipeline = getattr(diffusers, folder.pipeline)(
        scheduler=folder.flow_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, dynamic=dynamic),
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", T5EncoderModel),
        transformer=module("transformer", diffusers.LTXVideoTransformer3DModel),
        vae=module("vae", diffusers.AutoencoderKLLTXVideo, dtype=torch.float32),
    )
    return LTXBackbone(folder=folder, pipeline=pipeline, device=device, dtype=dtype)


class LTXBackbone(PipelineBackbone):
    """An LTX-Video model in kinema's convention: x is in normalised latent units, float32 outside the transformer.

    Noise levels by frame are honoured: every token has its own time.
    """

    family = "ltx"
    tapped_processor = LTXTapped
    context_parallel = True
    takes_image = True
    time_per_frame = True

    def __init__(self, *, folder: Folder, **parts: Any) -> None:
        self.conditional = folder.pipeline == CONDITION
        super().__init__(folder=folder, **parts)
        self._check_parts()
        if not self.conditional:  # whose list of levels only Euler takes
            self.schedulers = EULER_AND_UNIPC
        ltx_decoder.listen(self.vae)

    def _check_parts(self) -> None:
        config = self.transformer.config
        if (config.in_channels, config.out_channels, config.patch_size, config.patch_size_t) != (
            self.channels,
            self.channels,
            1,
            1,
        ):
            raise KinemaError(
                f"transformer of model {self.name!r} has {config.in_channels} channels in and {config.out_channels} "
                f"out and patches of {config.patch_size}, its autoencoder has {self.channels} channels and wants "
                "patches of 1; they do not belong together"
            )

    def recommended(self) -> Defaults:
        """diffusers' LTXPipeline: 161 frames of 512x704 at 25 fps, 50 steps, guidance 3; a distilled model wants 1."""
        return Defaults(height=512, width=704, num_frames=161, fps=25, num_inference_steps=50, guidance_scale=3.0)

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.transformer)

    # The network.

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        """Levels at even distances, moved towards noise with the number of tokens; 0.9.7 has a curve of its own."""
        from diffusers.pipelines.ltx import pipeline_ltx, pipeline_ltx_condition

        steps = conditions.num_inference_steps
        if self.conditional:
            levels: Any = pipeline_ltx_condition.linear_quadratic_schedule  # an untyped function
            timesteps = (levels(steps) * CLOCK).numpy()
            return {"sigmas": timesteps / CLOCK, "timesteps": timesteps}
        _, _, frames, rows, columns = conditions.shape
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        line = [self.scheduler.config[name] for name in names]
        mu = pipeline_ltx.calculate_shift(frames * rows * columns, *line)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": mu}

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        def table(places: Tensor) -> rotary.Table:
            made: rotary.Table = self.transformer.rope(
                places[None], video_coords=self.coordinates(places, conditions.fps)
            )
            return made

        grid = self.coordinates(self.grid(x.shape), conditions.fps)
        with rotary.made_by(table):
            v: Tensor = self.transformer(
                hidden_states=x.to(self.dtype).flatten(2).transpose(1, 2).contiguous(),
                encoder_hidden_states=inputs["text"],
                encoder_attention_mask=inputs["text_mask"],
                timestep=self._timestep(t, x, inputs.get("known_frames")),
                video_coords=grid.expand(x.shape[0], -1, -1),
                return_dict=False,
            )[0]
        return v.transpose(1, 2).reshape(x.shape)

    def coordinates(self, places: Tensor, fps: float) -> Tensor:
        """Token places (L, 3) in latent cells -> (1, 3, L): seconds, rows and columns in pixels.

        0.9.7 counts in frames of the video, of which the first has a latent frame to itself, thus those before it too.
        """
        frame, row, column = places.float().unbind(dim=1)
        k, p = self.frames_per_latent, self.pixels_per_cell
        if self.conditional:
            seconds = torch.where(frame < 0, frame * k, (frame * k + (1 - k)).clamp(min=0)) * (1.0 / fps)
        else:
            seconds = frame * (k / fps)
        return torch.stack([seconds, row * p, column * p])[None]

    def _timestep(self, t: float | Tensor, x: Tensor, known_frames: Tensor | None) -> Tensor:
        """The model's clock: (B,), or (B, L) where tokens differ."""
        batch, _, frames, rows, columns = x.shape
        clock = CLOCK * torch.as_tensor(t, dtype=torch.float64, device=x.device)
        if clock.ndim < 2 and known_frames is None:
            return clock.expand(batch).float()
        clock = clock.reshape(-1, 1) if clock.ndim == 1 else clock
        clock = clock.expand(batch, frames).float()
        if known_frames is not None:
            clock = clock.masked_fill(known_frames, 0.0)
        return clock.repeat_interleave(rows * columns, dim=1)

    # Pixels and pictures.

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        """The first latent frame is given. Until `noise` draws them, its latents are what the autoencoder expects.

        Pictures are stretched to the size, as diffusers does; cut them to its proportions before.
        """
        _, height, width = size
        posteriors = []
        for r in requests:
            pixels = self.prepared(open_picture(r.image, "image"), height, width)
            posteriors.append(self.vae.encode(pixels.to(self.device, self.vae.dtype)[:, :, None]).latent_dist)
        conditions.known = torch.zeros(conditions.shape, device=self.device)
        conditions.known[:, :, :1] = self.scaled(torch.cat([p.mode() for p in posteriors]))
        conditions.known_frames = torch.zeros(1, 1, conditions.shape[2], 1, 1, dtype=torch.bool, device=self.device)
        conditions.known_frames[:, :, 0] = True
        conditions.extra["posteriors"] = posteriors

    def prepared(self, picture: Image.Image, height: int, width: int) -> Tensor:
        """Pixels (1, 3, H', W') in -1..1 as the autoencoder wants them."""
        pixels: Tensor = self.pipeline.video_processor.preprocess(picture, height=height, width=width)
        return pixels

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents, and before them, in 0.9.7 after them, the latents of the picture.

        The same generators later add the noise that the decoder wants.
        """
        conditions.extra["generators"] = tuple(generators)
        noise = super().noise(conditions, generators) if self.conditional else None
        posteriors = conditions.extra.get("posteriors")
        if posteriors is not None and conditions.known is not None:
            drawn = [p.sample(g) for p, g in zip(posteriors, generators, strict=True)]
            conditions.known[:, :, :1] = self.scaled(torch.cat(drawn))
        return super().noise(conditions, generators) if noise is None else noise

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        """Decoders that take the last denoising step draw noise from the run's generators, without a run none."""
        mean, deviation = self._statistics(x)
        z = x * deviation / self.vae.config.scaling_factor + mean
        return ltx_decoder.pieces(self.vae, z, conditions.extra.get("generators") if conditions else None)

    def scaled(self, z: Tensor) -> Tensor:
        mean, deviation = self._statistics(z)
        normalised: Tensor = (z - mean) * self.vae.config.scaling_factor / deviation
        return normalised

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the autoencoder's latents, (1, C, 1, 1, 1) each."""
        mean, deviation = self.vae.latents_mean, self.vae.latents_std
        return mean.to(like).view(1, -1, 1, 1, 1), deviation.to(like).view(1, -1, 1, 1, 1)

    # Text.

    @torch.no_grad()
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """T5 embeddings (B, P, D) of 128 tokens, 256 in 0.9.7, and which of them are words, (B, P)."""
        text, mask, _, _ = self.pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, device=self.device
        )
        return {"text": text.to(self.dtype), "text_mask": mask}

    def spelling(self, prompt: str) -> Spelling:
        length = default_of(self.pipeline.encode_prompt, "max_sequence_length")
        return Spelling(prompt, spans_of(self.pipeline.tokenizer, prompt, length))
