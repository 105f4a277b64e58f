"""Networks published as TorchScript: programs, not only weights, so that only a known file is fetched and run.

What is fetched has its SHA-256 written in kinema's source; a file with another one is not opened. A file or folder that
the user names is run as it is: whoever gives NAME@/path trusts that file as much as a program from the same place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import KinemaError
from kinema.files import reason, sha256
from kinema.layers.hub import fetch, line, local, unreachable
from kinema.layers.pixels import device


def program(name: str, model: str, file: str, known: Callable[[], Path] | None, digest: str) -> Any:
    """The program that extractor `name` runs, on the device, in evaluation mode.

    model: a file, or a folder that holds `file`; not looked at where there is a known program.
    known: fetches the known program. digest: its SHA-256.
    Raises: Unreachable when it cannot be fetched, KinemaError when it is another file or no TorchScript.
    """
    if known is not None:
        path = known()
        if (found := sha256(path)) != digest:
            raise KinemaError(
                f"extractor {name}: {path} is not the file kinema knows (its SHA-256 begins with {found[:8]}, not "
                f"{digest[:8]}) and is not run; remove it, or give a file you trust with {name}@/path"
            )
    else:
        given = local(name, model)
        if given is None:
            raise KinemaError(f"extractor {name}@{model}: only the known {file} is fetched; give a file or a folder")
        path = given / file if given.is_dir() else given
        if not path.is_file():
            raise KinemaError(f"extractor {name}@{model}: {given} holds no {file}")
    try:
        load: Any = torch.jit.load
        return load(str(path), map_location=device()).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise KinemaError(f"extractor {name}: {path} is no TorchScript that can be read: {line(error)}") from error


def on_hub(name: str, repository: str, revision: str, file: str) -> Path:
    """A file of one revision of a repository on the hub. Raises: Unreachable, one sentence."""
    return fetch(name, repository, file, revision)[0]


def on_web(name: str, address: str, digest: str) -> Path:
    """A file of the web, kept where torch.hub keeps its files. Raises: Unreachable, one sentence."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, os.fspath(path), hash_prefix=digest, progress=False)
    except RuntimeError as error:  # what came has another SHA-256; torch.hub has thrown it away
        raise unreachable(name, address, f"what came from there is another file: {line(error)}") from error
    except OSError as error:
        why = getattr(error, "reason", None) or reason(error)
        raise unreachable(name, address, f"fetching it failed: {why}") from error
    return path
