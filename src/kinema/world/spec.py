"""What a clip is made from (`SceneSpec`) and what the renderer needs to draw it (`SceneState`).

The world is right-handed with z up: x to the right, y away from the first camera, z up; lengths in metres,
times in seconds, angles in radians. The ground is the plane z = 0. Frame f of a clip is at time f / fps.
Cameras look along +z of their own frame with x right and y down (OpenCV), so a world point p (3,) lands at
pixel K @ (R @ p + t), where R and t are the rows of `world_to_camera`. Pixel centres are at half integers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from kinema.core.camera import CameraLeg


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """One thing in a scene, as it stands at time 0."""

    kind: str  # one of vocabulary.KINDS
    colour: str  # one of vocabulary.COLOURS
    material: str = "matte"  # one of vocabulary.MATERIALS
    size: str = "medium"  # one of vocabulary.SIZES
    position: tuple[float, float] = (0.0, 0.0)  # x, y on the ground, metres
    heading: float = 0.0  # rotation about z, radians
    text: str = ""  # the letter of a "letter", the path or name of a "picture"


@dataclass(frozen=True, kw_only=True)
class EventSpec:
    """One thing that happens, with exact start and end."""

    action: str  # one of vocabulary.ACTIONS
    start: float  # seconds
    end: float  # seconds, later than start
    subject: int = 0  # index into SceneSpec.objects
    direction: str = ""  # one of vocabulary.DIRECTIONS for a directed action, else empty
    target: int | None = None  # index of the other object of "circle" and "push"
    colour: str = ""  # the new colour of "change colour"
    amount: float = 1.0  # how far or high it goes, times its usual way; of the actions in actions.SCALED

    @property
    def label(self) -> str:
        """Action with its direction, for example "roll left" or "bounce"."""
        return f"{self.action} {self.direction}".strip()


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """How the camera stands, its move over the whole clip, and those in parts of it."""

    move: str = "still"  # one of vocabulary.CAMERAS
    distance: float = 6.5  # metres from the point looked at
    height: float = 2.2  # metres above the ground
    azimuth: float = 0.0  # radians about z; 0 looks along +y
    amount: float = 1.0  # size of the move, times its usual size
    legs: tuple[CameraLeg, ...] = ()  # more moves, each in its part of the clip


@dataclass(frozen=True, kw_only=True)
class SceneSpec:
    """Everything that decides a clip. The same spec gives the same clip on any machine."""

    seed: int
    objects: tuple[ObjectSpec, ...]
    events: tuple[EventSpec, ...]
    camera: CameraSpec = field(default_factory=CameraSpec)
    ground: str = "grass"
    sky: str = "day"
    num_frames: int = 25
    height: int = 128  # pixels
    width: int = 128  # pixels
    fps: float = 8.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SceneSpec:
        objects = tuple(ObjectSpec(**{**o, "position": tuple(o["position"])}) for o in data["objects"])
        events = tuple(EventSpec(**e) for e in data["events"])
        legs = tuple(CameraLeg(**leg) for leg in data["camera"].get("legs", ()))
        camera = CameraSpec(**{**data["camera"], "legs": legs})
        return cls(**{**data, "objects": objects, "events": events, "camera": camera})


@dataclass
class SceneState:
    """Where everything is in every frame: B clips of the same size, T frames, N objects (padded, invisible).

    The simulator fills it in, the renderer draws it; both are batched over clips.
    """

    kind: Tensor  # (B, N) int64, index into KINDS; -1 is padding
    material: Tensor  # (B, N) int64, index into MATERIALS
    centre: Tensor  # (B, T, N, 3) metres
    rotation: Tensor  # (B, T, N, 3, 3) object to world
    size: Tensor  # (B, T, N) half extent, metres
    colour: Tensor  # (B, T, N, 3) sRGB, 0..1
    opacity: Tensor  # (B, T, N) 0 (not there) .. 1; in between is drawn as blending over what is behind
    pose: Tensor  # (B, T, N, 4) figures: swing of left arm, right arm, left leg, right leg, radians
    ground: Tensor  # (B,) int64, index into GROUNDS
    sky: Tensor  # (B,) int64, index into SKIES
    intrinsics: Tensor  # (B, T, 3, 3) pixels
    world_to_camera: Tensor  # (B, T, 4, 4)
    texture: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # (clip, object) -> RGBA (4, h, w), 0..1
    height: int = 128  # pixels
    width: int = 128  # pixels

    def to(self, device: torch.device | str) -> SceneState:
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        moved["texture"] = {k: v.to(device) for k, v in self.texture.items()}
        return SceneState(**moved)
