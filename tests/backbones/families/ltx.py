"""LTX-Video 0.9 to 0.9.8: three autoencoders, two schedules, text and image."""

from functools import partial

import torch

from backbones.families import Case
from tiny import TEXT_DIM, WORDS, _save

CHANNELS = 16  # of the latents, 128 in the checkpoints


def t5(width=TEXT_DIM):
    """A T5 1.1 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=3 + len(WORDS), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        relative_attention_num_buckets=8, relative_attention_max_distance=16, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def autoencoder(version):
    """AutoencoderKLLTXVideo of 0.9.0, of 0.9.1 (its decoder knows time and adds noise) or 0.9.5 (adds none)."""
    from diffusers import AutoencoderKLLTXVideo

    shared = dict(latent_channels=CHANNELS, scaling_factor=1.0, encoder_causal=True, decoder_causal=False)
    early = dict(block_out_channels=(8, 8, 16, 16), layers_per_block=(1, 1, 1, 1, 1))
    knows_time = dict(
        timestep_conditioning=True,
        decoder_block_out_channels=(8, 16, 32),
        decoder_layers_per_block=(1, 1, 1, 1),
        decoder_spatio_temporal_scaling=(True, True, True),
        upsample_residual=(True, True, True),
        upsample_factor=(2, 2, 2),
    )
    kinds = {
        "0.9.0": dict(decoder_block_out_channels=(8, 8, 16, 16), decoder_layers_per_block=(1, 1, 1, 1, 1), **early),
        "0.9.1": dict(decoder_inject_noise=(True, True, True, False), **early, **knows_time),
        "0.9.5": dict(
            block_out_channels=(8, 8, 16, 16, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            down_block_types=("LTXVideo095DownBlock3D",) * 4,
            downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            spatio_temporal_scaling=(True, True, True, True),
            decoder_inject_noise=(False, False, False, False),
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
            **knows_time,
        ),
    }
    vae = AutoencoderKLLTXVideo(**shared, **kinds[version]).eval()
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.3, CHANNELS))  # not zero and one, so that a forgotten step shows
    vae.latents_std.copy_(torch.linspace(0.5, 0.9, CHANNELS))
    return vae


def transformer():
    """LTXVideoTransformer3DModel of two blocks, two heads of width 16; as in the checkpoints 2 channels do not turn."""
    from diffusers import LTXVideoTransformer3DModel

    return LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=TEXT_DIM,
    ).eval()


def scheduler(dynamic):
    """Of 0.9.0 and 0.9.1: shifted with the number of tokens, down to 0.1; of the later ones: plain."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not dynamic:
        return FlowMatchEulerDiscreteScheduler()
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    )  # fmt: skip


def build(folder, version, pipeline="LTXPipeline"):
    return _save(
        folder,
        pipeline,
        partial(scheduler, dynamic=version != "0.9.5"),
        text_encoder=t5,
        transformer=transformer,
        vae=partial(autoencoder, version),
    )


CONDITION = "LTXConditionPipeline"
SIZE = dict(height=64, width=96, num_frames=17, num_inference_steps=3)
DECODER = dict(decode_timestep=0.05, decode_noise_scale=0.025)
I2V = "LTXImageToVideoPipeline"


def unpacked(theirs, ours):
    """(B, L, C) -> (B, C, T, H, W)."""
    return theirs.transpose(1, 2).unflatten(2, ours.shape[2:])


def _case(version, pipeline="LTXPipeline", fps=25, scale=3.0, **more):
    saved, call = "LTXPipeline", dict(SIZE, frame_rate=fps, **DECODER)
    if pipeline == CONDITION:
        saved, call = pipeline, dict(call, image_cond_noise_scale=0.0)
        more["shift"] = 0  # the first latent frame is shorter than the others
    return Case(
        build=partial(build, version=version, pipeline=saved),
        pipeline=pipeline,
        call=call,
        request=dict(SIZE, fps=fps),
        guidance=dict(guidance_scale=scale),
        scale=scale,
        to_latents=unpacked,
        bitwise=scale == 1,  # the pipeline puts both branches into one batch
        embedding="transformer.proj_in",
        **more,
    )


CASES = {
    "ltx 0.9.0 t2v": _case("0.9.0"),
    "ltx 0.9.0 t2v, no guidance": _case("0.9.0", scale=1.0, fps=20),
    "ltx 0.9.0 i2v": _case("0.9.0", I2V, images=1, fps=30),
    "ltx 0.9.0 i2v, no guidance": _case("0.9.0", I2V, images=1, scale=1.0),
    "ltx 0.9.5 t2v": _case("0.9.5"),
    "ltx 0.9.5 i2v, no guidance": _case("0.9.5", I2V, images=1, scale=1.0),
    "ltx 0.9.7 t2v": _case("0.9.5", CONDITION),
    "ltx 0.9.7 i2v": _case("0.9.5", CONDITION, images=1, fps=20),
    "ltx 0.9.7 i2v, no guidance": _case("0.9.5", CONDITION, images=1, scale=1.0),
}
