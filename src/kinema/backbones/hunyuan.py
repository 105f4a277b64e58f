"""The HunyuanVideo family: text to video, and image to video of both kinds.

Kong et al., "HunyuanVideo: A Systematic Framework for Large Video Generative Models", 2024, arXiv:2412.03603. The
transformer already gives noise - x0 on x_t = (1 - t) x0 + t noise; the border only turns t into its clock, 1000 t.
Latents and frames equal those of diffusers' HunyuanVideo pipelines.

Guidance: most checkpoints are distilled, they are told a weight and need no second call. There `guidance_scale` of a
request is what the network is told, and guidance by a second call with the negative prompt (diffusers' true_cfg_scale)
is a technique such as CFG, beside it. A checkpoint that cannot be told (I2V-33ch) is guided as any other model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinema.backbones import decoding, rotary
from kinema.backbones.folder import CLOCK, Folder
from kinema.backbones.hunyuan_attention import HunyuanTapped, attentions, rotary_table
from kinema.backbones.pipelined import PipelineBackbone
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.solvers import EULER_AND_UNIPC
from kinema.backbones.words import Spelling, default_of, framed, spans_of
from kinema.core.attention import PADDING, Site
from kinema.core.errors import KinemaError
from kinema.core.schedule import Solver
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from kinema.request import Request

TEXT, IMAGE = "HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline"
PIPELINES = (TEXT, IMAGE)
CHECKPOINTS = (  # the layouts this file is written for
    "hunyuanvideo-community/HunyuanVideo",
    "hunyuanvideo-community/HunyuanVideo-I2V",
    "hunyuanvideo-community/HunyuanVideo-I2V-33ch",
)


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> HunyuanBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    import transformers

    module = folder.reader(device, dtype)

    scheduler = folder.flow_scheduler(diffusers.FlowMatchEulerDiscreteScheduler)
    image = folder.pipeline == IMAGE
    more = {}
    if image:
        more["image_processor"] = folder.processor("CLIP")
    pipeline = getattr(diffusers, folder.pipeline)(
        text_encoder=module(
            "text_encoder", transformers.LlavaForConditionalGeneration if image else transformers.LlamaModel
        ),
        tokenizer=folder.tokenizer(),
        text_encoder_2=module("text_encoder_2", transformers.CLIPTextModel),
        tokenizer_2=folder.tokenizer("tokenizer_2"),
        transformer=module("transformer", diffusers.HunyuanVideoTransformer3DModel),
        vae=module("vae", diffusers.AutoencoderKLHunyuanVideo, dtype=torch.float32),
        scheduler=scheduler,
        **more,
    )
    kind = HunyuanImageBackbone if image else HunyuanBackbone
    return kind(folder=folder, pipeline=pipeline, device=device, dtype=dtype)


class HunyuanBackbone(PipelineBackbone):
    """A HunyuanVideo model in kinema's convention: x is in scaled latent units, float32 outside the transformer.

    The network has one clock for the whole clip: noise levels by frame are refused.
    """

    family = "hunyuan"
    tapped_processor = HunyuanTapped
    schedulers = EULER_AND_UNIPC
    picture_tokens = 0  # of a picture, that are read before the words

    def __init__(self, *, folder: Folder, **parts: Any) -> None:
        super().__init__(folder=folder, **parts)
        config = self.transformer.config
        wanted = (2 * self.channels + 1 if self.concatenates else self.channels, self.channels)
        if (config.in_channels, config.out_channels) != wanted or self.sees_pictures != self.takes_image:
            raise KinemaError(
                f"transformer of model {self.name!r} has {config.in_channels} channels in and {config.out_channels} "
                f"out, its autoencoder has {self.channels}; a {folder.pipeline} needs other parts"
            )

    def recommended(self) -> Defaults:
        """What diffusers' pipelines and examples take, at the authors' 24 fps; untold, a model needs no guidance.

        The first four of 129 frames are the picture's where it is concatenated, and are not shown.
        """
        told = bool(self.transformer.config.guidance_embeds)
        return Defaults(
            height=720,
            width=1280,
            num_frames=125 if self.concatenates else 129,
            fps=24,
            num_inference_steps=50,
            guidance_scale=6.0 if told else 1.0,
            embedded_guidance=told,
        )

    @property
    def sees_pictures(self) -> bool:
        """Whether the network was trained with pictures."""
        return self.transformer.config.image_condition_type is not None

    @property
    def concatenates(self) -> bool:
        """Whether a picture stands beside the latents, and not in the first of them."""
        return bool(self.transformer.config.image_condition_type == "latent_concat")

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.transformer)

    def text_readers(self) -> list[Any]:
        return [self.transformer.context_embedder]

    def prepare(self, requests: Sequence[Request]) -> Conditions:
        conditions = super().prepare(requests)
        if self.defaults.embedded_guidance:
            open_field = self.defaults.guidance_scale
            scales = [open_field if r.guidance_scale is None else r.guidance_scale for r in requests]
            conditions.inputs["guidance"] = torch.tensor(scales, dtype=self.dtype, device=self.device) * CLOCK
        return conditions

    # The network.

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        """Levels at even distances, before the scheduler shifts them."""
        return {"sigmas": np.linspace(1.0, 0.0, conditions.num_inference_steps + 1)[:-1]}

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        latents = x if "picture" not in inputs else torch.cat([x, inputs["picture"]], dim=1)
        with rotary.made_by(self.rotary_table):
            v: Tensor = self.transformer(
                hidden_states=latents.to(self.dtype),
                timestep=self.timestep(t, x),
                encoder_hidden_states=inputs["text"],
                encoder_attention_mask=inputs["text_mask"],
                pooled_projections=inputs["pooled"],
                guidance=inputs.get("guidance"),
                return_dict=False,
            )[0]
        return v

    def rotary_table(self, places: Tensor) -> rotary.Table:
        """Of token places (L, 3) in latent cells."""
        config = self.transformer.config
        return rotary_table(places / places.new_tensor(self.patch), config.rope_axes_dim, config.rope_theta)

    def timestep(self, t: float | Tensor, x: Tensor) -> Tensor:
        """The model's clock, (B,)."""
        self.one_level(t)
        clock = CLOCK * torch.as_tensor(t, dtype=torch.float64, device=x.device)
        return clock.expand(x.shape[0]).float()

    # Pixels and text.

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        return decoding.pieces(self.vae, x.to(self.vae.dtype) / self.vae.config.scaling_factor, self.coded_apart)

    @torch.no_grad()
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Llama's states (B, P, D) behind the words that frame a prompt, which are words (B, P), and CLIP's summary."""
        return self._named(*self.pipeline.encode_prompt(prompt=list(prompts), device=self.device))

    def spelling(self, prompt: str) -> Spelling:
        """Of Llama's tokens, behind those that frame a prompt and behind a picture's; CLIP's are summed up."""
        encode = self.pipeline.encode_prompt
        template = default_of(encode, "prompt_template")
        ahead, cut = template["template"].index("{}"), template["crop_start"]
        length = cut + default_of(encode, "max_sequence_length")
        spans = spans_of(self.pipeline.tokenizer, template["template"].format(prompt), length)
        return framed(prompt, spans[cut:], ahead, self.picture_tokens)

    def join_texts(self, texts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """CLIP's summary stays that of the request's own prompt."""
        own = {name: text for name, text in texts[0].items() if name == "pooled"}
        return {**super().join_texts(texts), **own}

    def owners(self, inputs: Mapping[str, Tensor], texts: int) -> Tensor:
        """The network counts the words of a text and takes as many tokens from its beginning."""
        words = inputs["text_mask"].reshape(len(inputs["text_mask"]), texts, -1)
        place, owner = (torch.arange(n, device=self.device) for n in (words.shape[2], texts))
        return torch.where(place < words.sum(dim=2, keepdim=True), owner[:, None], PADDING).flatten(1)

    def _named(self, text: Tensor, pooled: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"text": text.to(self.dtype), "text_mask": mask.to(self.dtype), "pooled": pooled.to(self.dtype)}


class FromPicture(Solver):
    """Starts from noise with a trace of the picture in every frame.

    still: latents of the picture, (B, C, T, H, W).
    """

    def __init__(self, *given: Any, still: Tensor, **options: Any) -> None:
        super().__init__(*given, **options)
        self.still = still

    def begin(self, noise: Tensor) -> Tensor:
        # x_t = (1 - t) x0 + t noise at t = 0.999, where the first step is told t = 1
        t = torch.tensor([0.999], device=noise.device)
        return noise * t + self.still * (1 - t)


class HunyuanImageBackbone(HunyuanBackbone):
    """Image to video: the first latent frame stays the picture, or the picture stands beside the latents as channels.

    In the second kind the clip has one latent frame more than it shows: the first four frames are cut off, so that
    num_frames counts frames of the video where diffusers counts four more. Pictures are stretched to the size.
    """

    solver_kind = FromPicture
    takes_image = True
    needs_image = True

    @property
    def padding(self) -> int:  # type: ignore[override]
        return int(self.concatenates)

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        _, height, width = size
        pictures = [open_picture(r.image, "image") for r in requests]
        conditions.extra["pictures"] = pictures
        pixels = self.pipeline.video_processor.preprocess(pictures, height, width).to(self.device, self.vae.dtype)
        latents = [self.vae.encode(one[None, :, None]).latent_dist.mode() for one in pixels]
        still = (torch.cat(latents) * self.vae.config.scaling_factor).expand(conditions.shape)
        conditions.extra["still"] = still
        if self.concatenates:
            mask = torch.ones_like(still[:, :1])
            conditions.inputs["picture"] = torch.cat([still, mask], dim=1)
            conditions.inputs["picture"][:, :, 1:] = 0
            return
        conditions.known = still
        conditions.known_frames = torch.zeros(1, 1, conditions.shape[2], 1, 1, dtype=torch.bool, device=self.device)
        conditions.known_frames[:, :, 0] = True

    def schedule_options(self, conditions: Conditions) -> dict[str, Any]:
        return {**super().schedule_options(conditions), "still": conditions.extra["still"]}

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        return decoding.without(self.frames_per_latent * self.padding, super().pixels(x, conditions))

    def encode(self, video: Tensor) -> Tensor:
        """As for any model; before the video its first frame stands still for as long as is not shown."""
        still = video[:, :, :1].repeat_interleave(self.frames_per_latent * self.padding, dim=2)
        return super().encode(torch.cat([still, video], dim=2))

    def encode_texts(self, prompts: Sequence[str], conditions: Conditions | None = None) -> dict[str, Tensor]:
        """The text encoder sees the picture too; beside the negative prompt it sees a black one."""
        if conditions is None:
            return super().encode_texts(prompts)
        with self._coding:
            return self._read(prompts, conditions.extra["pictures"], self._interleave)

    @property
    def _interleave(self) -> int:
        """Every which token of a picture is read."""
        return 2 if self.concatenates else 4

    @property
    def picture_tokens(self) -> int:  # type: ignore[override]
        template = default_of(self.pipeline.encode_prompt, "prompt_template")
        return len(range(0, template["image_emb_len"], self._interleave))

    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """The prompts beside a black picture, of which diffusers always keeps every second token."""
        from PIL import Image

        return self._read(prompts, [Image.new("RGB", (64, 64))] * len(prompts), 2)

    @torch.no_grad()
    def _read(self, prompts: Sequence[str], pictures: Sequence[Any], interleave: int) -> dict[str, Tensor]:
        """LLaVA's states of every `interleave`-th token of a picture and of its prompt, and CLIP's summary."""
        options = dict(device=self.device, image_embed_interleave=interleave)
        each = [
            self._named(*self.pipeline.encode_prompt(image=picture, prompt=[prompt], **options))
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}
