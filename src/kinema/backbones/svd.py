"""Stable Video Diffusion: a video from one picture, without words.

Blattmann et al., "Stable Video Diffusion: Scaling Latent Video Diffusion Models to Large Datasets", 2023,
arXiv:2311.15127. The picture is given twice, as latents beside each frame and as a CLIP token; guidance leaves out
both. Latents and frames equal those of diffusers' pipeline, whose guidance grows from frame to frame (see
guidance/frame_cfg.py). A request's fps is told to the network, together with two numbers at the pipeline's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.backbones import decoding
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions, Defaults
from kinema.backbones.unet_base import UNetBackbone
from kinema.core.errors import KinemaError
from kinema.core.run import seeded
from kinema.pictures import open_picture

if TYPE_CHECKING:
    from kinema.request import Request

PIPELINES = ("StableVideoDiffusionPipeline",)
CHECKPOINTS = (  # the layouts this file is written for
    "stabilityai/stable-video-diffusion-img2vid",
    "stabilityai/stable-video-diffusion-img2vid-xt",
    "stabilityai/stable-video-diffusion-img2vid-xt-1-1",
)
MOTION_BUCKET = 127.0  # how much moves, as the training data was sorted, 0 to 255
NOISE_AUGMENTATION = 0.02  # deviation of the noise on the picture before it is encoded, on pixels -1..1


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> SVDBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    import diffusers
    import transformers

    module = folder.reader(device, dtype)

    unet = module("unet", diffusers.UNetSpatioTemporalConditionModel)
    vae = module("vae", diffusers.AutoencoderKLTemporalDecoder, dtype=torch.float32)
    _check_unet(unet, vae, folder)
    return SVDBackbone(
        folder=folder,
        image_encoder=module("image_encoder", transformers.CLIPVisionModelWithProjection),
        feature_extractor=folder.processor("CLIP", "feature_extractor"),
        unet=unet,
        vae=vae,
        scheduler=folder.scheduler(diffusers.EulerDiscreteScheduler),
        device=device,
        dtype=dtype,
    )


def _check_unet(unet: Any, vae: Any, folder: Folder) -> None:
    """Noise beside a picture, and three numbers: anything else would be another model."""
    config, channels = unet.config, vae.config.latent_channels
    three = config.projection_class_embeddings_input_dim == 3 * config.addition_time_embed_dim
    if not three or (config.in_channels, config.out_channels) != (2 * channels, channels):
        raise KinemaError(
            f"unet of model {folder.name!r} does not take a picture and three numbers (fps, motion, noise); "
            "take the one of its checkpoint"
        )


class SVDBackbone(UNetBackbone):
    """A Stable Video Diffusion model in kinema's convention."""

    family = "svd"
    by_frame: Mapping[str, int] = {}  # its picture stands beside every frame
    hooks = UNetBackbone.hooks - {"context"}
    droppable = frozenset({"image"})
    takes_image = True
    needs_image = True
    reads_text = False

    def __init__(
        self, *, image_encoder: Any, feature_extractor: Any, unet: Any, vae: Any, scheduler: Any, **parts: Any
    ) -> None:
        import diffusers

        self.image_encoder = image_encoder
        kind: Any = diffusers.StableVideoDiffusionPipeline  # diffusers is not fully typed
        self.pipeline = kind(vae, image_encoder, unet, scheduler, feature_extractor)
        super().__init__(unet=unet, vae=vae, scheduler=scheduler, defaults=_defaults(unet), **parts)

    def time_of(self, t: float) -> float:
        if self.scheduler.config.timestep_type != "continuous" or not 0 < t < 1:
            return super().time_of(t)
        return 0.25 * math.log(t / (1 - t))  # Karras et al., 2022, arXiv:2206.00364: a quarter of log sigma

    # The picture.

    def condition(self, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]) -> None:
        """Pictures are stretched to the size, as diffusers does; cut them to its proportions before."""
        _, height, width = size
        pictures = [open_picture(r.image, "image") for r in requests]
        tokens = [self.pipeline._encode_image(picture, self.device, 1, False) for picture in pictures]
        prepare = self.pipeline.video_processor.preprocess
        pixels = torch.cat([prepare(picture, height=height, width=width) for picture in pictures])
        noise = torch.cat([_picture_noise(conditions, seeded(r.seed), self.pixels_per_cell) for r in requests])
        noisy = (pixels + NOISE_AUGMENTATION * noise).to(self.device)
        told = [conditions.fps - 1, MOTION_BUCKET, NOISE_AUGMENTATION]  # it was trained on fps - 1
        conditions.inputs |= {
            "picture": self.pipeline._encode_vae_image(noisy, self.device, 1, False),  # (B, C, H, W)
            "image_tokens": torch.cat(tokens),  # (B, 1, D)
            "told": torch.tensor([told] * len(requests), dtype=self.dtype, device=self.device),
        }

    def noise(self, conditions: Conditions, generators: Sequence[torch.Generator]) -> Tensor:
        """As in diffusers, a seed's first numbers are those on the picture; then come the frames, one by one."""
        _, channels, frames, rows, columns = conditions.shape
        drawn = []
        for generator in generators:
            _picture_noise(conditions, generator, self.pixels_per_cell)
            drawn.append(torch.randn((1, frames, channels, rows, columns), generator=generator, dtype=torch.float32))
        return torch.cat(drawn).transpose(1, 2).to(self.device)

    # The network.

    def text_inputs(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return {}

    def without_image(self, conditions: Conditions) -> dict[str, Tensor]:
        return {name: torch.zeros_like(conditions.inputs[name]) for name in ("picture", "image_tokens")}

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        """One noise level a clip: `t` is a float or (B,)."""
        time = self.network_time(t, x, conditions)
        latents = self.network_input(x, t, conditions).transpose(1, 2)  # (B, T, C, H, W)
        picture = inputs["picture"][:, None].expand(-1, x.shape[2], -1, -1, -1)
        output: Tensor = self.unet(
            torch.cat([latents, picture], dim=2).to(self.dtype),
            time,
            encoder_hidden_states=inputs["image_tokens"],
            added_time_ids=inputs["told"],
            return_dict=False,
        )[0]
        return self.network_velocity(output.transpose(1, 2), x, t)

    def pixels(self, x: Tensor, conditions: Conditions | None = None) -> Iterator[Tensor]:
        return decoding.pieces(self.vae, self.codec.latents(x.to(self.vae.dtype)), apart=True)


def _picture_noise(conditions: Conditions, generator: torch.Generator, pixels_per_cell: int) -> Tensor:
    """The noise on the picture of one request, (1, 3, height, width)."""
    height, width = (n * pixels_per_cell for n in conditions.shape[-2:])
    return torch.randn((1, 3, height, width), generator=generator, dtype=torch.float32)


def _defaults(unet: Any) -> Defaults:
    """What diffusers' pipeline takes: 1024x576, 14 or 25 frames (the UNet says), 7 fps, 25 steps, guidance 1 to 3."""
    return Defaults(
        height=576,
        width=1024,
        num_frames=int(unet.config.num_frames),
        fps=7,
        num_inference_steps=25,
        guidance_scale=3.0,
        first_frame_guidance_scale=1.0,
    )
