"""Where the camera of a clip of the world stands in each frame, read by a small network.

What can be followed over the ground (`kinema.metrics.camera`) is gone from clips that went through a video
autoencoder of strong compression, and so from the clips that kinema's own models make. This network looks at a clip as
that autoencoder does: through its linear encoder, which gives nearly the same for a rendered clip and for what is
decoded of it. It is trained on rendered clips, some of them after the autoencoder and some painted anew by `mini`
(`kinema train camera_reader`), and measured by `python -m kinema.claims.camera_reader`. It is a network of our own; no
paper is followed.

A camera is told by seven numbers, all of them 0 in the first frame: the vector of its rotation in radians, the place
of its eye in heights of the first camera above the ground, both in the frame of the first camera (x right, y down,
z forward), and the log of its focal length over the first one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.layers.saved import read_network, write_network
from kinema.metrics.viewing import Viewing

SIZE = 128  # pixels a side that are looked at
CELL, GROUP = 16, 4  # pixels a side and frames of a cell of the encoder; the first frame has cells of its own
GROUPS = 7  # of cells in time
FRAMES = 1 + GROUP * (GROUPS - 1)  # that are looked at, evenly from the first to the last
NUMBERS = 7  # that tell a camera
SMALL = 4  # pixels a side of a cell in the frames whose motion is looked at
DOUBT = 2e-4  # squared gradient of small frames in -1..1, below which a shift is not believed
MOTIONS = 2 * GROUP * 3  # numbers that tell the motion in a cell
STRIDE = 0.05  # of what the network gives, to the change of a camera's number from frame to frame
MIRROR = (1, -1, -1, -1, 1, 1, 1)  # what a mirror does to them


@dataclass(frozen=True, eq=False)
class SeenPath:
    """Cameras of T frames, in the frame of the first."""

    world_to_camera: np.ndarray  # (T, 4, 4) float64; lengths in heights of the first camera above the ground
    zoom: np.ndarray  # (T,) focal length over that of the first frame


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """Sizes of the network, and the encoder that it looks through. Saved as `config.json` beside the weights."""

    encoder: str  # see `Encoder.fingerprint`
    channels: int = 32  # of the encoder
    stem: int = 48
    width: int = 64
    layers: int = 3
    heads: int = 4


class Encoder:
    """The linear encoder of kinema's autoencoder: each cell of pixels goes to its latent by one matrix."""

    def __init__(self, folder: Path) -> None:
        """folder: of the autoencoder. Raises: KinemaError where there is none with a linear encoder."""
        from safetensors import SafetensorError, safe_open

        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            with safe_open(folder / "diffusion_pytorch_model.safetensors", framework="pt") as file:
                first, groups = (file.get_tensor(f"encoder.shortcut.{n}.weight").float() for n in ("first", "groups"))
                self.bias = [file.get_tensor(f"encoder.shortcut.{n}.bias").float() for n in ("first", "groups")]
        except (OSError, ValueError, SafetensorError) as error:
            raise KinemaError(
                f"{folder} has no autoencoder of kinema; use one that `kinema train mini` made"
            ) from error
        if config.get("encoder_depths") is not None:
            raise KinemaError(f"the encoder in {folder} is not linear; use an autoencoder without encoder_depths")
        self.matrix = [first, groups]  # (C, 3 * CELL^2) and (C, 3 * GROUP * CELL^2), colours last
        self.mean, self.std = (torch.tensor(config[f"latents_{n}"])[:, None, None, None] for n in ("mean", "std"))

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell an encoder from every other one, from its weights in float16."""
        told = hashlib.sha256()
        for value in (*self.matrix, *self.bias, self.mean, self.std):
            told.update(value.half().contiguous().numpy().tobytes())
        return told.hexdigest()[:12]

    def __call__(self, frames: Tensor) -> Tensor:
        """Clips (B, 1 + 4k, 3, H, W) in 0..1 -> (B, C, 1 + k, H / 16, W / 16), as diffusion models have them."""
        x = 2 * frames - 1
        parts = (x[:, :1], torch.unflatten(x[:, 1:], 1, (-1, GROUP)).flatten(2, 3))  # frames of a group as channels
        found = []
        for part, matrix, bias in zip(parts, self.matrix, self.bias, strict=True):
            kernel = torch.unflatten(matrix, 1, (-1, CELL, CELL, 3)).permute(0, 1, 4, 2, 3).flatten(1, 2)
            cells = F.conv2d(part.flatten(0, 1), kernel, bias, stride=CELL)
            found.append(torch.unflatten(cells, 0, (len(x), -1)))
        return (torch.cat(found, 1).transpose(1, 2) - self.mean) / self.std


@lru_cache(maxsize=1)
def own_encoder() -> Encoder:
    """The encoder of the autoencoder that ships with kinema."""
    return Encoder(Path(str(resources.files("kinema") / "weights" / "autoencoder")))


class Motion:
    """How the pixels behind latents move from frame to frame, as far as that can be said in one place.

    Small frames are taken back from the latents by the pseudo-inverse of the encoder; "An Iterative Image Registration
    Technique with an Application to Stereo Vision" (Lucas and Kanade, 1981) gives each place the shift (u, v) of least
    squares, (sum g g^T + DOUBT) (u, v) = -sum g d with gradient g and change d, over windows of two sizes.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.back = []  # latents less their bias -> pixels of a small frame
        for matrix in encoder.matrix:
            pixels = torch.unflatten(torch.linalg.pinv(matrix), 0, (-1, SMALL, CELL // SMALL, SMALL, CELL // SMALL, 3))
            self.back.append(pixels.mean((2, 4, 5)).flatten(0, 2))  # (frames * SMALL^2, C)

    def small(self, z: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) -> grey frames (B, 1 + 4 (T - 1), 1, SMALL h, SMALL w) in -1..1."""
        y = (z * self.encoder.std + self.encoder.mean).permute(0, 2, 3, 4, 1)
        frames = []
        for part, bias, back in zip((y[:, :1], y[:, 1:]), self.encoder.bias, self.back, strict=True):
            pixels = torch.unflatten((part - bias) @ back.T, -1, (-1, SMALL, SMALL))  # (B, T, h, w, frames, y, x)
            frames.append(pixels.permute(0, 1, 4, 2, 5, 3, 6).flatten(1, 2).flatten(-2).flatten(-3, -2))
        return torch.cat(frames, 1)[:, :, None]

    def __call__(self, z: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) -> (B, T, MOTIONS, h, w); 0 for the first frame, which comes from nowhere.

        Of each group, for each of its frames and both windows: the shift from the frame before in pixels of the small
        frames, and the log of how much there is to tell it by.
        """
        x = self.small(z)
        fine, coarse = shifts(x, 1), shifts(torch.unflatten(F.avg_pool2d(x.flatten(0, 1), 2), 0, x.shape[:2]), 2)
        found = torch.unflatten(torch.cat([fine, coarse], 2), 1, (-1, GROUP)).flatten(2, 3)
        return F.pad(found, (0, 0, 0, 0, 0, 0, 1, 0))


def shifts(x: Tensor, halved: int) -> Tensor:
    """Shifts (u, v) and certainty (B, T - 1, 3, h, w) of frames (B, T, 1, H, W), SMALL / halved pixels to a cell."""
    before, after = x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1)
    mean = F.pad((before + after) / 2, (1, 1, 1, 1), mode="replicate")
    gx, gy = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2, (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
    change = after - before
    products = torch.cat([gx * gx, gx * gy, gy * gy, gx * change, gy * change], 1)
    step = SMALL // halved
    xx, xy, yy, xt, yt = F.avg_pool2d(products, 2 * step, step, step // 2, count_include_pad=False).unbind(1)
    xx, yy = xx + DOUBT, yy + DOUBT
    area = xx * yy - xy * xy
    u, v = (xy * yt - yy * xt) / area, (xy * xt - xx * yt) / area
    told = torch.stack([u.clamp(-3, 3), v.clamp(-3, 3), 0.2 * (area / (xx + yy) / DOUBT).log()], 1)
    return torch.unflatten(told, 0, (len(x), -1))


class Mixing(nn.Module):
    """A block of a transformer: every token looks at every other one, then at itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> the same."""
        qkv: Tensor = self.qkv(self.norm1(x))
        q, k, v = torch.unflatten(qkv, -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return y


class ReaderNet(nn.Module):
    """Encoded clips -> the cameras of their frames; see the top of this file."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        stem, width, cells = config.stem, config.width, SIZE // CELL
        self.mix = nn.Conv2d(3 * config.channels + MOTIONS, width, 1)
        self.near = nn.Conv2d(width, stem, 3, padding=1)
        self.join = nn.Conv2d(stem, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)
        self.place = nn.Parameter(0.1 * torch.randn(1, 1, (cells // 2) ** 2, width))
        self.time = nn.Parameter(0.1 * torch.randn(1, GROUPS, 1, width))
        self.ask = nn.Parameter(0.1 * torch.randn(1, 1, 1, width))
        self.blocks = nn.Sequential(*[Mixing(width, config.heads) for _ in range(config.layers)])
        self.last = nn.LayerNorm(width)
        self.tell = nn.Linear(width, GROUP * NUMBERS)

    def forward(self, z: Tensor, motion: Tensor) -> Tensor:
        """Clips (B, C, GROUPS, h, w) of an `Encoder` and their `Motion` -> (B, FRAMES, NUMBERS), 0 in the first frame.

        What is told of a frame is the change since the one before; the changes are added up.
        """
        z = z.transpose(1, 2)
        before = F.pad(z[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        x = torch.cat([z, before, z[:, :1].expand_as(z), motion], 2).flatten(0, 1)
        x = self.join(F.gelu(self.near(F.gelu(self.mix(x)))))  # (BG, D, h / 2, w / 2)
        x = self.norm(x.flatten(2).transpose(1, 2)).unflatten(0, (-1, GROUPS)) + self.place + self.time
        asking = (self.ask + self.time).expand(len(x), -1, -1, -1)
        x = self.blocks(torch.cat([asking, x], 2).flatten(1, 2))
        told = self.tell(self.last(x.unflatten(1, (GROUPS, -1))[:, 1:, 0])).float()
        changes = torch.unflatten(told, -1, (GROUP, NUMBERS)).flatten(1, 2)
        return F.pad(STRIDE * changes.cumsum(1), (0, 0, 1, 0))


class CameraReader:
    """Reads cameras. `CameraReader.load()` gives the network that ships with kinema."""

    def __init__(self, net: ReaderNet, encoder: Encoder, card: dict[str, Any] | None = None) -> None:
        """Raises: KinemaError when the network was trained with another encoder."""
        if net.config.encoder != encoder.fingerprint():
            raise KinemaError(
                "this camera reader learned with another autoencoder; train it again with `kinema train camera_reader`"
            )
        self.net, self.encoder, self.card = net.eval(), encoder, card or {}
        self.motion = Motion(encoder)

    @classmethod
    def load(cls, path: str | Path | None = None) -> CameraReader:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder; without one, kinema's own.

        Raises: KinemaError when a file is missing or damaged, or belongs to another autoencoder.
        """
        net, card = read_network("camera_reader", path, lambda config: ReaderNet(ReaderConfig(**config)))
        return cls(net, own_encoder(), card)

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (int8) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.net.config, self.card, int8=True)

    @torch.inference_mode()
    def numbers(self, frames: Any) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 -> (T, NUMBERS) float64: the mean of what is read in the clip and in its mirror."""
        x = seen(frames)
        z = self.encoder(torch.stack([x, x.flip(-1)]))
        plain, mirrored = self.net(z, self.motion(z)).double().numpy()
        read = (plain + mirrored * np.array(MIRROR)) / 2
        at = np.linspace(0, FRAMES - 1, len(frames))
        return np.stack([np.interp(at, np.arange(FRAMES), column) for column in read.T], 1)

    def read(self, frames: Any) -> SeenPath:
        """The camera of a clip (T, H, W, 3) uint8.

        It sees the square in the middle, at 128x128 pixels, and 25 frames of it, so it says nothing of what happens
        within less than a 24th of the clip.

        How far to trust it, on 180 held-out clips after the autoencoder (mean error of the rotation in degrees, and in
        brackets how much it is to turn in the mean, and error of the place in heights of the camera): all 1.8 (7.4),
        0.12; still 0.2, 0.00; pan 3.8, 0.2; tilt 2.9, 0.1; rise 1.5, 0.1; orbit 6.0, 0.4; dolly 1.0, 0.2. Half of the
        clips are off by less than 0.3. Of a dolly half is read, and of orbits with another move less than there is.
        With the textures of `mini` it is 3.7 and 0.23, and more where those go against the camera; docs/models.md.
        """
        numbers = self.numbers(frames)
        return SeenPath(poses_of(numbers), np.exp(numbers[:, 6]))


def seen(frames: Any) -> Tensor:
    """What is looked at of a clip (T, H, W, 3) uint8: (FRAMES, 3, SIZE, SIZE) in 0..1."""
    x = torch.from_numpy(np.ascontiguousarray(frames))
    keep = torch.linspace(0, len(x) - 1, FRAMES).round().long()
    side = min(x.shape[1:3])
    top, left = (x.shape[1] - side) // 2, (x.shape[2] - side) // 2
    x = x[keep, top : top + side, left : left + side].permute(0, 3, 1, 2).float() / 255
    if side == SIZE:
        return x
    return F.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)


def poses_of(numbers: np.ndarray) -> np.ndarray:
    """World-to-camera poses (T, 4, 4) in the frame of the first camera, of cameras (T, NUMBERS)."""
    from kinema.metrics.camera import rotation

    poses = np.tile(np.eye(4), (len(numbers), 1, 1))
    for pose, camera in zip(poses, numbers, strict=True):
        pose[:3, :3] = rotation(camera[:3])
        pose[:3, 3] = -pose[:3, :3] @ camera[3:6]
    return poses


def numbers_of(world_to_camera: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """Cameras (T, NUMBERS) of poses (T, 4, 4) in metres, z of the world up from the ground, and focal lengths (T,).

    Turns are less than half a turn.
    """
    rotation = world_to_camera[:, :3, :3].astype(np.float64)
    eye = -np.einsum("tji,tj->ti", rotation, world_to_camera[:, :3, 3])
    turned = rotation @ rotation[0].T
    axis = np.stack([turned[:, 2, 1] - turned[:, 1, 2], turned[:, 0, 2] - turned[:, 2, 0]], 1)
    axis = np.concatenate([axis, (turned[:, 1, 0] - turned[:, 0, 1])[:, None]], 1) / 2  # sin(angle) times the axis
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (np.trace(turned, axis1=1, axis2=2) - 1) / 2)
    vector = axis * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)[:, None]
    place = (eye - eye[0]) @ rotation[0].T / eye[0, 2]
    return np.concatenate([vector, place, np.log(focal / focal[0])[:, None]], 1)


@lru_cache(maxsize=1)
def own_reader() -> CameraReader:
    """The reader that ships with kinema."""
    return CameraReader.load()


def seen_path(clip: Viewing) -> SeenPath:
    """The camera of a clip, as kinema's own reader sees it."""
    return clip.once("seen_path", lambda: own_reader().read(clip.frames))
