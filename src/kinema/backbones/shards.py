"""The tensors of a network's safetensors files, found by the headers and read one by one into memory of the caller's.

Read, not mapped: bytes go from the file into the memory in which they are used, so that no page of the file counts as
the process's own, and types and alignment of the file do not matter. A copy out of a map takes as long.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.backbones.folder import as_sentence
from kinema.core.errors import KinemaError

STEMS = ("diffusion_pytorch_model", "model")  # how diffusers and transformers name their files
MAX_HEADER = 100_000_000  # bytes, the format's own limit
ALIGNMENT = 64  # bytes; torch's own memory begins at multiples of it
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies."""

    file: Path
    start: int  # byte in the file
    size: int  # bytes
    dtype: torch.dtype
    shape: tuple[int, ...]

    def phase(self, dtype: torch.dtype, device: torch.device) -> int:
        """How many bytes behind a multiple of ALIGNMENT the tensor lies in memory when a library has loaded it.

        On the CPU a tensor stays where it lies in the file, unless its type changes; some kernels add up in another
        order when that is different, and the last bit shows it.
        """
        return self.start % ALIGNMENT if device.type == "cpu" and dtype == self.dtype else 0

    def read(self, opened: FileIO, memory: Tensor) -> Tensor:
        """The tensor, as a view of `memory`, (>= size,) uint8 on the CPU, into which it is read.

        Raises: KinemaError when the file has become shorter since it was looked at.
        """
        place = memory[: self.size]
        left = memoryview(place.numpy())  # type: ignore[arg-type]  # numpy 1 does not say that arrays are buffers
        opened.seek(self.start)
        while left:  # a read may stop early, at the latest after 2 GB
            count = opened.readinto(left)
            if not count:
                raise KinemaError(f"{self.file.parent.name}/{self.file.name} ends too early; it was changed or damaged")
            left = left[count:]
        return place.view(self.dtype).view(self.shape)


def read_header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> dtype, shape and data_offsets; with the length of all of it in bytes.

    Raises: KinemaError when it is damaged.
    """
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > MAX_HEADER:
                raise ValueError
            found = json.loads(opened.read(length))
            found.pop("__metadata__", None)
            for entry in found.values():
                first, last = entry["data_offsets"]
                entry["start"], entry["size"] = 8 + length + first, last - first
            return dict(found)
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError) as error:
        where = f"{file.parent.name}/{file.name}"
        raise KinemaError(f"{where} has no readable safetensors header; is it damaged?") from error


def stored(part: Path) -> dict[str, Stored]:
    """All tensors of a part of a model by their names in its files, of which only the headers are read.

    Raises: KinemaError when there are no safetensors, or a file is missing, damaged or of an unknown number type.
    """
    from safetensors import safe_open

    found = {}
    for file in _files(part):
        with as_sentence(f"{part.name}/{file.name} cannot be read"), safe_open(file, "pt"):
            pass  # checks that the tensors fill the file
        for name, entry in read_header(file).items():
            if entry["dtype"] not in TYPES:
                allowed = ", ".join(TYPES)
                raise KinemaError(f"{name} in {part.name}/{file.name} is {entry['dtype']}; kinema reads {allowed}")
            shape = tuple(entry["shape"])
            found[name] = Stored(file, entry["start"], entry["size"], TYPES[entry["dtype"]], shape)
    return found


def _files(part: Path) -> list[Path]:
    for stem in STEMS:
        index = part / f"{stem}.safetensors.index.json"
        if index.is_file():
            with as_sentence(f"{part.name}/{index.name} cannot be read"):
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            for name in names:
                if Path(name).name != name or not (part / name).is_file():
                    raise KinemaError(f"{part.name}/{index.name} names {name!r}, which is not there")
            return [part / name for name in names]
        if (part / f"{stem}.safetensors").is_file():
            return [part / f"{stem}.safetensors"]
    either = " or ".join(f"{stem}.safetensors" for stem in STEMS)
    raise KinemaError(f"{part.name}/ holds no {either}; kinema reads no other weights")
