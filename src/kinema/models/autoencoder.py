"""A light causal video autoencoder: 16x16 pixels and 4 frames to one latent cell of 32 channels.

It has the layout of diffusers' `AutoencoderKLWan` in the TI2V-5B model of Wan 2.2 (16x16x4; the one in "Wan: Open and
Advanced Large-Scale Video Generative Models", 2025, arXiv:2503.20314, section 4.1, is 8x8x4) and answers the same
calls, with a network made for two CPU cores. Its heart is linear: each cell of pixels goes to its latent, and back,
by one matrix. What is left over is learned by pixel-(un)shuffle by 4 and 2D convolutions on folded frames; time is
mixed by showing each frame a quarter of the channels of the frame before it, a learned form of the one-way temporal
shift of "TSM: Temporal Shift Module for Efficient Video Understanding", 2019, arXiv:1811.08383.

Causal: a clip has 1 + 4k frames; latent frame 0 stands for frame 0 alone and latent frame g for frames 4g-3 to
4g. A latent frame depends on its own frames and earlier ones; decoded frames depend on their own latent frame and
earlier ones. So a clip that is cut off at any group gives the same latents and frames, and an image is a clip
of one frame.
"""

# diffusers and parts of torch carry no types.
# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

# Inside the network everything is channels-last, (B, T, H, W, C): norms and reshapes are then free of copies
# and oneDNN takes the convolutions' inputs as they are.

LOGVAR = -6.0  # of the latents at the start, and of a linear encoder always: standard deviation 0.05
CELL = 16  # pixels a side of a latent cell
PATCH = 4  # pixels folded into channels before the first and after the last convolution
GROUP = 4  # frames of a latent frame, but for the first


class AutoencoderKLKinema(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name their config file
    """Codes (B, 3, 1 + 4k, H, W) in -1..1 as (B, z_dim, 1 + k, H / 16, W / 16); H and W are multiples of 16.

    Config:
        z_dim: latent channels.
        widths: channels at 1/4, 1/8 and 1/16 of the resolution (all, half and a quarter of the frames).
        encoder_depths, decoder_depths: residual blocks at these three levels; an encoder without depths is linear.
        latents_mean, latents_std: per channel; a diffusion model works on (z - mean) / std.
        scale_factor_spatial, scale_factor_temporal: pixels and frames of a latent cell; fixed by the network.
    Raises: ValueError for a clip or latent whose size it cannot code.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        z_dim: int = 32,
        widths: tuple[int, int, int] = (64, 112, 160),
        encoder_depths: tuple[int, int, int] | None = None,
        decoder_depths: tuple[int, int, int] = (3, 2, 1),
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        scale_factor_spatial: int = 16,
        scale_factor_temporal: int = 4,
    ) -> None:
        super().__init__()
        if (scale_factor_spatial, scale_factor_temporal) != (16, 4):
            raise ValueError(
                f"the scale factors are {scale_factor_spatial} and {scale_factor_temporal}; this network has 16 and 4"
            )
        for name, values in (("latents_mean", latents_mean), ("latents_std", latents_std)):
            if values is not None and len(values) != z_dim:
                raise ValueError(f"{name} has {len(values)} numbers; use one for each of the {z_dim} channels")
        if latents_mean is None:
            self.register_to_config(latents_mean=[0.0] * z_dim)
        if latents_std is None:
            self.register_to_config(latents_std=[1.0] * z_dim)
        self.encoder = Encoder(z_dim, tuple(widths), tuple(encoder_depths) if encoder_depths else None)
        self.decoder = Decoder(z_dim, tuple(widths), tuple(decoder_depths))

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The posterior of the latents, as `.latent_dist`, of frames x (B, 3, 1 + 4k, H, W) in -1..1."""
        posterior = self._posterior(x)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Frames (B, 3, 1 + 4k, H, W), as `.sample`, of latents z (B, z_dim, 1 + k, H / 16, W / 16).

        Values are -1..1 up to small errors of the network; they are not clipped while it trains.
        """
        x = self._frames(z)
        return DecoderOutput(sample=x) if return_dict else (x,)

    def forward(
        self, sample: Tensor, sample_posterior: bool = False, generator: torch.Generator | None = None
    ) -> DecoderOutput:
        """Encode and decode; the mean of the posterior is decoded unless `sample_posterior`."""
        posterior = self._posterior(sample)
        z = posterior.sample(generator) if sample_posterior else posterior.mode()
        return DecoderOutput(sample=self._frames(z))

    def _posterior(self, x: Tensor) -> DiagonalGaussianDistribution:
        if x.ndim != 5 or x.shape[1] != 3:
            raise ValueError(f"frames have shape {tuple(x.shape)}; use (B, 3, T, H, W)")
        if (x.shape[2] - 1) % GROUP:
            raise ValueError(f"a clip has {x.shape[2]} frames; use 1 + 4k, for example 1, 5, 9 or 25")
        if x.shape[3] % 16 or x.shape[4] % 16:
            raise ValueError(f"frames are {x.shape[3]}x{x.shape[4]} pixels; use multiples of 16")
        return DiagonalGaussianDistribution(self.encoder(x))

    def _frames(self, z: Tensor) -> Tensor:
        if z.ndim != 5 or z.shape[1] != self.config["z_dim"]:
            raise ValueError(f"latents have shape {tuple(z.shape)}; use (B, {self.config['z_dim']}, T, H, W)")
        x = self.decoder(z)
        return x if self.training else x.clamp(-1.0, 1.0)


class Encoder(nn.Module):
    """Frames (B, 3, 1 + 4k, H, W) to mean and log variance (B, 2 z_dim, 1 + k, H / 16, W / 16).

    A linear map of each cell, plus what a network of `depths` residual blocks adds to it; without depths it is the
    linear map alone, with a fixed small variance.
    """

    def __init__(self, z_dim: int, widths: tuple[int, ...], depths: tuple[int, ...] | None) -> None:
        super().__init__()
        self.shortcut = CellsIn(z_dim)
        self.linear = depths is None
        if depths is None:
            return
        c0, c1, c2 = widths
        self.conv_in = conv3x3(3 * PATCH**2, c0)
        self.level0 = blocks(c0, depths[0])
        self.down0 = Down(c0, c1)
        self.level1 = blocks(c1, depths[1])
        self.down1 = Down(c1, c2)
        self.level2 = blocks(c2, depths[2])
        self.conv_out = nn.Linear(c2, 2 * z_dim)
        silence(self.conv_out)  # begins as the linear map
        nn.init.constant_(self.conv_out.bias[z_dim:], LOGVAR)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.shortcut(x)
        logvar = torch.full_like(mean, LOGVAR)
        if not self.linear:
            h = space_to_depth(x.permute(0, 2, 3, 4, 1), PATCH)
            h = self.level0(convolve(self.conv_in, h))
            h = self.level1(self.down0(h))
            more, logvar = self.conv_out(self.level2(self.down1(h))).chunk(2, -1)
            mean = mean + more
        return torch.cat((mean, logvar), -1).permute(0, 4, 1, 2, 3)


class Decoder(nn.Module):
    """Latents (B, z_dim, 1 + k, H / 16, W / 16) to frames (B, 3, 1 + 4k, H, W)."""

    def __init__(self, z_dim: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        c0, c1, c2 = widths
        self.conv_in = conv3x3(z_dim, c2)
        self.level2 = blocks(c2, depths[2])
        self.up1 = Up(c2, c1)
        self.level1 = blocks(c1, depths[1])
        self.up0 = Up(c1, c0)
        self.level0 = blocks(c0, depths[0])
        self.conv_out = conv3x3(c0, 3 * PATCH**2)
        self.shortcut = CellsOut(z_dim)
        silence(self.conv_out)  # begins as the linear shortcut

    def forward(self, z: Tensor) -> Tensor:
        z = z.permute(0, 2, 3, 4, 1)
        h = self.level2(convolve(self.conv_in, z))
        h = self.level1(self.up1(h))
        h = self.level0(self.up0(h))
        h = depth_to_space(convolve(self.conv_out, h), PATCH) + self.shortcut(z)
        return h.permute(0, 4, 1, 2, 3).contiguous()


class CellsIn(nn.Module):
    """The linear part of the encoder: frames (B, 3, 1 + 4k, H, W) to (B, 1 + k, H / 16, W / 16, z_dim).

    Every cell of pixels goes to its own latent by one matrix, so that the rest of the network only learns what is
    left over, as the space-to-channel shortcuts of "Deep Compression Autoencoder for Efficient High-Resolution
    Diffusion Models", 2024, arXiv:2410.10733, do without parameters.
    """

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(3 * CELL**2, z_dim)
        self.groups = nn.Linear(3 * CELL**2 * GROUP, z_dim)

    def forward(self, x: Tensor) -> Tensor:
        first, groups = cells(x)
        return torch.cat((self.first(first), self.groups(groups)), 1)


class CellsOut(nn.Module):
    """The linear part of the decoder: latents (B, 1 + k, H, W, z_dim) to frames (B, 1 + 4k, 16 H, 16 W, 3)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(z_dim, 3 * CELL**2)
        self.groups = nn.Linear(z_dim, 3 * CELL**2 * GROUP)

    def forward(self, z: Tensor) -> Tensor:
        first, groups = self.first(z[:, :1]), self.groups(z[:, 1:])
        groups = groups.unflatten(-1, (GROUP, -1)).movedim(-2, 2).flatten(1, 2)
        return depth_to_space(torch.cat((first, groups), 1), CELL)


def cells(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frames (B, 3, 1 + 4k, H, W) as cells: of frame 0 (B, 1, h, w, 768), of the groups (B, k, h, w, 3072)."""
    x = space_to_depth(x.permute(0, 2, 3, 4, 1), CELL)
    return x[:, :1], x[:, 1:].unflatten(1, (-1, GROUP)).movedim(2, -2).flatten(-2)


class Block(nn.Module):
    """Residual block: norm, a look at the frame before, two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seen = channels // 4  # channels of the frame before that a frame sees
        self.norm1 = nn.LayerNorm(channels)
        self.conv1 = conv3x3(channels + self.seen, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.conv2 = conv3x3(channels, channels)
        silence(self.conv2)  # begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        before = F.pad(h[:, :-1, ..., : self.seen], (0, 0, 0, 0, 0, 0, 1, 0))  # frame 0 sees zeros
        h = convolve(self.conv1, torch.cat((h, before), -1))
        return x + convolve(self.conv2, F.silu(self.norm2(h)))


class Down(nn.Module):
    """Halves rows, columns and frames: (B, 1 + 2n, 2H, 2W, C) to (B, 1 + n, H, W, D), frame 0 by itself."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(4 * channels, out)
        self.pairs = nn.Linear(8 * channels, out)

    def forward(self, x: Tensor) -> Tensor:
        x = space_to_depth(x, 2)
        first = self.first(x[:, :1])
        if x.shape[1] == 1:
            return first
        return torch.cat((first, self.pairs(torch.cat((x[:, 1::2], x[:, 2::2]), -1))), 1)


class Up(nn.Module):
    """Doubles rows, columns and frames: (B, 1 + n, H, W, C) to (B, 1 + 2n, 2H, 2W, D), frame 0 by itself."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, 4 * out)
        self.pairs = nn.Linear(channels, 8 * out)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x[:, :1])
        if x.shape[1] == 1:
            return depth_to_space(first, 2)
        pairs = torch.stack(self.pairs(x[:, 1:]).chunk(2, -1), 2).flatten(1, 2)
        return depth_to_space(torch.cat((first, pairs), 1), 2)


def blocks(channels: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels) for _ in range(depth)))


def conv3x3(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1)


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Zero weights: the layer gives nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 2D convolution on every frame of x (B, T, H, W, C)."""
    return conv(x.flatten(0, 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def space_to_depth(x: Tensor, n: int) -> Tensor:
    """(B, T, n*H, n*W, C) to (B, T, H, W, n*n*C)."""
    x = x.unflatten(3, (-1, n)).unflatten(2, (-1, n))  # (B, T, H, n, W, n, C)
    return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4)


def depth_to_space(x: Tensor, n: int) -> Tensor:
    """(B, T, H, W, n*n*C) to (B, T, n*H, n*W, C); undoes `space_to_depth`."""
    x = x.unflatten(4, (n, n, -1))  # (B, T, H, W, n, n, C)
    return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5).flatten(2, 3)
