"""The Mochi family: Mochi 1, text to video.

Genmo, "Mochi 1", 2024, https://github.com/genmo-ai/mochi (a model without a paper). Its time runs from noise at 0 to
data at 1 and its output points the same way, x0 - noise: at the border t becomes 1 - t and the output changes its sign,
which costs no bit. Latents and frames equal those of diffusers' MochiPipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinema.backbones import decoding, rotary
from kinema.backbones.folder import CLOCK, Folder
from kinema.backbones.mochi_attention import MochiTapped, attentions, rotary_table
from kinema.backbones.pipelined import PipelineBackbone
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.words import Spelling, default_of, spans_of
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.schedule import Solver
from kinema.core.technique import Step

if TYPE_CHECKING:
    from kinema.core.run import Run

PIPELINES = ("MochiPipeline",)
CHECKPOINTS = ("genmo/mochi-1-preview",)  # the layout this file is written for
THRESHOLD = 0.025  # how far the first half of the steps goes, in levels


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> MochiBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    from transformers import T5EncoderModel

    module = folder.reader(device, dtype)
    pipeline: Any = diffusers.MochiPipeline  # an untyped class
    pipeline = pipeline(
        scheduler=folder.flow_scheduler(diffusers.FlowMatchEulerDiscreteScheduler, inverted=True),
        tokenizer=folder.tokenizer(),
        text_encoder=module("text_encoder", T5EncoderModel),
        transformer=module("transformer", diffusers.MochiTransformer3DModel),
        vae=module("vae", diffusers.AutoencoderKLMochi, dtype=torch.float32),
        force_zeros_for_empty_prompt=bool(folder.index.get("force_zeros_for_empty_prompt", False)),
    )
    return MochiBackbone(folder=folder, pipeline=pipeline, device=device, dtype=dtype)


class RisingSolver(Solver):
    """A flow scheduler with inverted sigmas: they are the share of the data, and its `step` takes x0 - noise."""

    def _levels(self) -> list[float]:
        return [1 - float(s) for s in self.scheduler.sigmas]

    def steps(self, run: Run | None = None) -> Iterator[Step]:
        for step in super().steps(run):
            yield dataclasses.replace(step, t_model=1 - step.told)

    def advance(self, x: Tensor, velocity: Tensor, step: Step) -> Tensor:
        return super().advance(x, -velocity, step)


class MochiBackbone(PipelineBackbone):
    """Mochi in kinema's convention: x is in normalised latent units, float32 outside the transformer.

    The whole clip has one noise level; levels by frame are refused.
    """

    family = "mochi"
    tapped_processor = MochiTapped
    solver_kind = RisingSolver

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        if self.transformer.config.in_channels != self.channels:
            raise KinemaError(
                f"transformer of model {self.name!r} has {self.transformer.config.in_channels} channels in, its "
                f"autoencoder has {self.channels}; they do not belong together"
            )

    def recommended(self) -> Defaults:
        """Genmo's demos/cli.py: 163 frames of 480x848 at 30 fps, 64 steps; guidance 4.5 as in diffusers' pipeline."""
        return Defaults(height=480, width=848, num_frames=163, fps=30, num_inference_steps=64, guidance_scale=4.5)

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.transformer)

    def text_readers(self) -> list[Any]:
        return [self.transformer.time_embed]

    # The network.

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        """Half of the steps in a line close to noise, the others in a parabola down to the data."""
        from diffusers.pipelines.mochi import pipeline_mochi

        steps = conditions.num_inference_steps
        if steps < 2:
            raise KinemaError(f"num_inference_steps is {steps}; a Mochi model needs 2 or more")
        levels: Any = pipeline_mochi.linear_quadratic_schedule  # an untyped function
        return {"sigmas": np.array(levels(steps, THRESHOLD))}

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        self.one_level(t)
        clock = CLOCK * (1 - torch.as_tensor(t, dtype=torch.float64, device=x.device))
        rows, columns = (n // p for n, p in zip(x.shape[3:], self.patch[1:], strict=True))

        def table(places: Tensor) -> rotary.Table:
            tokens = places / places.new_tensor(self.patch)
            return rotary_table(
                tokens, (rows, columns), self.transformer.rope.target_area, self.transformer.pos_frequencies
            )

        with rotary.made_by(table):
            output: Tensor = self.transformer(
                hidden_states=x.to(self.dtype),
                encoder_hidden_states=inputs["text"],
                encoder_attention_mask=inputs["text_mask"],
                timestep=clock.expand(x.shape[0]).float(),
                return_dict=False,
            )[0]
        return -output

    # Pixels and text.

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        config = self.vae.config
        if config.latents_mean is None or config.latents_std is None:
            z = x / config.scaling_factor
        else:
            mean, deviation = (
                torch.tensor(n, dtype=x.dtype, device=x.device).view(1, -1, 1, 1, 1)
                for n in (config.latents_mean, config.latents_std)
            )
            z = x * deviation / config.scaling_factor + mean
        return decoding.pieces(self.vae, z.to(self.vae.dtype))

    @torch.no_grad()
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """T5 embeddings (B, 256, D) and which of them are words, (B, 256).

        An empty prompt has none where the checkpoint says so. One by one: diffusers would take all words from a batch
        whose last prompt is empty.
        """
        encode = self.pipeline.encode_prompt
        pairs = [encode([p], do_classifier_free_guidance=False, device=self.device)[:2] for p in prompts]
        text, mask = (torch.cat(part) for part in zip(*pairs, strict=True))
        return {"text": text.to(self.dtype), "text_mask": mask}

    def spelling(self, prompt: str) -> Spelling:
        length = default_of(self.pipeline.encode_prompt, "max_sequence_length")
        return Spelling(prompt, spans_of(self.pipeline.tokenizer, prompt, length))
