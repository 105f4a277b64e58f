"""AnimateDiff (a joined UNet, or an image model's with an adapter) and Stable Video Diffusion."""

from functools import partial

from backbones.families import Case
from kinema.guidance.frame_cfg import FrameCFG
from tiny import TEXT_DIM, WORDS, _save

HEADS, GROUPS = 2, 8


def clip_tokenizer():
    """CLIP's tokenizer with whole words instead of pieces; prompts are 77 tokens, closed and padded with one token."""
    from transformers import CLIPTokenizer

    letters = {c: None for word in (*WORDS, "amp", "&", ";") for c in word}
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def clip_text():
    """A CLIP text model of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokens = len(clip_tokenizer())
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=TEXT_DIM, intermediate_size=32, num_hidden_layers=2, num_attention_heads=HEADS,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def clip_vision():
    """CLIP's image side; 224x224 pixels, as the pipeline makes them, in four patches."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=HEADS, image_size=224,
        patch_size=112, projection_dim=TEXT_DIM,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def feature_extractor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor()


def image_autoencoder():
    """AutoencoderKL: 8x8, 4 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(GROUPS,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=GROUPS,
    ).eval()


def video_autoencoder():
    """AutoencoderKLTemporalDecoder: 8x8, 4 channels; 32 is the least width its norms allow."""
    from diffusers import AutoencoderKLTemporalDecoder

    down = ("DownEncoderBlock2D",) * 4
    return AutoencoderKLTemporalDecoder(block_out_channels=(32,) * 4, down_block_types=down, layers_per_block=1).eval()


def image_unet():
    """UNet2DConditionModel as in Stable Diffusion 1.5, two levels instead of four."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 24),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=HEADS,  # which Stable Diffusion 1.5 takes for the number of heads
        cross_attention_dim=TEXT_DIM,
        norm_num_groups=GROUPS,
    ).eval()


def motion_adapter(middle=True):
    """MotionAdapter of version 1.5.2; version 3 has no motion in the middle."""
    from diffusers import MotionAdapter

    return MotionAdapter(
        block_out_channels=(16, 24),
        motion_norm_num_groups=GROUPS,
        motion_num_attention_heads=HEADS,
        use_motion_mid_block=middle,
    ).eval()


def motion_unet():
    """UNetMotionModel, as diffusers saves it, without motion in the middle."""
    from diffusers import UNetMotionModel

    return UNetMotionModel.from_unet2d(image_unet(), motion_adapter(middle=False)).eval()


def svd_unet():
    """UNetSpatioTemporalConditionModel, two levels instead of four; 32 is the least width its norms allow."""
    from diffusers import UNetSpatioTemporalConditionModel

    return UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        num_attention_heads=(HEADS, 2 * HEADS),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
        cross_attention_dim=TEXT_DIM,
        layers_per_block=1,
        num_frames=3,
    ).eval()


def ddim(**more):
    """As in AnimateDiff's example: the image model's scheduler with linear betas, all timesteps and no clipping."""
    from diffusers import DDIMScheduler

    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    ends = dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return DDIMScheduler(**betas, **{"timestep_spacing": "linspace", **ends, **more})


def other(name, **more):
    """Another solver on the same betas."""
    import diffusers

    return getattr(diffusers, name)(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", **more)


def svd_euler():
    """The scheduler of the Stable Video Diffusion checkpoints."""
    return other(
        "EulerDiscreteScheduler",
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        steps_offset=1,
    )


def animatediff(folder, scheduler=ddim, joined=False):
    parts = dict(unet=motion_unet) if joined else dict(unet=image_unet, motion_adapter=motion_adapter)
    shared = dict(tokenizer=clip_tokenizer, text_encoder=clip_text, vae=image_autoencoder)
    empty = dict(feature_extractor=[None, None], image_encoder=[None, None])
    if joined:
        empty["motion_adapter"] = [None, None]
    return _save(folder, "AnimateDiffPipeline", scheduler, empty, **shared, **parts)


def svd(folder):
    parts = dict(vae=video_autoencoder, image_encoder=clip_vision, unet=svd_unet, feature_extractor=feature_extractor)
    return _save(folder, "StableVideoDiffusionPipeline", svd_euler, tokenizer=None, text_encoder=None, **parts)


SIZE = dict(height=32, width=64, num_frames=4, num_inference_steps=3)


def _animatediff(scheduler=ddim, scale=1.0, joined=False):
    return Case(
        build=partial(animatediff, scheduler=scheduler, joined=joined),
        pipeline="AnimateDiffPipeline",
        call=SIZE,
        request=SIZE,
        guidance=dict(guidance_scale=scale),
        scale=scale,
        bitwise=scale == 1,
        embedding=None,  # a convolution mixes cells
        shift=0.0,  # frames have places of a table, which is no rotation
    )


def _freeze(pipeline):
    """PyTorch multiplies tokens spread over a batch without a copy in another order when weights want a gradient."""
    pipeline.unet.requires_grad_(False)


def _svd(first, last):
    return Case(
        build=svd,
        pipeline="StableVideoDiffusionPipeline",
        call={**SIZE, "fps": 7},
        request={**SIZE, "fps": 7},
        guidance=dict(min_guidance_scale=first, max_guidance_scale=last),
        guides=[FrameCFG(first=first, last=last)] if last > 1 else [],
        prompts=False,
        images=1,
        to_latents=lambda theirs, ours: theirs.transpose(1, 2),
        bitwise=last == 1,
        mend=_freeze,
        embedding=None,
        moves=False,
    )


CASES = {
    "animatediff": _animatediff(partial(ddim, timestep_spacing="leading"), scale=7.5),
    "animatediff, alone": _animatediff(),
    "animatediff, joined, v": _animatediff(partial(ddim, prediction_type="v_prediction"), scale=7.5, joined=True),
    "animatediff, joined, v, alone": _animatediff(partial(ddim, prediction_type="v_prediction"), joined=True),
    "animatediff, dpm++": _animatediff(
        partial(other, "DPMSolverMultistepScheduler", use_karras_sigmas=True, algorithm_type="dpmsolver++")
    ),
    "animatediff, euler": _animatediff(partial(other, "EulerDiscreteScheduler", timestep_spacing="trailing")),
    "animatediff, euler a": _animatediff(partial(other, "EulerAncestralDiscreteScheduler", steps_offset=1)),
    "svd": _svd(1.0, 3.0),
    "svd, alone": _svd(1.0, 1.0),
}
