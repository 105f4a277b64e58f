"""Mochi 1."""

from functools import partial

from backbones.families import Case
from backbones.families.ltx import t5
from tiny import TEXT_DIM, _save


def autoencoder():
    """AutoencoderKLMochi: 8x8x6, 12 channels, with the latent statistics of the checkpoint."""
    from diffusers import AutoencoderKLMochi

    return AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),  # its group norms have 32 groups
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    ).eval()


def transformer():
    """MochiTransformer3DModel of two blocks, two heads of width 12, text half as wide as video."""
    from diffusers import MochiTransformer3DModel

    return MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        pooled_projection_dim=12,
        in_channels=12,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=16,
        max_sequence_length=256,
    ).eval()


def scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(invert_sigmas=True)


def build(folder, zeros=True):
    config = dict(force_zeros_for_empty_prompt=zeros)
    parts = dict(text_encoder=t5, transformer=transformer, vae=autoencoder)
    return _save(folder, "MochiPipeline", scheduler, config=config, **parts)


SIZE = dict(height=32, width=64, num_frames=13, num_inference_steps=3)


def _case(scale, **more):
    return Case(
        pipeline="MochiPipeline",
        call=SIZE,
        request=SIZE,
        guidance=dict(guidance_scale=scale),
        scale=scale,
        bitwise=scale == 1,  # the pipeline puts both branches into one batch
        embedding="transformer.transformer_blocks.0.norm1",  # before it, tokens of one frame each
        shift=0,  # words stand still in the middle of the first frame
        **more,
    )


CASES = {
    "mochi": _case(4.5, build=build),
    "mochi, no guidance": _case(1.0, build=partial(build, zeros=False)),
}
