"""CogVideoX 2B, 5B and 1.5, text and image to video."""

from functools import partial
from typing import Any

import torch

import tiny
from backbones.families import Case

SIZE = dict(height=32, width=64, num_frames=9, num_inference_steps=3)
OTHER_SIZE = dict(height=48, width=32, num_frames=17, num_inference_steps=7)  # not what the positions were made for


def text_encoder() -> Any:
    """A T5 1.1 encoder of one layer, width 16."""
    from transformers import T5Config, T5EncoderModel

    sizes = dict(d_model=tiny.TEXT_DIM, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    config = T5Config(vocab_size=3 + len(tiny.WORDS), feed_forward_proj="gated-gelu", **sizes)
    return T5EncoderModel(config).eval()


def autoencoder(scaling_factor: float, invert_scale_latents: bool = False) -> Any:
    """AutoencoderKLCogVideoX: 8x8x4 with 16 channels."""
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=scaling_factor,
        invert_scale_latents=invert_scale_latents,
    ).eval()


def transformer(**more: Any) -> Any:
    """CogVideoXTransformer3DModel of two blocks, two heads of width 16, made for SIZE."""
    from diffusers import CogVideoXTransformer3DModel

    sizes: dict[str, Any] = dict(sample_height=4, sample_width=8, sample_frames=9, time_embed_dim=16)
    made = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        text_embed_dim=tiny.TEXT_DIM,
        num_layers=2,
        **{**sizes, **more},
    )
    if more.get("use_learned_positional_embeddings"):
        table = made.patch_embed.pos_embedding
        table += 0.1 * torch.randn(table.shape)  # no longer the sines it starts as
    return made.eval()


def scheduler(kind: str, snr_shift_scale: float) -> Any:
    """As the authors set theirs."""
    import diffusers

    return getattr(diffusers, kind)(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        snr_shift_scale=snr_shift_scale,
    )


DDIM, DPM = "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"
ROTARY = dict(use_rotary_positional_embeddings=True)
PAIRS = dict(patch_size_t=2, patch_bias=False, sample_height=12, sample_width=12, **ROTARY)


def build(folder, solver, scaling_factor=0.7, shift=1.0, pipeline="CogVideoXPipeline", inverse=False, **network):
    return tiny._save(
        folder,
        pipeline,
        lambda: scheduler(solver, shift),
        text_encoder=text_encoder,
        vae=lambda: autoencoder(scaling_factor, inverse),
        transformer=lambda: transformer(**network),
    )


def cogvideox_2b(folder, solver=DDIM):
    """No rotary positions: sines are added to the tokens."""
    return build(folder, solver, scaling_factor=1.15258426, shift=3.0)


def cogvideox_5b(folder, solver=DPM):
    return build(folder, solver, **ROTARY)


def cogvideox_5b_i2v(folder, solver=DPM):
    """Rotary and learned positions, and the picture in 16 more channels."""
    network = dict(in_channels=32, use_learned_positional_embeddings=True, **ROTARY)
    return build(folder, solver, pipeline=I2V, **network)


def cogvideox_15(folder, solver=DPM):
    """Latent frames in pairs."""
    return build(folder, solver, **PAIRS)


def cogvideox_15_i2v(folder, solver=DPM):
    """The same with a picture, whose latents are scaled the other way, and one more input, ofs."""
    return build(folder, solver, pipeline=I2V, inverse=True, in_channels=32, ofs_embed_dim=16, **PAIRS)


def _frames_first(theirs, ours):
    return theirs.transpose(1, 2)


def _case(build, pipeline="CogVideoXPipeline", scale=6.0, size=SIZE, **more):
    return Case(
        build=build,
        pipeline=pipeline,
        call=size,
        request=size,
        guidance=dict(guidance_scale=scale),
        scale=scale,
        to_latents=_frames_first,
        bitwise=scale == 1,  # both branches in one batch, and guided in float32
        embedding="transformer.patch_embed",
        shift=0.0,  # the words stay where they are, and look at the video from there
        **more,
    )


I2V = "CogVideoXImageToVideoPipeline"
CASES = {
    "cogvideox 2b": _case(cogvideox_2b, moves=False),
    "cogvideox 2b, dpm, another size, no guidance": _case(
        partial(cogvideox_2b, solver=DPM), scale=1.0, size=OTHER_SIZE, moves=False
    ),
    "cogvideox 5b": _case(cogvideox_5b),
    "cogvideox 5b, no guidance": _case(cogvideox_5b, scale=1.0),
    "cogvideox 5b, ddim, another size": _case(partial(cogvideox_5b, solver=DDIM), size=OTHER_SIZE),
    "cogvideox 5b i2v": _case(cogvideox_5b_i2v, I2V, images=1, moves=False),
    "cogvideox 5b i2v, no guidance": _case(cogvideox_5b_i2v, I2V, scale=1.0, images=1, moves=False),
    "cogvideox 1.5": _case(cogvideox_15),
    "cogvideox 1.5, no guidance": _case(cogvideox_15, scale=1.0, size=OTHER_SIZE),
    "cogvideox 1.5 i2v": _case(cogvideox_15_i2v, I2V, images=1),
    "cogvideox 1.5 i2v, no guidance": _case(cogvideox_15_i2v, I2V, scale=1.0, images=1),
}
