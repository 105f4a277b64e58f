"""The recipe of a video: everything that is needed to make it again, and to know whether it can be the same.

A recipe is a JSON object that stands under "kinema" in the metadata of the video and in the JSON file beside it. It
holds no time and no path of the output, so that the same request gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from kinema.core.errors import KinemaError
from kinema.files import reason, sha256
from kinema.request import Request

FORMAT = 1
LIBRARIES = ("kinema", "torch", "diffusers", "transformers", "av", "numpy")
KEY = "kinema"  # where the recipe stands in a video's metadata


def build(
    request: Request,
    *,
    weights: dict[str, str],
    inputs: dict[str, str],
    device: str,
    machine: str,
    dtype: str,
    threads: int,
    frames: str,
    sound: str | None = None,
    given: Sequence[tuple[int, int]] = (),
    opening: int = 0,
) -> dict[str, Any]:
    """The recipe of one finished request.

    `weights` and `inputs` map names to SHA-256 (see `hash_weights`, `hash_inputs`); `device` and `dtype` are what the
    model ran on, `machine` what kind of processor that is; `threads` is the number of CPU threads, which decides in
    which order sums are taken; `frames` and `sound`, where there is any, are the SHA-256 of their bytes, to know later
    whether they are the same. `given` says which frames of the video were not made, (first, behind the last), and
    `opening` how many of them are a clip that the prompt goes on from.
    """
    made = {
        "format": FORMAT,
        "request": request.model_dump(mode="json"),
        "versions": versions(),
        "weights": weights,
        "inputs": inputs,
        "device": device,
        "machine": machine,
        "dtype": dtype,
        "threads": threads,
        "frames": frames,
    }
    made |= {} if sound is None else {"sound": sound}
    made |= {"given": [list(part) for part in given]} if given else {}
    return made | ({"opening": opening} if opening else {})


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what a video looks like."""
    from kinema import __version__

    found = {name: metadata.version(name) for name in LIBRARIES if name != "kinema"}
    return {"kinema": __version__, **found}


def hash_weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a model's folder that decides its output: weights, settings, vocabularies.

    Adapters that lie there count where they are used.
    """
    names = sorted(
        Path(place) / name
        for place, _, files in os.walk(folder, followlinks=True)  # embedded models share parts
        if "adapters" not in Path(place).relative_to(folder).parts
        for name in files
        if name.endswith((".safetensors", ".json", ".model", ".txt"))
    )
    with ThreadPoolExecutor(4) as pool:  # hashing leaves the interpreter free
        return dict(zip((p.relative_to(folder).as_posix() for p in names), pool.map(sha256, names), strict=True))


def inputs(request: Request) -> dict[str, str]:
    """The pictures and clips a request and its techniques name, by what they are: paths and `data:` addresses."""
    from kinema.core.camera import is_poses
    from kinema.core.registry import find

    named = {name: getattr(request, name) for name in ("image", "last_image", "video")}
    if request.camera is not None and is_poses(request.camera):
        named["camera"] = request.camera
    for part in request.techniques:
        read = find(part.name).cls.reads(part.options)
        named |= {f"{field} of {part.name}": value for field, value in read.items()}
    return {name: str(value) for name, value in named.items() if value}


def hash_inputs(request: Request) -> dict[str, str]:
    """SHA-256 of the pictures and clips a request and its techniques name. Raises: KinemaError when one is gone."""
    found = {}
    for name, value in inputs(request).items():
        try:
            found[name] = _hash(value)
        except OSError as error:
            raise KinemaError(f"cannot read {name} {value}: {reason(error)}") from error
    return found


def _hash(value: str) -> str:
    """SHA-256 of a data: address, a file, or the files of a folder in the order of their names."""
    if value.startswith("data:"):
        return hashlib.sha256(value.encode()).hexdigest()
    return hash_folder(Path(value)) if os.path.isdir(value) else sha256(value)


def hash_folder(folder: Path) -> str:
    """SHA-256 of the files of a folder in the order of their names."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def write(recipe: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the JSON that goes beside a video."""
    Path(path).write_text(json.dumps({KEY: recipe}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The recipe of a video kinema made, from the video itself or from the JSON beside it.

    Raises: KinemaError, one sentence, when the file is missing, broken, or holds no recipe that this version reads.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise KinemaError(f"cannot read {path}: {reason(error)}") from error
        except ValueError as error:
            raise KinemaError(f"{path} is not JSON that can be read") from error
    else:
        from kinema.video import Video

        data = Video.load(path).metadata
    recipe = data.get(KEY) if isinstance(data, dict) else None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("request"), dict):
        raise KinemaError(f"{path} holds no recipe; it was not made by kinema, or its metadata was removed")
    if recipe.get("format") != FORMAT:
        raise KinemaError(f"the recipe in {path} has format {recipe.get('format')!r}; this version reads {FORMAT}")
    if not all(isinstance(recipe.get(table), dict) for table in ("versions", "weights", "inputs")):
        raise KinemaError(f"the recipe in {path} is damaged; it must hold versions, weights and inputs")
    return recipe


def asked(made: Any) -> str | None:
    """What a recipe's video was made from, as one prompt with its times; None where it does not say, or is none."""
    request = made.get("request") if isinstance(made, dict) else None
    if not isinstance(request, dict):
        return None
    try:
        return Request(prompt=request.get("prompt") or "", timeline=request.get("timeline")).asked or None
    except KinemaError:
        return None


def sidecar(path: str | os.PathLike[str]) -> Path | None:
    """Where the recipe of a video goes: beside it with .json, or None for a folder, which carries it inside.

    Raises: KinemaError when another file of that name is there already and is no recipe.
    """
    path = Path(path)
    if not path.suffix:
        return None
    beside = path.with_suffix(".json")
    if beside.exists():
        try:
            read(beside)
        except KinemaError:
            raise KinemaError(f"{beside} is there and is not a recipe; choose another name for {path}") from None
    return beside


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, each as a short sentence; empty when the video must come out the same bit for bit."""
    found = []
    for table, noun in (("versions", ""), ("weights", "the file "), ("inputs", "what is given as ")):
        old, new = before[table], now[table]
        found += list(_changes(old, new, noun, exact=table == "versions"))
    nouns = {
        "device": "the device",
        "machine": "the processor",
        "dtype": "the number type",
        "threads": "the number of threads",
    }
    for name, noun in nouns.items():
        if before.get(name) != now.get(name):
            found.append(f"{noun} was {before.get(name)} and is {now.get(name)}")
    return found


def _changes(old: dict[str, str], new: dict[str, str], noun: str, exact: bool) -> Iterable[str]:
    for name in sorted({*old, *new}):
        if name not in new:
            yield f"{noun}{name} is missing now"
        elif name not in old:
            yield f"{noun}{name} is new"
        elif old[name] != new[name]:
            yield f"{name} was {old[name]} and is {new[name]}" if exact else f"{noun}{name} has changed"
