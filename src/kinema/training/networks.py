"""Fresh networks of the three kinds that the embedded models are of, each a class of diffusers.

    wan        tokens of the video read the text by cross-attention; rectified flow
    cogvideox  text and video are one sequence in joint attention; v prediction
    unet       a UNet of pictures with motion modules between its layers: spatial and temporal attention apart

Weights come from a seed alone. Each begins as close to the identity as its kind allows: what a block adds is zero, or
gated by zero (adaLN-Zero; "Scalable Diffusion Models with Transformers", Peebles and Xie, 2022, arXiv:2212.09748).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Kind = Literal["wan", "cogvideox", "unet"]
SIZES = (
    "num_layers",
    "num_attention_heads",
    "attention_head_dim",
    "ffn_dim",
    "freq_dim",
    "rope_max_seq_len",
    "time_embed_dim",
    "motion_max_seq_length",
)
HEAD_UNITS = {"wan": 2, "cogvideox": 16}  # what their rotary embeddings in three directions divide a head into


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Kind and size of a fresh network; each kind reads what it has."""

    kind: Kind = "wan"
    num_layers: int = 8  # blocks; layers of a level of a unet
    num_attention_heads: int = 4
    attention_head_dim: int = 64  # wan, cogvideox: the width is heads * head_dim; wan's rotary split wants even parts
    ffn_dim: int = 768  # wan
    freq_dim: int = 128  # wan: sines and cosines that a time is written in
    rope_max_seq_len: int = 64  # wan: longest side of the token grid
    time_embed_dim: int = 64  # cogvideox
    block_out_channels: tuple[int, ...] = (64, 96)  # unet: channels of its levels, multiples of 16
    motion_max_seq_length: int = 64  # unet: latent frames its table of places holds
    gradient_checkpointing: bool = False  # blocks, of a finished model too, are computed twice: less memory, more time

    def __post_init__(self) -> None:
        for name in SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 1 or more")
        if self.kind == "unet":
            self._check_levels()
        elif self.attention_head_dim % HEAD_UNITS[self.kind] or self.attention_head_dim < 6:
            raise ValueError(
                f"attention_head_dim is {self.attention_head_dim}; kind {self.kind!r} takes multiples of "
                f"{HEAD_UNITS[self.kind]}, 6 or more, as its places in three directions share the numbers of a head"
            )

    def _check_levels(self) -> None:
        levels, heads = self.block_out_channels, self.num_attention_heads
        if not levels or any(width < 1 or width % 16 or width % heads for width in levels):
            raise ValueError(
                f"block_out_channels are {list(levels)}; use multiples of 16 and of num_attention_heads ({heads})"
            )


def build_network(
    settings: NetworkSettings, channels: int, text_dim: int, text_tokens: int, cells: tuple[int, int, int], seed: int
) -> nn.Module:
    """A fresh network for latents of `channels` and `cells` (frames, rows, columns), which reads texts (B, P,
    text_dim)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = BUILDERS[settings.kind](settings, channels, text_dim, text_tokens, cells)
    return network


def build_scheduler(kind: Kind, flow_shift: float, snr_shift_scale: float) -> Any:
    """The solver saved with a model of a kind.

    wan: UniPC of order 2 on the flow's own noise levels (Zhao et al., 2023, arXiv:2302.04867). cogvideox and unet: DDIM
    on noise levels that end in noise alone ("Common Diffusion Noise Schedules and Sample Steps are Flawed", Lin et al.,
    2023, arXiv:2305.08891), so that the network says how bright a clip is.
    """
    import diffusers

    kinds: Any = diffusers  # not typed
    if kind == "wan":
        return kinds.UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=flow_shift,
            num_train_timesteps=1000,
            solver_order=2,
            final_sigmas_type="zero",
        )
    told = dict(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    if kind == "unet":
        return kinds.DDIMScheduler(**told)
    return kinds.CogVideoXDDIMScheduler(**told, snr_shift_scale=snr_shift_scale)


PIPELINES: Mapping[Kind, tuple[str, str]] = {  # the pipeline of diffusers, and what it calls the network
    "wan": ("WanPipeline", "transformer"),
    "cogvideox": ("CogVideoXPipeline", "transformer"),
    "unet": ("AnimateDiffPipeline", "unet"),
}


def _wan(s: NetworkSettings, channels: int, text_dim: int, text_tokens: int, cells: tuple[int, int, int]) -> Any:
    from diffusers import WanTransformer3DModel

    kind: Any = WanTransformer3DModel  # diffusers is not typed
    model = kind(
        patch_size=(1, 2, 2),
        num_attention_heads=s.num_attention_heads,
        attention_head_dim=s.attention_head_dim,
        in_channels=channels,
        out_channels=channels,
        text_dim=text_dim,
        freq_dim=s.freq_dim,
        ffn_dim=s.ffn_dim,
        num_layers=s.num_layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=s.rope_max_seq_len,
    )
    _xavier(model)
    embedder = model.condition_embedder
    nn.init.normal_(embedder.time_embedder.linear_1.weight, std=0.02)
    nn.init.normal_(embedder.time_embedder.linear_2.weight, std=0.02)
    _zero(embedder.time_proj, model.proj_out, model.scale_shift_table)
    for block in model.blocks:
        _zero(block.scale_shift_table, block.attn2.to_out[0])  # cross-attention has no gate in Wan
    return model


def _cogvideox(s: NetworkSettings, channels: int, text_dim: int, text_tokens: int, cells: tuple[int, int, int]) -> Any:
    from diffusers import CogVideoXTransformer3DModel

    frames, rows, columns = cells
    kind: Any = CogVideoXTransformer3DModel
    model = kind(
        num_attention_heads=s.num_attention_heads,
        attention_head_dim=s.attention_head_dim,
        in_channels=channels,
        out_channels=channels,
        time_embed_dim=s.time_embed_dim,
        text_embed_dim=text_dim,
        num_layers=s.num_layers,
        sample_width=columns,
        sample_height=rows,
        sample_frames=4 * (frames - 1) + 1,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=text_tokens,
        use_rotary_positional_embeddings=True,
    )
    _xavier(model)
    _zero(model.norm_out.linear, model.proj_out)
    for block in model.transformer_blocks:
        _zero(block.norm1.linear, block.norm2.linear)
    return model


def _unet(s: NetworkSettings, channels: int, text_dim: int, text_tokens: int, cells: tuple[int, int, int]) -> Any:
    from diffusers import UNetMotionModel

    levels = len(s.block_out_channels)
    kind: Any = UNetMotionModel
    model = kind(
        sample_size=cells[1],
        in_channels=channels,
        out_channels=channels,
        down_block_types=("CrossAttnDownBlockMotion",) * levels,
        up_block_types=("CrossAttnUpBlockMotion",) * levels,
        block_out_channels=tuple(s.block_out_channels),
        layers_per_block=s.num_layers,
        norm_num_groups=16,
        cross_attention_dim=text_dim,
        motion_max_seq_length=s.motion_max_seq_length,
        num_attention_heads=s.num_attention_heads,
        motion_num_attention_heads=s.num_attention_heads,
    )
    _zero(model.conv_out)
    for name, module in model.named_modules():
        if "motion_modules" in name and name.endswith("proj_out"):
            _zero(module)  # a clip begins as pictures
    return model


def _xavier(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _zero(*parts: nn.Module | torch.Tensor) -> None:
    for part in parts:
        for weights in part.parameters() if isinstance(part, nn.Module) else (part,):
            nn.init.zeros_(weights)


BUILDERS: Mapping[Kind, Any] = {"wan": _wan, "cogvideox": _cogvideox, "unet": _unet}
