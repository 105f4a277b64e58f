"""LTX-2 and LTX-2.3: video with its sound, from text or an image, in one model.

HaCohen et al., "LTX-2: Efficient Joint Audio-Visual Foundation Model", 2026, arXiv:2601.03233. Two streams of tokens,
one of the video and one of its sound, read the text and each other. The sound is the run's companion (see
core/companion.py): the same calls of the network answer for both, the same guidance and the same noise levels hold.
Latents, frames and waves equal those of diffusers' LTX2 pipelines.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.base import ALL_HOOKS, unit_noise
from kinema.backbones.folder import CLOCK, Folder
from kinema.backbones.ltx import LTXBackbone
from kinema.backbones.ltx2_attention import LTX2Tapped, attentions, sounding_with
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.words import Spelling, framed, spans_of
from kinema.core.attention import Site
from kinema.core.companion import Companion
from kinema.core.errors import KinemaError
from kinema.core.schedule import CompanionSolver

if TYPE_CHECKING:
    from kinema.request import Request

PIPELINES = ("LTX2Pipeline", "LTX2ImageToVideoPipeline")
CHECKPOINTS = ("Lightricks/LTX-2", "diffusers/LTX-2.3-Diffusers")  # the layouts this file is written for
MAX_TOKENS = 1024  # length prompts are padded to; a smaller tokenizer says so itself


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> LTX2Backbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    from transformers import Gemma3ForConditionalGeneration

    kind: Any = diffusers.LTX2ImageToVideoPipeline
    more: Any = importlib.import_module("diffusers.pipelines.ltx2")
    module = folder.reader(device, dtype)
    pipeline = kind(
        scheduler=folder.flow_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, dynamic=True),
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", Gemma3ForConditionalGeneration),
        connectors=module("connectors", more.LTX2TextConnectors),
        transformer=module("transformer", diffusers.LTX2VideoTransformer3DModel),
        vae=module("vae", diffusers.AutoencoderKLLTX2Video, dtype=torch.float32),
        audio_vae=module("audio_vae", diffusers.AutoencoderKLLTX2Audio, dtype=torch.float32),
        vocoder=module("vocoder", more.LTX2Vocoder, more.LTX2VocoderWithBWE, dtype=torch.float32),
    )
    return LTX2Backbone(folder=folder, pipeline=pipeline, device=device, dtype=dtype)


class LTX2Backbone(LTXBackbone):
    """An LTX-2 model in kinema's convention: x is in normalised latent units, float32 outside the transformer.

    Noise levels by frame are honoured for the video; the sound, which has one, is told the highest of them.
    `droppable` knows "modality": video and sound do not read each other.
    """

    family = "ltx2"
    hooks = ALL_HOOKS - {"tokens"}  # the sound would read what stands beside the clip, at times it does not have
    droppable = frozenset({"text", "modality"})
    tapped_processor = LTX2Tapped  # type: ignore[assignment]
    solver_kind = CompanionSolver
    always_conditioned = True

    def __init__(self, *, pipeline: Any, **parts: Any) -> None:
        self.connectors, self.audio_vae, self.vocoder = pipeline.connectors, pipeline.audio_vae, pipeline.vocoder
        super().__init__(pipeline=pipeline, **parts)

    def _check_parts(self) -> None:
        super()._check_parts()
        transformer, sound = self.transformer.config, self.audio_vae.config
        wanted = sound.latent_channels * self._pitches
        if not transformer.audio_in_channels == transformer.audio_out_channels == wanted == sound.base_channels:
            raise KinemaError(
                f"transformer of model {self.name!r} has {transformer.audio_in_channels} channels of sound in and "
                f"{transformer.audio_out_channels} out, its audio_vae has {wanted}; they do not belong together"
            )

    @property
    def _second(self) -> bool:
        """Whether this is LTX-2 itself; in 2.3 time modulates the text, and other things came with it."""
        return not self.transformer.config.cross_attn_mod

    def recommended(self) -> Defaults:
        """The authors' code (ltx_pipelines/utils/constants.py): 121 frames of 512x768 at 24 fps, 40 steps, 30 in 2.3.

        The weights of guidance are 3 and 7, and it switches off the self-attention of block 29, 28 in 2.3, of 48.
        """
        block = min(29 if self._second else 28, self.transformer.config.num_layers - 1)
        return Defaults(
            height=512,
            width=768,
            num_frames=121,
            fps=24,
            num_inference_steps=40 if self._second else 30,
            guidance_scale=3.0,
            sound_guidance_scale=7.0,
            perturbed_block=block,
        )

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.transformer)

    # The network.

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        return {**super().schedule_options(conditions), "companion": conditions.companion}

    def inputs(self, conditions: Conditions, dropped: frozenset[str]) -> dict[str, Tensor]:
        found = super().inputs(conditions, dropped)
        if "modality" in dropped:  # such a branch has inputs of its own, so it is a call of its own
            found["apart"] = torch.ones(conditions.shape[0], dtype=torch.bool, device=self.device)
        return found

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        companion = conditions.companion
        assert companion is not None
        sound = torch.cat([companion.x] * (x.shape[0] // companion.x.shape[0]))
        level = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        level = (CLOCK * (level.amax(dim=1) if level.ndim == 2 else level)).expand(x.shape[0]).float()
        _, _, frames, rows, columns = x.shape

        def table(places: Tensor) -> rotary.Table:
            bounds = self.coordinates(places, conditions.fps).expand(x.shape[0], -1, -1, -1)
            made: rotary.Table = self.transformer.rope(bounds)
            return made

        with rotary.made_by(table), sounding_with(self._seen_with(sound, conditions.shape[2], conditions.fps)):
            v, heard = self.transformer(
                hidden_states=self.pipeline._pack_latents(x).to(self.dtype),
                audio_hidden_states=self.pipeline._pack_audio_latents(sound[:, :, :, 0]).to(self.dtype),
                encoder_hidden_states=inputs["text"],
                audio_encoder_hidden_states=inputs["sound_text"],
                timestep=self._timestep(t, x, inputs.get("known_frames")),
                audio_timestep=level,
                sigma=level,
                encoder_attention_mask=inputs["text_mask"],
                audio_encoder_attention_mask=inputs["text_mask"],
                num_frames=frames,
                height=rows,
                width=columns,
                fps=conditions.fps,
                audio_num_frames=sound.shape[2],
                isolate_modalities="apart" in inputs,
                use_cross_timestep=not self._second,
                return_dict=False,
            )
        companion.answers.append(self._unpacked(heard).to(sound.dtype))
        unpacked: Tensor = self.pipeline._unpack_latents(v, frames, rows, columns)
        return unpacked

    def coordinates(self, places: Tensor, fps: float) -> Tensor:
        """Token places (L, 3) in latent cells -> (1, 3, L, 2): where they begin and end in seconds, rows and columns.

        Rows and columns are counted in pixels; the first frame of the video has a latent frame to itself, thus those
        before it are whole.
        """
        begin = places.float().T[..., None]  # (3, L, 1)
        frame, row, column = torch.cat([begin, begin + 1], dim=-1)
        k, p = self.frames_per_latent, self.pixels_per_cell
        frames = torch.where(begin[0] < 0, frame * k, (frame * k + (1 - k)).clamp(min=0))
        return torch.stack([frames / fps, row * p, column * p])[None]

    # Sound.

    @property
    def _pitches(self) -> int:
        """Bands of a latent frame of the sound."""
        return int(self.audio_vae.config.mel_bins // self.audio_vae.mel_compression_ratio)

    @property
    def _per_second(self) -> float:
        """Latent frames of the sound in a second."""
        config = self.audio_vae.config
        rate = config.sample_rate / config.mel_hop_length / float(self.audio_vae.temporal_compression_ratio)
        return float(rate)

    def _unpacked(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, C W) -> latents of the sound (B, C, T, 1, W)."""
        unpacked: Tensor = self.pipeline._unpack_audio_latents(tokens, tokens.shape[1], num_mel_bins=self._pitches)
        return unpacked.unsqueeze(3)

    def _seen_with(self, sound: Tensor, frames: int, fps: float) -> Tensor:
        """The latent frame of the video in which each latent frame of the sound falls, (T,)."""
        times = self.transformer.audio_rope.prepare_audio_coords(1, sound.shape[2], sound.device).mean(-1).flatten()
        k = self.frames_per_latent
        seen: Tensor = ((times * fps).long() + k - 1).div(k, rounding_mode="floor")
        return seen.clamp(max=frames - 1)

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """Unit normal latents of the video, and behind them those of the sound."""
        video, companion = super().noise(conditions, generators), conditions.companion
        assert companion is not None
        companion.x = unit_noise(companion.x.shape, generators, self.device)
        return video

    @torch.no_grad()
    def sound(self, conditions: Conditions) -> tuple[Tensor, int] | None:
        companion, vae, pipeline = conditions.companion, self.audio_vae, self.pipeline
        assert companion is not None
        tokens = pipeline._pack_audio_latents(companion.x[:, :, :, 0])
        z = self._unpacked(pipeline._denormalize_audio_latents(tokens, vae.latents_mean, vae.latents_std))
        with self._coding:
            waves = self.vocoder(vae.decode(z[:, :, :, 0].to(vae.dtype), return_dict=False)[0])
        return waves.float().cpu(), int(self.vocoder.config.output_sampling_rate)

    # Pictures and text.

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        """The first latent frame, where a picture is given, and a place for the sound, as long as the video."""
        if requests[0].image is not None:
            super().condition(conditions, requests, size)
            del conditions.extra["posteriors"]  # what the autoencoder expects is taken, not a sample
        length = round(size[0] / conditions.fps * self._per_second)
        if length < 1:
            raise KinemaError(
                f"num_frames is {size[0]} at {conditions.fps:g} fps, too short for sound; use more or a lower fps"
            )
        shape = (len(requests), self.audio_vae.config.latent_channels, length, 1, self._pitches)
        conditions.companion = Companion("sound", torch.zeros(shape, device=self.device))

    def prepared(self, picture: Image.Image, height: int, width: int) -> Tensor:
        """Pixels as the autoencoder wants them, compressed as the pictures of the training were."""
        from diffusers.pipelines.ltx2 import utils

        crf = utils.resolve_default_image_crf(self.pipeline.text_encoder)
        compressed = utils.apply_image_conditioning_crf(np.array(picture.convert("RGB")), crf)
        return super().prepared(Image.fromarray(compressed), height, width)

    @torch.no_grad()
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What video and sound are told of prompts, (B, P, D) each, and which of it are words, (B, P)."""
        pipeline = self.pipeline
        length = self._text_length
        states, mask, _, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        text, sound_text, mask = self.connectors(states, mask, padding_side=pipeline.tokenizer.padding_side)
        return {"text": text.to(self.dtype), "sound_text": sound_text.to(self.dtype), "text_mask": mask}

    @property
    def _text_length(self) -> int:
        return min(MAX_TOKENS, int(self.pipeline.tokenizer.model_max_length))

    def spelling(self, prompt: str) -> Spelling:
        """The connectors move the words to the front where they put registers in the place of padding."""
        text, length, config = prompt.strip(), self._text_length, self.connectors.config
        spans = spans_of(self.pipeline.tokenizer, text, length)
        moved = config.video_connector_num_learnable_registers is not None
        return framed(text, spans, 0, ahead=0 if moved else length - len(spans))
