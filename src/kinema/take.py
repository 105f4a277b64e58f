"""A video whose first chunk is sampled: its frames are decoded once, piece after piece, into memory or a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema import recipe
from kinema.files import replacing
from kinema.formats import WRITERS, ContainerWriter
from kinema.request import Request
from kinema.video import Video, check_extension

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone, Conditions
    from kinema.core.rollout import Rollout
    from kinema.parts import Parts

# What is being done ("load", "chunk", "sample", "decode", "save"), how much of it is done, out of how much.
Progress = Callable[[str, int, int], None]


class Take:
    """What one request made. Its frames can be asked for once; afterwards `made` is its recipe."""

    made: dict[str, Any]
    height: int  # pixels, of its frames as they leave
    width: int

    def __init__(
        self,
        request: Request,
        rollout: Rollout,
        hashes: dict[str, dict[str, str]],
        progress: Progress,
        parts: Parts | None = None,
    ) -> None:
        """hashes: SHA-256 of "weights" and "inputs", by name. parts: where the rollout keeps its chunks."""
        self.request, self.backbone = request, rollout.backbone
        self._rollout, self._hashes, self._tell, self._parts = rollout, hashes, progress, parts
        self._conditions = rollout.begin()
        self.fps = self._conditions.fps
        self.sound: np.ndarray | None = None  # known when the frames are
        self.sample_rate = Video.sample_rate

    def frames(self) -> Iterator[np.ndarray]:
        """(n, H, W, 3) uint8, piece after piece as they are decoded; chunks are sampled when it is their turn."""
        digest, count, expected = hashlib.sha256(), 0, self._rollout.num_frames or self._conditions.num_frames
        finish = self._rollout.finish
        self._tell("decode", 0, expected)
        for piece in self._rollout.frames():
            height, width = piece.shape[2:4]  # as they are made
            whole = np.ascontiguousarray(piece[0].numpy())
            for frames in [whole] if finish is None else finish.frames(whole):
                digest.update(np.ascontiguousarray(frames).data)
                count += len(frames)
                self.height, self.width = frames.shape[1:3]
                yield frames
            self._tell("decode", count, expected)
        self.sound, self.sample_rate = _heard(self._rollout, count / self.fps)
        self.made = self._recipe(digest.hexdigest(), num_frames=count, height=height, width=width)

    def video(self) -> Video:
        """All of it in memory, with its recipe."""
        frames = np.concatenate(list(self.frames()))
        kept = {recipe.KEY: self.made}
        return Video(frames, fps=self.fps, sound=self.sound, sample_rate=self.sample_rate, metadata=kept)

    def write(self, path: str | os.PathLike[str], beside: Path | None = None) -> None:
        """Writes the video as `Video.save` does, and its recipe `beside` it: both or none of them.

        Into mp4 and webm the frames go as they are decoded, so that memory does not grow with the clip.
        Raises: KinemaError, one sentence, when it cannot be written.
        """
        path = check_extension(path)
        within = None if self._parts is None or not self._parts.count else self._parts.folder
        aside = nullcontext() if beside is None else replacing(beside, within)
        with aside as side, replacing(path, within) as temporary:
            self._fill(temporary, path.suffix.lower())
            if side is not None:
                recipe.write(self.made, side)
        if self._parts is not None:
            self._parts.remove()
        self._tell("save", 1, 1)

    def _fill(self, path: Path, suffix: str) -> None:
        if suffix not in (".mp4", ".webm"):
            video = self.video()
            self._tell("save", 0, 1)
            WRITERS[suffix](video, path, video.metadata)
            return
        with ContainerWriter(path, self.fps) as writer:
            for frames in self.frames():
                writer.add(frames)
            self._tell("save", 0, 1)
            writer.sound, writer.sample_rate = self.sound, self.sample_rate
            writer.finish({recipe.KEY: self.made})

    def _recipe(self, frames: str, **size: int) -> dict[str, Any]:
        """Everything that is needed to make it again, with everything filled in that the model decided."""
        settled = dict(fps=self.fps, num_inference_steps=self._conditions.num_inference_steps, **size)
        sound = None if self.sound is None else hashlib.sha256(np.ascontiguousarray(self.sound).data).hexdigest()
        given = _given(self._rollout, self.request, self._conditions, size["num_frames"])
        opening = 0 if self._rollout.opening is None else int(self._rollout.opening.shape[1])
        asked = self.request.changed(**settled)
        return described(asked, self.backbone, self._hashes, frames, sound, given=given, opening=opening)


def described(
    request: Request,
    backbone: Backbone,
    hashes: dict[str, dict[str, str]],
    frames: str = "",
    sound: str | None = None,
    **there: Any,
) -> dict[str, Any]:
    """The recipe of a video; frames and sound: their SHA-256, once it is made; there: what of it was not made."""
    import torch

    return recipe.build(
        request.changed(**_loaded(backbone)),
        weights=hashes["weights"],
        inputs=hashes["inputs"],
        device=str(backbone.device),
        machine=_machine(backbone),
        dtype=str(backbone.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        frames=frames,
        sound=sound,
        **there,
    )


def _given(rollout: Rollout, request: Request, conditions: Conditions, count: int) -> list[tuple[int, int]]:
    """Which of `count` frames of a video the model was given: (first, behind the last) of each part."""
    given = [False] * count
    if rollout.opening is not None:
        given[: rollout.opening.shape[1]] = [True] * int(rollout.opening.shape[1])
    elif conditions.known_frames is not None:
        k, there = rollout.backbone.frames_per_latent, conditions.known_frames[0, 0, :, 0, 0].tolist()
        latents = (conditions.num_frames - 1) // k + 1  # those ahead of the clip are not shown, in some models
        by_latent = there[len(there) - latents :]
        given = [i < conditions.num_frames and by_latent[-(-i // k)] for i in range(count)]
    elif request.image is not None:
        given[0] = True
    edges = [i for i in range(count + 1) if (i > 0 and given[i - 1]) != (i < count and given[i])]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _heard(rollout: Rollout, seconds: float) -> tuple[np.ndarray | None, int]:
    """The sound of a finished rollout of one request, as `Video` has it.

    That of a clip whose sound it keeps; that of one it begins with goes on as silence, where the model makes none.
    """
    kept, sample_rate = (None, 0) if rollout.finish is None else rollout.finish.sound()
    if kept is not None:
        return lasting(kept, sample_rate, seconds), sample_rate
    made = rollout.sound()
    if made is not None:
        waves, sample_rate = made
        return waves[0].T.squeeze(1).numpy(), sample_rate  # (S, 2), or (S,) of one channel
    opening = rollout.chunks[0][0].opening
    if opening is None or opening.sound is None:
        return None, Video.sample_rate
    begun = opening.sound[: round(opening.seconds * opening.sample_rate)]
    return lasting(begun, opening.sample_rate, seconds), opening.sample_rate


def lasting(sound: np.ndarray, sample_rate: int, seconds: float) -> np.ndarray:
    """A sound (S,) or (S, 2) cut off after so many seconds, or followed by silence."""
    samples = round(seconds * sample_rate)
    return np.pad(sound[:samples], [(0, max(0, samples - len(sound))), *[(0, 0)] * (sound.ndim - 1)])


def _loaded(backbone: Backbone) -> dict[str, Any]:
    """The fields of a request that say how its model was loaded; by how many processes is no part of it."""
    return {**backbone.placement.switches(), "context_parallel": None, "lora": [lora for lora, _ in backbone.lora]}


def _machine(backbone: Backbone) -> str:
    """The kind of processor, as far as it decides which kernels run, and of how many devices it was one."""
    import platform

    import torch

    name = device = backbone.device.type
    if device == "cuda":
        name = torch.cuda.get_device_name(backbone.device)
    if device == "cpu":
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{torch.distributed.get_world_size()} x {name}" if backbone.placement.context_parallel else name
