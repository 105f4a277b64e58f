"""Draws the contact sheets of docs/control.md: what was asked for, beside what mini makes of it.

python tools/control_pictures.py docs/images [camera edit photo events]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kinema.backbones.load import load
from kinema.claims.camera_paths import filmed, steered
from kinema.claims.edits import edited
from kinema.claims.methods.livephoto import photos
from kinema.editing import edit
from kinema.files import replacing
from kinema.layers.camera_path import in_words
from kinema.pipeline import run_request
from kinema.request import Part, Request
from kinema.video import rows_sheet

Row = tuple[str, np.ndarray]  # a label and a clip (T, H, W, 3) uint8

CAMERAS = ("orbit left:50deg", "pan right:20deg", "tilt up:12deg", "zoom in:1.7x, then pan left:15deg")
FIDELITIES = (0.2, 0.5, 0.8, 1.0)
INTENSITIES = (0, 3, 6, 10)
TIMELINES = (
    "0-0.8s: a red ball bounces on the grass | 0.8-3.1s: it rolls to the left",
    "0-2.3s: a red ball bounces on the grass | 2.3-3.1s: it rolls to the left",
)
SEED = 7


def made(text: str, *techniques: Part, **request: Any) -> np.ndarray:
    told: dict[str, Any] = dict(seed=SEED, num_inference_steps=20, model="mini")
    video = run_request(Request(prompt=text, **told, **request, techniques=techniques), None, load("mini"))
    frames: np.ndarray = video.frames
    return frames


def camera() -> Iterator[Row]:
    for case, path in zip(steered(len(CAMERAS), load("mini")), CAMERAS, strict=True):
        assert case.spec is not None
        yield f"asked: {path}", filmed(case.spec, path)
        text = f"{case.text}, {in_words(path, case.spec.num_frames, case.spec.fps)}"
        for name in ("ac3d", "vd3d"):
            yield f"{name}: {text}", made(text, Part(name=name, options={"camera": path}))


def editing() -> Iterator[Row]:
    case = edited(1, load("mini"))[0]
    assert case.reference is not None
    yield "source", case.reference
    for fidelity in FIDELITIES:
        options: dict[str, Any] = dict(fidelity=fidelity, seed=SEED, num_inference_steps=20, model="mini")
        yield f"fidelity {fidelity:g}: {case.text}", edit(case.reference, case.text, **options).frames
    smooth = edit(case.reference, case.text, techniques="controlvideo", seed=SEED, num_inference_steps=20, model="mini")
    yield "with controlvideo", smooth.frames


def photo() -> Iterator[Row]:
    case = photos(1, load("mini"))[0]
    for level in INTENSITIES:
        part = Part(name="livephoto", options={"intensity": level})
        yield f"intensity {level}: {case.text}", made(case.text, part, **case.request)


def events() -> Iterator[Row]:
    for text in TIMELINES:
        yield text, made(text, Part(name="mint"))


SHEETS: dict[str, Callable[[], Iterator[Row]]] = {"camera": camera, "edit": editing, "photo": photo, "events": events}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("sheets", nargs="*", choices=[*SHEETS, []], help="default: all")
    told = parser.parse_args()
    for name in told.sheets or SHEETS:
        labels, clips = zip(*SHEETS[name](), strict=True)
        with replacing(told.out / f"control-{name}.png") as temporary:
            rows_sheet(clips, labels, columns=9, cell=88).quantize(256).save(temporary, optimize=True)


if __name__ == "__main__":
    main()
