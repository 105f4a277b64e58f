"""Tiny random Wan models in diffusers folder layout: the same classes and switches as the real checkpoints, kilobytes.

Every builder writes a folder and returns its path; the same seed gives the same weights on any machine. The sizes obey
the real ratios (8x8x4 autoencoder of Wan 2.1 and 2.2 A14B, 16x16x4 with patches of 2 for TI2V-5B), so that what is
tested on them holds for the checkpoints of the same kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "the", "red", "green", "blue", "ball", "cube", "ring", "rolls", "bounces", "jumps", "left", "right", "on")
TEXT_DIM = 16  # width of the text embeddings
MAX_TOKENS = 512  # the length real Wan checkpoints pad the prompt to


def tokenizer(max_tokens: int = MAX_TOKENS) -> Any:
    """A word tokenizer with T5's special tokens (<pad> 0, </s> 1, <unk> 2), closing every prompt with </s>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_tokens,
        padding_side="right",
    )


def text_encoder() -> Any:
    """A UMT5 encoder of one layer, width 16."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=3 + len(WORDS),
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
    )
    return UMT5EncoderModel(config).eval()


def image_encoder() -> Any:
    """A CLIP vision model of two layers; 32x32 pixels in patches of 16, thus 1 + 4 tokens of width 8."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    return CLIPVisionModel(config).eval()


def image_processor() -> Any:
    """The picture preparation that belongs to `image_encoder`."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def depth_anything(folder: Path) -> Path:
    """Depth Anything with pictures of 42 x 56 pixels."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessorPil,
    )

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[4, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=4, head_in_index=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    network = DepthAnythingForDepthEstimation(config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    network.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 42, "width": 56}, ensure_multiple_of=14).save_pretrained(folder)
    return folder


def autoencoder(ti2v: bool = False) -> Any:
    """AutoencoderKLWan: 8x8x4 with 16 channels, or as in TI2V-5B 16x16x4 with 48 channels and pixel patches of 2."""
    from diffusers import AutoencoderKLWan

    shared: dict[str, Any] = dict(dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    if not ti2v:
        return AutoencoderKLWan(base_dim=3, z_dim=16, **shared).eval()
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=48,
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.01 * i - 0.2 for i in range(48)],  # not zero and one, so that a forgotten step shows
        latents_std=[0.5 + 0.02 * i for i in range(48)],
        **shared,
    ).eval()


def transformer(in_channels: int, out_channels: int, **more: Any) -> Any:
    """WanTransformer3DModel of two blocks, two heads of width 12."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        **more,
    ).eval()


def unipc(flow_shift: float = 3.0) -> Any:
    """The solver of the Wan checkpoints: UniPC on flow sigmas."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift)


def euler(shift: float = 3.0) -> Any:
    """The first-order solver."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=shift)


def wan21_t2v(folder: Path, scheduler: str = "unipc") -> Path:
    """Wan 2.1 text to video: one transformer, no image."""
    return _save(folder, "WanPipeline", scheduler, transformer=lambda: transformer(16, 16))


def wan21_i2v(folder: Path, scheduler: str = "unipc", last_image: bool = False) -> Path:
    """Wan 2.1 image to video: 4 mask and 16 picture channels beside the latents, CLIP tokens in cross-attention.

    With last_image the first-and-last-frame kind (FLF2V), which adds a position to the tokens of both pictures.
    """
    tokens = dict(pos_embed_seq_len=2 * 5) if last_image else {}
    return _save(
        folder,
        "WanImageToVideoPipeline",
        scheduler,
        transformer=lambda: transformer(36, 16, image_dim=8, added_kv_proj_dim=24, **tokens),
        image_encoder=image_encoder,
        image_processor=image_processor,
    )


def wan21_vace(folder: Path, scheduler: str = "unipc") -> Path:
    """Wan 2.1 VACE: control latents in a second stream of blocks; here one beside the first of two blocks."""
    from diffusers import WanVACETransformer3DModel

    def network() -> Any:
        sizes = dict(num_attention_heads=2, attention_head_dim=12, text_dim=TEXT_DIM, freq_dim=32, ffn_dim=32)
        return WanVACETransformer3DModel(
            patch_size=(1, 2, 2), in_channels=16, out_channels=16, num_layers=2, rope_max_seq_len=32,
            vace_layers=[0], vace_in_channels=2 * 16 + 64, **sizes,
        ).eval()  # fmt: skip

    return _save(folder, "WanVACEPipeline", scheduler, transformer=network)


def skyreels(folder: Path, scheduler: str = "unipc", forcing: bool = True) -> Path:
    """SkyReels V2: with diffusion forcing (a time for each latent frame, a frame rate), or plain text to video."""
    from diffusers import SkyReelsV2Transformer3DModel

    def network() -> Any:
        sizes = dict(num_attention_heads=2, attention_head_dim=12, text_dim=TEXT_DIM, freq_dim=32, ffn_dim=32)
        return SkyReelsV2Transformer3DModel(
            patch_size=(1, 2, 2), in_channels=16, out_channels=16, num_layers=2, rope_max_seq_len=32,
            inject_sample_info=forcing, **sizes,
        ).eval()  # fmt: skip

    kind = "SkyReelsV2DiffusionForcingPipeline" if forcing else "SkyReelsV2Pipeline"
    return _save(folder, kind, scheduler, transformer=network)


def wan22_t2v(folder: Path, scheduler: str = "unipc") -> Path:
    """Wan 2.2 A14B text to video: two experts, the first above boundary_ratio, the second below."""
    return _save(
        folder,
        "WanPipeline",
        scheduler,
        config=dict(boundary_ratio=0.875),
        transformer=lambda: transformer(16, 16),
        transformer_2=lambda: transformer(16, 16),
    )


def wan22_i2v(folder: Path, scheduler: str = "unipc") -> Path:
    """Wan 2.2 A14B image to video: two experts, picture channels, no image encoder."""
    return _save(
        folder,
        "WanImageToVideoPipeline",
        scheduler,
        config=dict(boundary_ratio=0.9),
        transformer=lambda: transformer(36, 16),
        transformer_2=lambda: transformer(36, 16),
    )


def wan22_ti2v(folder: Path, scheduler: str = "unipc") -> Path:
    """Wan 2.2 TI2V-5B: text or image to video in one model, each token with its own time."""
    return _save(
        folder,
        "WanPipeline",
        scheduler,
        config=dict(expand_timesteps=True),
        card=dict(magcache_ratios=[1.0, 0.99, 0.98]),
        transformer=lambda: transformer(48, 48),
        vae=lambda: autoencoder(ti2v=True),
    )


def kinema_mini(folder: Path, scheduler: str = "unipc") -> Path:
    """As the embedded model: the TI2V kind with kinema's own autoencoder and a tokenizer of 48 tokens."""
    from kinema.models.autoencoder import AutoencoderKLKinema

    sizes = dict(z_dim=8, widths=(8, 8, 8), encoder_depths=(1, 1, 1), decoder_depths=(1, 1, 1))
    return _save(
        folder,
        "WanPipeline",
        scheduler,
        config=dict(expand_timesteps=True),
        tokenizer=lambda: tokenizer(max_tokens=48),
        transformer=lambda: transformer(8, 8),
        vae=lambda: AutoencoderKLKinema(latents_mean=[0.1] * 8, latents_std=[0.7] * 8, **sizes).eval(),
    )


BUILDERS: dict[str, Callable[..., Path]] = {
    "wan21_t2v": wan21_t2v,
    "wan21_i2v": wan21_i2v,
    "wan21_vace": wan21_vace,
    "wan22_t2v": wan22_t2v,
    "wan22_i2v": wan22_i2v,
    "wan22_ti2v": wan22_ti2v,
    "kinema_mini": kinema_mini,
    "skyreels": skyreels,
}


def _save(
    folder: Path,
    pipeline: str,
    scheduler: str | Callable[[], Any],
    config: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    **parts: Callable[[], Any] | None,
) -> Path:
    """Build the parts under one seed without touching the global generator, fill and save them with a model_index.

    A part that is None is left out.
    """
    makers: dict[str, Callable[[], Any] | None] = {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "vae": autoencoder,
        "scheduler": {"unipc": unipc, "euler": euler}[scheduler] if isinstance(scheduler, str) else scheduler,
        **parts,
    }
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **(config or {})}
    for number, (name, make) in enumerate(makers.items()):
        if make is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 + number)
            part = make()
        if isinstance(part, torch.nn.Module):
            _wake(part, torch.Generator().manual_seed(2000 + number))
        part.save_pretrained(folder / name)
        module = type(part).__module__
        library = module if module.startswith("kinema") else module.split(".")[0]
        index[name] = [library, type(part).__name__]
    if pipeline.startswith("Wan"):
        index.setdefault("transformer_2", [None, None])
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    if card is not None:
        (folder / "card.json").write_text(json.dumps(card, indent=2))
    return folder


def _wake(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Make every part of the model matter: biases, norms and position tables that start at 0 or 1 become random."""
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            if weight.ndim == 1 or not weight.any():
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
