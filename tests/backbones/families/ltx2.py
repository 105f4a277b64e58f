"""LTX-2 and LTX-2.3: video and sound in one model, text and image, two kinds of text connectors and vocoders."""

import json
from functools import partial

import torch

from backbones.families import Case
from kinema.guidance.modality_cfg import ModalityCFG
from tiny import TEXT_DIM, WORDS, _save

CHANNELS = 16  # of the latents, 128 in the checkpoints
SOUND_CHANNELS, MEL_BINS = 2, 16  # 8 and 64 in the checkpoints
PACKED = SOUND_CHANNELS * MEL_BINS // 4  # of a sound token, 128 in the checkpoints
HEADS, WIDTH, SOUND_WIDTH = 2, 16, 8  # heads of the network, and their widths; 32, 128 and 64 in the checkpoints
MAX_TOKENS = 32  # 1024 in the checkpoints


def tokenizer():
    """A word tokenizer with Gemma's special tokens (<pad> 0, <eos> 1, <bos> 2, <unk> 3), opening every prompt."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    special = dict(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=MAX_TOKENS, padding_side="left", **special)


def gemma():
    """Gemma 3 of two layers, which looks at words only; its eyes are there as in the checkpoints, and as small."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = dict(
        vocab_size=4 + len(WORDS), hidden_size=TEXT_DIM, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=16,
    )  # fmt: skip
    vision = dict(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    ).eval()


def connectors(version):
    """2.0: one projection, the width of the text. 2.3: a projection for each of video and sound, gated attention."""
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    shared = dict(
        caption_channels=TEXT_DIM, text_proj_in_factor=3, rope_type="split",
        video_connector_num_attention_heads=HEADS, video_connector_num_layers=1,
        video_connector_num_learnable_registers=MAX_TOKENS // 2,
        audio_connector_num_attention_heads=HEADS, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=MAX_TOKENS // 2,
    )  # fmt: skip
    kinds = {
        "2.0": dict(video_connector_attention_head_dim=TEXT_DIM // HEADS, audio_connector_attention_head_dim=8),
        "2.3": dict(
            video_connector_attention_head_dim=WIDTH, video_gated_attn=True, video_hidden_dim=HEADS * WIDTH,
            audio_connector_attention_head_dim=SOUND_WIDTH, audio_gated_attn=True, audio_hidden_dim=HEADS * SOUND_WIDTH,
            per_modality_projections=True, proj_bias=True,
        ),
    }  # fmt: skip
    return LTX2TextConnectors(**shared, **kinds[version]).eval()


def transformer(version):
    """LTX2VideoTransformer3DModel of two blocks; 2.3 modulates the text with time and gates its attentions."""
    from diffusers import LTX2VideoTransformer3DModel

    newer = version == "2.3"
    return LTX2VideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH,
        cross_attention_dim=HEADS * WIDTH,
        gated_attn=newer,
        cross_attn_mod=newer,
        audio_in_channels=PACKED,
        audio_out_channels=PACKED,
        audio_num_attention_heads=HEADS,
        audio_attention_head_dim=SOUND_WIDTH,
        audio_cross_attention_dim=HEADS * SOUND_WIDTH,
        audio_gated_attn=newer,
        audio_cross_attn_mod=newer,
        num_layers=2,
        caption_channels=TEXT_DIM,
        rope_type="split",
        use_prompt_embeddings=not newer,
        perturbed_attn=newer,
    ).eval()


def autoencoder(version):
    """AutoencoderKLLTX2Video, 32x32x8."""
    from diffusers import AutoencoderKLLTX2Video

    kinds = {
        "2.0": dict(
            decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1, 1, 1, 1),
            decoder_spatial_padding_mode="reflect",
        ),
        "2.3": dict(
            decoder_block_out_channels=(8, 16, 16, 32), decoder_layers_per_block=(1, 1, 1, 1, 1),
            decoder_spatio_temporal_scaling=(True,) * 4, decoder_inject_noise=(False,) * 5,
            upsample_type=("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
            upsample_residual=(False,) * 4, upsample_factor=(2, 2, 1, 2), decoder_spatial_padding_mode="zeros",
        ),
    }  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=CHANNELS, block_out_channels=(8, 8, 16, 32), layers_per_block=(1, 1, 1, 1, 1),
        decoder_causal=False, spatial_compression_ratio=32, temporal_compression_ratio=8, **kinds[version],
    ).eval()  # fmt: skip
    return with_statistics(vae)


def sound_autoencoder():
    """AutoencoderKLLTX2Audio: spectra of two channels, 4x smaller in time and in pitch."""
    from diffusers import AutoencoderKLLTX2Audio

    vae = AutoencoderKLLTX2Audio(base_channels=PACKED, num_res_blocks=1, latent_channels=2, mel_bins=MEL_BINS).eval()
    return with_statistics(vae)


def with_statistics(vae):
    """Not zero and one, so that a forgotten step shows."""
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.3, len(vae.latents_mean)))
    vae.latents_std.copy_(torch.linspace(0.5, 0.9, len(vae.latents_std)))
    return vae


def vocoder(version):
    """2.0: LTX2Vocoder, 24 kHz. 2.3: 16 kHz, and a second one that adds what is missing up to 48 kHz."""
    from diffusers.pipelines.ltx2 import LTX2Vocoder, LTX2VocoderWithBWE

    one = dict(resnet_kernel_sizes=[3], resnet_dilations=[[1, 3]])
    if version == "2.0":
        return LTX2Vocoder(in_channels=2 * MEL_BINS, hidden_channels=32, **one).eval()
    both = {**one, **{f"bwe_{name}": value for name, value in one.items()}}
    made = LTX2VocoderWithBWE(
        in_channels=2 * MEL_BINS, hidden_channels=64, bwe_in_channels=2 * MEL_BINS, bwe_hidden_channels=32,
        filter_length=160, window_length=160, num_mel_channels=MEL_BINS, **both,
    ).eval()  # fmt: skip
    made.mel_stft.mel_basis.uniform_(0, 0.1)
    made.mel_stft.stft_fn.forward_basis.normal_(std=0.1)
    return made


def scheduler():
    """Shifted with the number of tokens, down to 0.1."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    )  # fmt: skip


def build(folder, version):
    _save(
        folder,
        "LTX2Pipeline",
        scheduler,
        tokenizer=tokenizer,
        text_encoder=gemma,
        connectors=partial(connectors, version),
        transformer=partial(transformer, version),
        vae=partial(autoencoder, version),
        audio_vae=sound_autoencoder,
        vocoder=partial(vocoder, version),
    )
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("connectors", "vocoder"):  # classes of the pipeline's own folder are named so
        index[part][0] = "ltx2"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


SIZE = dict(height=64, width=96, num_frames=17, num_inference_steps=3)
I2V = "LTX2ImageToVideoPipeline"
PLAIN = dict(stg_scale=0.0, modality_scale=1.0, guidance_rescale=0.0)
PLAIN |= {f"audio_{name}": weight for name, weight in PLAIN.items()} | dict(audio_guidance_scale=None)
ALL = dict(spatio_temporal_guidance_blocks=[1])  # everything else as the pipeline has it


def unpacked(theirs, ours):
    """(B, L, C) -> (B, C, T, H, W)."""
    return theirs.transpose(1, 2).unflatten(2, ours.shape[2:])


def _case(version, pipeline="LTX2Pipeline", fps=25, scale=3.0, guidance=PLAIN, **more):
    legacy = {} if version == "2.3" else dict(use_cross_timestep=False)
    return Case(
        build=partial(build, version=version),
        pipeline=pipeline,
        call=dict(SIZE, frame_rate=fps, max_sequence_length=MAX_TOKENS, **legacy),
        request=dict(SIZE, fps=fps),
        guidance=dict(guidance, guidance_scale=scale),
        scale=scale,
        to_latents=unpacked,
        bitwise=False,  # the pipeline goes to the clean estimate and back, guided or not
        embedding="transformer.proj_in",
        shift=0,  # the first latent frame is shorter than the others
        **more,
    )


CASES = {
    "ltx 2.0 t2v": _case("2.0", fps=20),
    "ltx 2.0 i2v": _case("2.0", I2V, images=1, fps=30),
    "ltx 2.3 t2v": _case("2.3", guidance=ALL, guides=(ModalityCFG(),)),
    "ltx 2.3 i2v": _case("2.3", I2V, images=1, guidance=ALL, guides=(ModalityCFG(),)),
    "ltx 2.3 i2v, no guidance": _case("2.3", I2V, images=1, scale=1.0),
}
