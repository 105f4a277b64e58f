"""Tensors that take long to make, kept in a file whose header tells what they were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.files import make_folder, replacing


def kept(path: Path, made_of: Any, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file, which is made where it is not there, whole or not at all.

    made_of: all that they depend on, as JSON. Raises: ValueError for a file that was made of something else.
    """
    told = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    if not path.is_file():
        tensors = {name: u.contiguous() for name, u in make().items()}
        make_folder(path.parent)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"made_of": told})
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("made_of") != told:
            raise ValueError(f"{path} was made of other clips or settings; use another folder, or delete it")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
