"""Models in the layout of real checkpoints with random weights, made on the GPU: nothing is downloaded.

Speed and memory are those of the checkpoints; what comes out is noise, the same from both sides of a comparison.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import tiny
from kinema.backbones.folder import Folder
from kinema.backbones.wan import WanBackbone

UMT5_XXL = dict(
    vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
    feed_forward_proj="gated-gelu", tie_word_embeddings=False,
)  # fmt: skip
WAN = dict(
    patch_size=(1, 2, 2), attention_head_dim=128, text_dim=4096, freq_dim=256, num_layers=30, cross_attn_norm=True,
    qk_norm="rms_norm_across_heads", eps=1e-6, rope_max_seq_len=1024,
)  # fmt: skip
VAE_22 = dict(
    base_dim=160, decoder_base_dim=256, z_dim=48, in_channels=12, out_channels=12, patch_size=2, is_residual=True,
    scale_factor_spatial=16, latents_mean=[0.0] * 48, latents_std=[1.0] * 48,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checkpoint's sizes: what its config files say where it differs from the defaults of diffusers' classes."""

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any] = field(default_factory=dict)
    text_encoder: Mapping[str, Any] = field(default_factory=lambda: UMT5_XXL)
    time_per_frame: bool = False
    flow_shift: float = 3.0
    guidance_scale: float = 5.0


LAYOUTS = {
    "wan 2.1 1.3b": Layout(
        transformer={**WAN, "num_attention_heads": 12, "ffn_dim": 8960, "in_channels": 16, "out_channels": 16}
    ),
    "wan 2.2 5b": Layout(
        transformer={**WAN, "num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
        vae=VAE_22,
        time_per_frame=True,
        flow_shift=5.0,
    ),
}
SIZES = {"480p": dict(height=480, width=832), "720p": dict(height=704, width=1280)}  # both models make these, pixels


@contextmanager
def types_of(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """While open, modules are made on `device`, their weights in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def build(layout: Layout, device: torch.device, dtype: torch.dtype) -> tuple[Any, WanBackbone]:
    """diffusers' pipeline and kinema's backbone over the same networks."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    def made(kind: Any, dtype: torch.dtype, make: Callable[[], Any]) -> Any:
        with types_of(dtype, device):
            network = make().eval().requires_grad_(False)
        for name, weight in network.named_parameters():  # as diffusers reads them
            if set(name.split(".")) & set(getattr(kind, "_keep_in_fp32_modules", None) or ()):
                weight.data = weight.data.float()
        return network

    torch.manual_seed(0)
    parts = dict(
        tokenizer=tiny.tokenizer(),
        text_encoder=made(UMT5EncoderModel, dtype, lambda: UMT5EncoderModel(UMT5Config(**layout.text_encoder))),
        transformer=made(WanTransformer3DModel, dtype, lambda: WanTransformer3DModel(**layout.transformer)),
        vae=made(AutoencoderKLWan, torch.float32, lambda: AutoencoderKLWan(**layout.vae)),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=layout.flow_shift
        ),
    )
    index = {"_class_name": "WanPipeline", "expand_timesteps": layout.time_per_frame}
    backbone = WanBackbone(
        folder=Folder(Path(), "layout", index, {}),
        device=device,
        dtype=dtype,
        transformer_2=None,
        image_encoder=None,
        image_processor=None,
        **parts,
    )
    return WanPipeline(**parts, expand_timesteps=layout.time_per_frame), backbone
