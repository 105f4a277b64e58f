"""Reading and writing files so that nothing half-written is ever left behind, and errors are one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kinema.core.errors import KinemaError

_HASHES: dict[tuple[str, int, int], str] = {}  # (real path, size in bytes, mtime in ns) -> sha256, for this process


def reason(error: OSError) -> str:
    """Why the system refused, in plain words and without a path."""
    known = {
        errno.ENOSPC: "there is no space left on the disk",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the file would be larger than this system allows",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
        errno.EROFS: "the file system is read-only",
        errno.ENOENT: "there is no such file or folder",
        errno.ENOTDIR: "a part of the path is not a folder",
        errno.EISDIR: "it is a folder",
        errno.ENAMETOOLONG: "the name is too long",
    }
    return known.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__).lower()


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Refuse a place that cannot be written to, before any work is done for it; leaves nothing there.

    Raises: KinemaError, one sentence, when the folder is missing, is no folder or takes no new file.
    """
    path = Path(path)
    folder = path.parent
    try:
        if not folder.exists():
            raise KinemaError(f"cannot write {path}: the folder {folder} does not exist, make it first")
        if not folder.is_dir():
            raise KinemaError(f"cannot write {path}: {folder} is not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise KinemaError(f"cannot write {path}: permission is denied in {folder}")
        if path.is_file() and not os.access(path, os.W_OK):
            raise KinemaError(f"cannot write {path}: the file is there and is read-only")
    except OSError as error:
        raise KinemaError(f"cannot write {path}: {reason(error)}") from error
    trial = folder / f".{uuid.uuid4().hex}.part"
    try:  # what the system says of a folder is not always so, as in /proc
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        why = "" if error.errno == errno.ENOENT else f": {reason(error)}"  # the folder is there
        raise KinemaError(f"cannot write {path}: the folder {folder} cannot be written{why}") from error
    return path


def check_apart(outputs: Iterable[Path], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse to write over what is read: an input, the folder that one lies in, or a file in a folder that is one.

    Raises: KinemaError, one sentence.
    """
    named = [str(name) for name in inputs if not str(name).startswith("data:")]
    for output in outputs:
        if not output.exists():
            continue
        there = output.resolve()
        for name in named:
            read = Path(name).resolve()
            if there in (read, *read.parents) or read in there.parents or (read.exists() and there.samefile(read)):
                raise KinemaError(f"cannot write {output}: {name} is read for it; choose another name")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made with its parents when it is not there.

    Raises: KinemaError, one sentence, when it cannot be made or something else has its name.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KinemaError(f"cannot write {path}: {reason(error)}") from error
    return path


@contextmanager
def replacing(path: str | os.PathLike[str], within: Path | None = None) -> Iterator[Path]:
    """Give a temporary name in the same folder; when the block succeeds it becomes `path`, else it is removed.

    The temporary name keeps the extension and starts with a dot. What the block leaves there may be a file or a
    folder; a folder replaces an older folder as a whole. within: another folder of the same disk for it.
    Raises: KinemaError, one sentence, when the folder is missing or the system refuses to write (permission, space).
    """
    path = check_writable(path)
    temporary = (within or path.parent) / f".{path.stem[:60]}.{uuid.uuid4().hex[:8]}.part{path.suffix}"
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            old = temporary.with_name(temporary.name + ".old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise KinemaError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file as a whole or not at all. Raises: KinemaError, one sentence."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as 64 hex digits; remembered in this process while size and time of change stay the same."""
    real = os.path.realpath(path)
    stat = os.stat(real)
    key = (real, stat.st_size, stat.st_mtime_ns)
    if key not in _HASHES:
        with open(real, "rb") as file:
            _HASHES[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHES[key]
