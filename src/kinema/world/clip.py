"""A clip with everything that is known about it: `render_clips` makes `Clip`s with full ground truth."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.world.bodies import Contact
from kinema.world.caption import caption, timeline
from kinema.world.motion import simulate
from kinema.world.render import Rendered, render, render_frames
from kinema.world.sound import SAMPLE_RATE, Wave, sound_track
from kinema.world.spec import SceneSpec, SceneState

TRACK_GRID = 8  # points that are followed, along each side of the first frame
TRUTH = ("depth", "mask", "flow", "visible", "tracks_world", "tracks_pixel", "tracks_visible", "tracks_object",
         "boxes_3d", "boxes_2d")  # fmt: skip


@dataclass(kw_only=True)
class Clip:
    """One clip of T frames with H rows and W columns, and what is true about it.

    The fields from `depth` on are None when the clip was made without truth. Q tracks are followed: first the centre
    of each of the N objects, then points on the surfaces seen in a grid of the first frame.
    """

    spec: SceneSpec
    frames: Tensor  # (T, H, W, 3) uint8, sRGB
    caption: str  # short
    dense_caption: str
    timeline: list[dict[str, float | str]]  # start and end in seconds, text
    contacts: list[Contact]  # in the order of time
    sound: Wave  # (S,) float32 in -1..1, mono, 16 kHz
    intrinsics: Tensor  # (T, 3, 3) pixels
    world_to_camera: Tensor  # (T, 4, 4)
    depth: Tensor | None = None  # (T, H, W) float32 metres along the view direction, inf in the sky
    mask: Tensor | None = None  # (T, H, W) int8: -1 sky, 0 ground, i + 1 object i
    flow: Tensor | None = None  # (T-1, H, W, 2) float32 pixels from frame t to t + 1, x right and y down
    visible: Tensor | None = None  # (T-1, H, W) bool: the point is seen in frame t + 1 too; its negation is occlusion
    tracks_world: Tensor | None = None  # (Q, T, 3) metres
    tracks_pixel: Tensor | None = None  # (Q, T, 2) pixels
    tracks_visible: Tensor | None = None  # (Q, T) bool
    tracks_object: Tensor | None = None  # (Q,) int64, -1 for the ground
    boxes_3d: Tensor | None = None  # (T, N, 8, 3) metres, corners
    boxes_2d: Tensor | None = None  # (T, N, 4) pixels x0, y0, x1, y1; NaN behind the camera

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures, sound and tensors, as JSON takes it."""
        return {
            "caption": self.caption,
            "dense_caption": self.dense_caption,
            "timeline": self.timeline,
            "contacts": [asdict(contact) for contact in self.contacts],
            "spec": self.spec.to_dict(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The cameras and the truth that is there, by name."""
        found = {name: getattr(self, name) for name in TRUTH if getattr(self, name) is not None}
        return {"intrinsics": self.intrinsics, "world_to_camera": self.world_to_camera, **found}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes clip.mp4 (with sound), truth.safetensors and clip.json into a folder, as a whole or not at all.

        A folder of this name that is there already is replaced.
        Raises: KinemaError, one sentence, when the place cannot be written.
        """
        from safetensors.torch import save

        from kinema.files import replacing
        from kinema.video import Video

        folder = Path(folder)
        with replacing(folder) as temporary:
            temporary.mkdir()
            video = Video(self.frames.cpu().numpy(), self.spec.fps, sound=self.sound, sample_rate=SAMPLE_RATE)
            video.save(temporary / "clip.mp4")
            tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors().items()}
            # save_file would make it readable for its owner alone
            (temporary / "truth.safetensors").write_bytes(save(tensors))
            text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False)
            (temporary / "clip.json").write_text(text + "\n", encoding="utf-8")
        return folder


def render_clips(
    specs: Sequence[SceneSpec], *, truth: bool = True, device: torch.device | str = "cpu", batch: int = 4
) -> list[Clip]:
    """Clips of scenes of one length and size.

    Args:
        specs: the scenes; their captions use the seeds of the scenes.
        truth: also depth, masks, flow, tracks and boxes.
        device: where to draw; what comes back is on the CPU.
        batch: scenes that are drawn together.

    Raises:
        ValueError: when the scenes differ in length or size, or cannot happen.
    """
    clips: list[Clip] = []
    for first in range(0, len(specs), batch):
        part = list(specs[first : first + batch])
        state, contacts = simulate(part)
        there = state.to(device)
        rendered = render(there) if truth else None
        frames = (rendered.frames if rendered is not None else render_frames(there)).cpu()
        facts = truth_of(there, rendered) if rendered is not None else [{} for _ in part]
        for i, spec in enumerate(part):
            clips.append(
                Clip(
                    spec=spec,
                    frames=frames[i],
                    caption=caption(spec, spec.seed, "short"),
                    dense_caption=caption(spec, spec.seed, "dense"),
                    timeline=timeline(spec),
                    contacts=contacts[i],
                    sound=sound_track(spec, contacts[i], state.centre[i].numpy()),
                    intrinsics=state.intrinsics[i],
                    world_to_camera=state.world_to_camera[i],
                    **facts[i],
                )
            )
    return clips


def truth_of(state: SceneState, rendered: Rendered) -> list[dict[str, Tensor]]:
    """The truth of each clip of a batch, by the names of the fields of `Clip`, on the CPU."""
    from kinema.world import truth

    flow = truth.flow(state, rendered)
    corners, boxes = truth.boxes_3d(state), truth.boxes_2d(state)
    centres = truth.centre_anchors(state)
    clip, pixel = grid_points(rendered.mask)
    surface = truth.surface_anchors(state, rendered, clip, torch.zeros_like(clip), pixel)
    paths = [(anchors, truth.track(state, anchors)) for anchors in (centres, surface)]
    facts: list[dict[str, Tensor]] = []
    for i in range(len(rendered.mask)):
        count = int((state.kind[i] >= 0).sum())
        mine = [(anchors.clip == i) for anchors, _ in paths]
        fact = {
            "depth": rendered.depth[i],
            "mask": rendered.mask[i],
            "flow": flow.forward[i],
            "visible": flow.visible[i],
            "tracks_world": torch.cat([t.world[m] for (_, t), m in zip(paths, mine, strict=True)]),
            "tracks_pixel": torch.cat([t.pixel[m] for (_, t), m in zip(paths, mine, strict=True)]),
            "tracks_visible": torch.cat([t.visible[m] for (_, t), m in zip(paths, mine, strict=True)]),
            "tracks_object": torch.cat([a.thing[m] for (a, _), m in zip(paths, mine, strict=True)]),
            "boxes_3d": corners[i, :, :count],
            "boxes_2d": boxes[i, :, :count],
        }
        facts.append({name: tensor.cpu() for name, tensor in fact.items()})
    return facts


def grid_points(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Clips (Q,) and pixels (Q, 2) of a grid over the first frames of masks (B, T, H, W), without the sky."""
    b, _, h, w = mask.shape
    x = ((torch.arange(TRACK_GRID) + 0.5) / TRACK_GRID * w).long()
    y = ((torch.arange(TRACK_GRID) + 0.5) / TRACK_GRID * h).long()
    clip, y, x = torch.meshgrid(torch.arange(b), y, x, indexing="ij")
    clip, pixel = clip.reshape(-1).to(mask.device), torch.stack([x.reshape(-1), y.reshape(-1)], -1).to(mask.device)
    there = mask[clip, 0, pixel[:, 1], pixel[:, 0]] >= 0
    return clip[there], pixel[there]
