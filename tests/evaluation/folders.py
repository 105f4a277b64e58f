"""Small folders of clips that the tests of the evaluation measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kinema.evaluation.runners import Here
from kinema.video import Video

FILES = ("results.json", "clips.csv", "report.html")
ASKED = dict(metrics="flicker,psnr,spread:world", max_gigabytes=3e-5)  # too little for 64x64 pixels

NAMES = ["<b>x&y", "clip", "dark", "s/moving", "shots"]  # what can be measured in `clips`
BAD = ["broken", "cut", "empty", "long"]
PROMPT = "a red ball rolls to the left on the grass"


def frames(seed: int, count: int = 4, side: int = 24) -> np.ndarray:
    """A noisy picture that moves to the right by a pixel a frame."""
    picture = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    return np.stack([np.roll(picture, i, axis=1) for i in range(count)])


def save_clips(folder: Path) -> Path:
    """Clips of every kind, and files that are none."""
    (folder / "s").mkdir(parents=True)
    made = {"kinema": {"request": {"prompt": "a blue cone <i>spins</i>"}}}
    Video(frames(0), metadata=made).save(folder / "<b>x&y.mp4")
    Video(frames(1)).save(folder / "clip.gif")
    (folder / "clip.json").write_text(json.dumps({"caption": PROMPT}))
    Video(frames(2) // 4).save(folder / "dark.mp4")
    Video(frames(3), sound=np.zeros(4000, np.float32)).save(folder / "s" / "moving.mp4")
    Video(frames(4)).save(folder / "shots")
    (folder / "empty.mp4").touch()
    (folder / "broken.mp4").write_bytes(b"no video at all")
    whole = (folder / "dark.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) - 400])
    Video(frames(5, side=64)).save(folder / "long.gif")
    (folder / "notes.txt").write_text("no clip")
    return folder


def save_reference(folder: Path) -> Path:
    """Two partners of `save_clips`, one of another size, and a clip without a partner."""
    folder.mkdir()
    Video(frames(1)).save(folder / "clip.gif")
    Video(frames(4, side=16)).save(folder / "shots")
    Video(frames(6)).save(folder / "other.gif")
    return folder


def stopping(count: int) -> type:
    """Instead of `Here`: Ctrl-C after some clips."""

    class Stopping(Here):
        def run(self, tasks, in_flight):
            for index, done in enumerate(super().run(tasks, in_flight)):
                if index == count:
                    raise KeyboardInterrupt
                yield done

    return Stopping


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}
