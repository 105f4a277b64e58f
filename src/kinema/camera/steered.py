"""What adapters that steer the camera share: a path becomes rays, one for each latent cell and frame."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kinema.core.adapter import Adapter, ModelFace, comes_with
from kinema.core.camera import is_poses
from kinema.core.errors import KinemaError
from kinema.layers.pluecker import pluecker

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.core.run import Run

log = logging.getLogger("kinema")
ADAPTERS = ("ac3d", "vd3d")  # that follow a camera, the better one first


@dataclass(frozen=True, kw_only=True)
class CameraAdapter(Adapter):
    """Base of adapters that follow a camera path."""

    condition: ClassVar[str] = "camera"

    joint: bool = True
    camera: str = "static"  # a move or several, "orbit:40deg", or a JSON file of poses; see layers/camera_path.py

    @classmethod
    def reads(cls, options: Mapping[str, Any]) -> dict[str, str]:
        found = super().reads(options)
        return found | ({"camera": options["camera"]} if is_poses(options.get("camera", "")) else {})

    def start(self, run: Run) -> None:
        from kinema.layers.camera_path import in_words

        super().start(run)
        if not self.weight or run.rehearsed or run.chunk.first or all(speaks(r.asked) for r in run.requests):
            return
        said = in_words(self.camera, max(run.chunk.frames or 0, run.conditions.num_frames), run.conditions.fps)
        if said:
            log.warning(f"the prompt does not name the camera, which follows its path better with ', {said}'")

    def given(self, run: Run) -> Mapping[str, Tensor]:
        from kinema.layers.camera_path import parse

        c, b, chunk = run.conditions, run.backbone, run.chunk
        height, width = (n * b.pixels_per_cell for n in c.shape[3:])
        whole = max(chunk.frames or 0, c.num_frames)
        path = parse(self.camera, whole, height, width, c.fps)
        part = torch.arange(chunk.first, chunk.first + c.num_frames).clamp(0, whole - 1)
        intrinsics, poses = path.intrinsics[None, part], path.world_to_camera[None, part]
        rays = latent_rays(intrinsics, poses, height, width, c.shape[2:], b.frames_per_latent)
        return {"rays": rays.expand(c.shape[0], -1, -1, -1, -1)}


def speaks(prompt: str) -> bool:
    """Whether a prompt says something of the camera, and not only of what goes towards it; or nothing at all."""
    plain = re.sub(r"\b(?:towards?|away from|at|to|facing|near) (?:the )?camera\b", "", prompt.lower())
    return not plain or re.search(r"\bcamera|\bshot\b|\borbit", plain) is not None


def latent_rays(
    intrinsics: Tensor, world_to_camera: Tensor, height: int, width: int, cells: Sequence[int], k: int
) -> Tensor:
    """Rays through the centres of latent cells, (B, 6 k, T, H, W): those of the k frames of a latent frame follow each
    other as channels; the first latent frame stands for one frame, k times.

    intrinsics (B, F, 3, 3) in pixels of height x width, world_to_camera (B, F, 4, 4) in metres; cells: T, H, W.
    """
    latent, rows, columns = cells
    rays = pluecker(intrinsics, world_to_camera, (height, width), (rows, columns))  # (B, F, 6, H, W)
    first = rays[:, :1].expand(-1, k, -1, -1, -1)
    rest = rays[:, 1:]
    short = k * (latent - 1) - rest.shape[1]
    if short > 0:  # latent frames ahead of the clip, which some models have
        rest = torch.cat([rays[:, :1].expand(-1, short, -1, -1, -1), rest], dim=1)
    grouped = torch.cat([first, rest], dim=1).reshape(len(rays), latent, 6 * k, rows, columns)
    return grouped.transpose(1, 2)


def told(rays: Tensor) -> Tensor:
    """Rays as networks read them: where the first frame's look, and by how much each frame's have changed since.

    The differences between a moving and a still camera are small beside the rays themselves, and a network that has
    to find them in the rays learns late; that each number is about one wide is what it learns fast from.
    Shapes: rays (B, 6 k, T, H, W) -> (B, 6 k + 3, T, H, W).
    """
    first = rays[:, :6, :1]
    changes = rays.reshape(len(rays), -1, 6, *rays.shape[2:]) - first[:, None]
    gains = torch.tensor([1.0] * 3 + [5.0] * 3, device=rays.device)  # of moments in metres, and of directions
    changes = (changes * gains[:, None, None, None]).flatten(1, 2)
    return torch.cat([changes, first[:, 3:].expand(-1, -1, rays.shape[2], -1, -1)], dim=1)


def told_channels(face: ModelFace) -> int:
    """Channels of what `told` gives for a model."""
    return 6 * face.frames_per_latent + 3


def default(camera: str, backbone: Backbone) -> CameraAdapter:
    """What follows a camera where nothing is named: the first of `ADAPTERS` that comes with the model.

    Raises: KinemaError where none does.
    """
    from kinema.core.registry import find

    for name in ADAPTERS:
        adapter: CameraAdapter = find(name).cls(camera=camera)  # type: ignore[call-arg, assignment]
        if comes_with(adapter, backbone):
            return adapter
    raise KinemaError(
        f"model {backbone.name!r} comes with no adapter that follows a camera; train one with `kinema train adapter "
        f"{ADAPTERS[0]} --model {backbone.name}` and name its folder, --technique {ADAPTERS[0]}:adapter=FOLDER"
    )
