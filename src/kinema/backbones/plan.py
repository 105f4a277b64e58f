"""What a video will need, before anything is loaded: every network is built without its weights, on no device.

Exact: the weights of each part in memory, the tokens, the calls of the network. Estimated: what a call and the decoder
hold beside the weights, from widths and sizes; attention is counted as kernels that keep no matrix of scores.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kinema.backbones import decoding
from kinema.backbones.blank import build
from kinema.backbones.folder import Folder
from kinema.backbones.shards import read_header

if TYPE_CHECKING:
    from kinema.request import Request

NOWHERE = torch.device("meta")


class Absent:
    """Stands for a tokenizer or a picture preparation, which decide no size."""

    model_max_length = 512


@dataclass(frozen=True)
class Blank(Folder):
    """A model folder whose networks are built of their configs alone; no weight is read, nor any vocabulary."""

    made: dict[str, torch.nn.Module] = field(default_factory=dict)  # the networks that were asked for

    def tokenizer(self, part: str = "tokenizer") -> Any:
        return Absent()

    def processor(self, family: str, part: str = "image_processor") -> Any:
        return Absent()

    def module(
        self, part: str, kinds: Sequence[type], device: torch.device, dtype: torch.dtype, **options: Any
    ) -> torch.nn.Module:
        self.made[part] = build(self, part, kinds, dtype).to(NOWHERE)
        return self.made[part]


class Rehearsal(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what tensors on no device would hold: `most`, bytes at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._free, storage._cdata)
        return result

    def _free(self, key: int) -> None:
        self.now -= self._live.pop(key, 0)


@dataclass(frozen=True)
class Part:
    """One network of a model."""

    name: str
    parameters: int
    memory: int  # bytes in memory: parameters and buffers in the types they are computed in; exact
    disk: int | None  # bytes of its safetensors files; None where they are not on this machine


@dataclass(frozen=True)
class Plan:
    """What one video needs; sizes in bytes."""

    model: str
    family: str
    device: str
    dtype: str
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    latents: tuple[int, int, int, int, int]
    tokens: int  # of the video, in one call
    calls: int  # of the network
    samples: int  # clips in one call: 2 where guidance asks with and without the prompt together
    parts: tuple[Part, ...]
    activations: int  # estimate
    decoding: int  # estimate

    @property
    def weights(self) -> int:
        return sum(part.memory for part in self.parts)

    @property
    def most(self) -> int:
        """The most at one time: an estimate. All parts stay in memory; sampling and decoding follow each other."""
        return self.weights + max(self.activations, self.decoding)


class Planner:
    """A model opened without weights, which plans any number of requests."""

    def __init__(self, folder: Folder, device: torch.device, dtype: torch.dtype, family: Any) -> None:
        self.blank = Blank(folder.path, folder.name, folder.index, folder.card)
        self.device, self.dtype = device, dtype
        self._rehearsed: dict[int, float] = {}  # latent frames -> bytes a cell
        self.backbone = family.open_folder(self.blank, NOWHERE, dtype)
        self.networks = dict(self._networks())
        self.parts = tuple(part_of(name, network, folder.path) for name, network in self.networks.items())

    def _networks(self) -> Iterator[tuple[str, torch.nn.Module]]:
        made = self.blank.made
        unet = getattr(self.backbone, "unet", None)
        if unet is not None and "motion_adapter" in made:  # the two are joined into a third
            yield "unet", unet
        for name, network in made.items():
            if "motion_adapter" not in made or name not in ("unet", "motion_adapter"):
                yield name, network

    def plan(self, request: Request, guided: bool) -> Plan:
        """Raises: KinemaError for sizes that the model cannot make."""
        backbone = self.backbone
        frames, height, width, steps, _ = backbone.settle([request])
        shape = backbone.latent_shape(1, frames, height, width)
        apart = backbone.defaults.sound_guidance_scale is not None  # its guidance asks for four branches, one by one
        branches = 1 if not guided else 4 if apart else 2
        together = branches if backbone.joint_branches and not apart else 1
        tokens = math.prod(n // p for n, p in zip(shape[-3:], backbone.patch, strict=True))
        return Plan(
            model=self.blank.name,
            family=backbone.family,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            num_frames=frames,
            height=height,
            width=width,
            num_inference_steps=steps,
            latents=shape,
            tokens=tokens,
            calls=steps * branches // together,
            samples=together,
            parts=self.parts,
            activations=self._activations(shape, tokens, together),
            decoding=self._decoding(shape) + 3 * frames * height * width,
        )

    def decoding(self, plan: Plan, tiled: bool) -> int:
        """What decoding holds beside the weights: an estimate. tiled: one tile, and the video twice."""
        if not tiled:
            return plan.decoding
        vae, (batch, channels, frames, rows, columns) = self.backbone.vae, plan.latents
        sides = [getattr(vae, f"tile_sample_min_{side}", None) or vae.tile_sample_min_size for side in SIDES]
        height, width = (side // self.backbone.pixels_per_cell for side in sides)
        video = plan.num_frames * 3 * plan.height * plan.width * vae.dtype.itemsize
        tile = (batch, channels, frames, min(rows, height), min(columns, width))
        return min(plan.decoding, self._decoding(tile) + 2 * int(video))

    def _activations(self, shape: tuple[int, ...], tokens: int, samples: int) -> int:
        """A transformer: the stream, its normed copy, and the widest of attention and feed-forward beside them.

        A UNet: the same at its widest level, and what its skips keep of all levels.
        """
        size, backbone = self.dtype.itemsize, self.backbone
        latents = 6 * samples * math.prod(shape[1:]) * 8
        unet = getattr(backbone, "unet", None)
        if unet is None:
            width = max((site.heads * site.head_dim for site in backbone.sites), default=0)
            return latents + WORKING * samples * tokens * width * size
        widths = list(unet.config.block_out_channels)
        areas = [tokens / 4**level for level in range(len(widths))]
        layers = unet.config.layers_per_block
        each = [layers] * len(widths) if isinstance(layers, int) else list(layers)
        level = [area * width for area, width in zip(areas, widths, strict=True)]
        kept = sum((count + 1) * size for count, size in zip(each, level, strict=True))
        return latents + int(samples * size * (kept + WORKING * max(level)))

    def _decoding(self, shape: tuple[int, ...]) -> int:
        """The decoder rehearsed on a small picture, as long as the clip or until it holds no more, and scaled to it."""
        cells = 16
        most = []
        for count in sorted({min(shape[2], LONG // 2), min(shape[2], LONG)}):
            if count not in self._rehearsed:
                x = torch.empty((1, shape[1], count, cells, cells), device=NOWHERE)
                with torch.no_grad(), NOWHERE, Rehearsal() as rehearsal:
                    decode(self.backbone.vae, x)
                self._rehearsed[count] = rehearsal.most / cells**2
            most.append(self._rehearsed[count])
        grown = 2 * (most[-1] - most[0]) / LONG * max(0, shape[2] - LONG)  # what goes in pieces does not grow
        return int((most[-1] + grown) * shape[3] * shape[4])


# Times the token stream that a block holds at its peak. Rehearsed on the real layouts in bfloat16: Wan 14B 14,
# CogVideoX 5B 15, Wan 1.3B 17, LTX 0.9 21, HunyuanVideo 22.
WORKING = 20
SIDES = ("height", "width")
LONG = 32  # latent frames of the longest rehearsal


def decode(vae: Any, x: torch.Tensor) -> None:
    """The decoder alone, piece by piece as in a run."""
    told: dict[str, Any] = {}
    if getattr(vae.config, "timestep_conditioning", False):
        told["temb"] = torch.ones(1, device=x.device)
    for _ in decoding.pieces(vae, x, **told):
        pass


def part_of(name: str, network: torch.nn.Module, folder: Path) -> Part:
    """Sizes of a network, which may be one without weights."""
    tensors = [*network.parameters(), *network.buffers()]
    return Part(
        name=name,
        parameters=sum(p.numel() for p in network.parameters()),
        memory=sum(t.numel() * t.element_size() for t in tensors),
        disk=disk_bytes(folder / name),
    )


def disk_bytes(part: Path) -> int | None:
    """Bytes of all tensors in a part's safetensors files, by their headers, or by the index where they are away.

    Raises: KinemaError when a header is damaged.
    """
    files = sorted(part.glob("*.safetensors"))
    if not files:
        for index in part.glob("*.safetensors.index.json"):
            size = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size")
            return int(size) if size else None
        return None
    total = 0
    for file in files:
        total += sum(entry["size"] for entry in read_header(file).values())
    return total
