"""The HunyuanVideo 1.5 family: text to video and image to video, distilled or not.

Tencent Hunyuan, "HunyuanVideo 1.5 Technical Report", 2025, arXiv:2511.18870. As in HunyuanVideo the transformer already
gives noise - x0 on x_t = (1 - t) x0 + t noise; the border turns t into its clock, 1000 t, and sets mask and picture
beside the latents. The step-distilled checkpoint also wants to know where its step ends: the next level of the schedule
below t. Latents and frames equal those of diffusers' HunyuanVideo15 pipelines.

Guidance: the network is told none; the weight of the folder's guider is the default of `guidance_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.folder import Folder
from kinema.backbones.hunyuan import HunyuanBackbone
from kinema.backbones.hunyuan_attention import Hunyuan15Tapped
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.words import Spelling, framed, spans_of
from kinema.core.attention import PADDING, SHARED
from kinema.core.errors import KinemaError
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from kinema.request import Request

TEXT, IMAGE = "HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"
PIPELINES = (TEXT, IMAGE)
CHECKPOINTS = (  # the layouts this file is written for
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_i2v",
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled",
)


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> Hunyuan15Backbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    import transformers

    module = folder.reader(device, dtype)

    scheduler = folder.flow_scheduler(diffusers.FlowMatchEulerDiscreteScheduler)
    guidance = guidance_of(folder)
    more = {}
    if folder.pipeline == IMAGE:
        more["feature_extractor"] = folder.processor("Siglip", "feature_extractor")
        more["image_encoder"] = module("image_encoder", transformers.SiglipVisionModel)
    pipeline = getattr(diffusers, folder.pipeline)(
        text_encoder=module("text_encoder", transformers.Qwen2_5_VLTextModel),
        tokenizer=folder.tokenizer(),
        text_encoder_2=module("text_encoder_2", transformers.T5EncoderModel),
        tokenizer_2=folder.tokenizer("tokenizer_2"),
        transformer=module("transformer", diffusers.HunyuanVideo15Transformer3DModel),
        vae=module("vae", diffusers.AutoencoderKLHunyuanVideo15, dtype=torch.float32),
        scheduler=scheduler,
        guider=None,
        **more,
    )
    kind = Hunyuan15ImageBackbone if folder.pipeline == IMAGE else Hunyuan15Backbone
    return kind(folder=folder, pipeline=pipeline, guidance=guidance, device=device, dtype=dtype)


def guidance_of(folder: Folder) -> float:
    """The weight of the folder's guider, as CFG counts it; 1 for one that is switched off.

    Raises: KinemaError for a guider that is not plain classifier-free guidance.
    """
    config = folder.config("guider", "guider_config.json")
    scale, rescale, start, stop = (
        config.get(name, known)
        for name, known in (("guidance_scale", 7.5), ("guidance_rescale", 0), ("start", 0), ("stop", 1))
    )
    plain = config.get("_class_name") == "ClassifierFreeGuidance" and (rescale, start, stop) == (0, 0, 1)
    if not plain or isinstance(scale, bool) or not isinstance(scale, int | float):
        raise KinemaError(
            f"guider of model {folder.name!r} is not plain ClassifierFreeGuidance over all steps, which is all that "
            "kinema takes from a folder; put a plain one there and name the technique in the request"
        )
    if not config.get("enabled", True):
        return 1.0
    return float(scale) + bool(config.get("use_original_formulation"))


class Hunyuan15Backbone(HunyuanBackbone):
    """A HunyuanVideo 1.5 model in kinema's convention: x is in scaled latent units, float32 outside the transformer."""

    family = "hunyuan15"
    tapped_processor = Hunyuan15Tapped
    coded_apart = True  # the attention mask of diffusers' autoencoder (0.42) does not fit a batch
    concatenates = True  # zeros where there is no picture

    def __init__(self, *, guidance: float, **parts: Any) -> None:
        self.guidance = guidance
        super().__init__(**parts)

    def recommended(self) -> Defaults:
        """What diffusers' pipelines take: 121 frames, 50 steps, 16:9 in the model's size; 24 fps as the authors.

        The authors say 8 or 12 steps for the step-distilled model.
        """
        config, processor = self.transformer.config, self.pipeline.video_processor
        height, width = processor.calculate_default_height_width(9, 16, config.target_size)
        return Defaults(
            height=height,
            width=width,
            num_frames=121,
            fps=24,
            num_inference_steps=12 if config.use_meanflow else 50,
            guidance_scale=self.guidance,
        )

    @property
    def sees_pictures(self) -> bool:
        return self.takes_image

    def prepare(self, requests: Sequence[Request]) -> Conditions:
        conditions = super().prepare(requests)
        batch, channels, *cells = conditions.shape
        if not self.takes_image:
            tokens = (batch, self.pipeline.vision_num_semantic_tokens, self.pipeline.vision_states_dim)
            conditions.inputs["picture"] = torch.zeros(batch, channels + 1, *cells, device=self.device)
            conditions.inputs["image_tokens"] = torch.zeros(tokens, dtype=self.dtype, device=self.device)
        elif self.transformer.config.use_meanflow:
            conditions.extra["times"] = self.solver(conditions).timesteps
        return conditions

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        clock = self.timestep(t, x)
        with rotary.made_by(self.rotary_table):
            v: Tensor = self.transformer(
                hidden_states=torch.cat([x, inputs["picture"]], dim=1).to(self.dtype),
                timestep=clock.to(self.dtype),
                timestep_r=self._end(clock, conditions),
                encoder_hidden_states=inputs["text"],
                encoder_attention_mask=inputs["text_mask"],
                encoder_hidden_states_2=inputs["glyphs"],
                encoder_attention_mask_2=inputs["glyphs_mask"],
                image_embeds=inputs["image_tokens"],
                return_dict=False,
            )[0]
        return v

    def owners(self, inputs: Mapping[str, Tensor], texts: int) -> Tensor:
        """The network puts a picture's tokens before the glyphs, these before the words, and all padding behind.

        Tokens of a picture are shared, unless they are all zero: then they are padding, too.
        """
        image = inputs["image_tokens"]
        owners = [image.new_full(image.shape[:2], SHARED if image.any() else PADDING, dtype=torch.long)]
        for name in ("glyphs_mask", "text_mask"):
            words = inputs[name].bool()
            owner = torch.arange(texts, device=self.device).repeat_interleave(words.shape[1] // texts)
            owners.append(torch.where(words, owner, PADDING))
        owner = torch.cat(owners, dim=1)
        return owner.gather(1, (owner == PADDING).int().argsort(dim=1, stable=True))

    def _end(self, clock: Tensor, conditions: Conditions) -> Tensor | None:
        """Where the step ends, (B,), for a network that wants to know: the highest time of the schedule below now."""
        times = conditions.extra.get("times")
        if times is None:
            return None
        below = torch.where(times < clock[:, None], times, 0.0)
        return below.amax(dim=1).to(self.dtype)

    @torch.no_grad()
    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Qwen's states (B, P, D), ByT5's of what stands in quotes, to be written in the video, and their masks."""
        encoded = self.pipeline.encode_prompt(
            prompt=list(prompts), device=self.device, dtype=self.dtype, batch_size=len(prompts)
        )
        return dict(zip(("text", "text_mask", "glyphs", "glyphs_mask"), encoded, strict=True))

    def spelling(self, prompt: str) -> Spelling:
        """Of Qwen's tokens, behind those that frame a prompt, a picture's, and ByT5's of what stands in quotes."""
        from diffusers.pipelines.hunyuan_video1_5 import pipeline_hunyuan_video1_5 as module

        pipeline, frame = self.pipeline, "\0"
        talk = module.format_text_input([frame], pipeline.system_message)[0]
        framed_talk = pipeline.tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        head, tail = framed_talk.split(frame)
        cut = pipeline.prompt_template_encode_start_idx
        length = cut + pipeline.tokenizer_max_length
        spans = spans_of(pipeline.tokenizer, head + prompt + tail, length, add_special_tokens=False)
        ahead, quoted = self.picture_tokens, module.extract_glyph_texts(prompt)
        if quoted is not None:
            most = pipeline.tokenizer_2_max_length
            ahead += len(pipeline.tokenizer_2(quoted, max_length=most, truncation=True).input_ids)
        return framed(prompt, spans[cut:], len(head), ahead)


class Hunyuan15ImageBackbone(Hunyuan15Backbone):
    """Image to video: the first latent frame stands beside the latents, SigLIP's tokens of it among the words.

    A request that leaves height and width open gets the proportions of its picture; otherwise the picture is cut to
    those of the request.
    """

    takes_image = True
    needs_image = True

    def settle(self, requests: Sequence[Request]) -> tuple[int, int, int, int, float]:
        return super().settle([self._sized(r) for r in requests])

    def _sized(self, request: Request) -> Request:
        if request.image is None or request.height is not None or request.width is not None:
            return request
        width, height = open_picture(request.image, "image").size
        processor, target = self.pipeline.video_processor, self.transformer.config.target_size
        rows, columns = processor.calculate_default_height_width(height, width, target)
        return request.changed(height=rows, width=columns)

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        _, height, width = size
        batch, channels, *cells = conditions.shape
        picture = torch.zeros(batch, channels + 1, *cells, device=self.device)
        picture[:, channels, 0] = 1
        processor, tokens = self.pipeline.video_processor, []
        for i, request in enumerate(requests):
            cut = processor.resize(open_picture(request.image, "image"), height=height, width=width, resize_mode="crop")
            options = dict(image=cut, device=self.device)
            latents = self.pipeline._get_image_latents(self.vae, processor, height=height, width=width, **options)
            picture[i, :channels, :1] = latents[0]
            tokens.append(self.pipeline.encode_image(batch_size=1, dtype=self.dtype, **options))
        conditions.inputs["picture"] = picture
        conditions.inputs["image_tokens"] = torch.cat(tokens)

    @property
    def picture_tokens(self) -> int:  # type: ignore[override]
        config = self.pipeline.image_encoder.config
        return int((config.image_size // config.patch_size) ** 2)
