"""Finished chunks of a video that is being made, in a folder beside it: an interrupted one goes on behind them.

`out.mp4.part/` holds `video.json`, which says of what request and model it is, the latents of each finished chunk, what
the last of them handed on, and the video while it is written. It goes when the video is there. A file whose SHA-256 is
not the one in `video.json` counts for nothing, and what it held is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema import recipe
from kinema.core.errors import KinemaError
from kinema.files import make_folder, reason, replacing, sha256, write_text
from kinema.request import Request

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.rollout import Finished

CARD = "video.json"


class Parts:
    """The shelf of a rollout on the disk, bound to what its video is made of.

    Raises: KinemaError, one sentence, for a folder that holds the chunks of another video, or other things.
    """

    def __init__(self, out: str | os.PathLike[str], asked: Request) -> None:
        """out: the video. asked: its request as it was given, with or without a seed."""
        out = Path(out)
        self.out, self.folder = out, out.with_name(out.name + ".part")
        self.asked = asked.model_dump(mode="json")
        self._card = self._read()
        self._sums = self._sound()
        self._recipe: dict[str, Any] = {}
        if self._card is None:
            return
        same = self._card["asked"] | {"seed": None} == self.asked | {"seed": None}
        if not same or asked.seed not in (None, self._card["seed"]):
            self._refuse("of another request")

    @property
    def seed(self) -> int | None:
        """The seed that was drawn for this video before it was interrupted."""
        return None if self._card is None else int(self._card["seed"])

    @property
    def count(self) -> int:
        """Chunks that are finished."""
        return sum(name.startswith("chunk") for name in self._sums)

    def bind(self, made_of: dict[str, Any]) -> None:
        """Says what the chunks are made of, a recipe without its frames. Raises: KinemaError when it has changed."""
        self._recipe = made_of
        if self._card is None:
            return
        before = self._card["recipe"]
        differing = recipe.differences(before, made_of)
        if not differing and before["request"] != made_of["request"]:
            differing = ["its request has changed"]
        if differing:
            self._refuse(f"made otherwise ({differing[0]})")

    def load(self, index: int) -> Finished | None:
        from safetensors.torch import load_file

        from kinema.core.rollout import Finished

        chunk, beside = self._path("chunk", index), self._path("carried", index)
        if self._card is None or chunk.name not in self._sums:
            return None
        tensors, carried = load_file(chunk), load_file(beside) if beside.name in self._sums else {}
        handed: list[dict[str, Tensor]] = [{} for _ in range(self._card["techniques"])]
        for name, tensor in carried.items():
            number, _, key = name.partition(".")
            handed[int(number)][key] = tensor
        return Finished(tensors, handed if carried else [])

    def save(self, index: int, finished: Finished) -> None:
        from safetensors.torch import save_file

        make_folder(self.folder)
        if self._card is None:
            count = len(finished.carried)
            self._card = {"asked": self.asked, "seed": self._recipe["request"]["seed"], "recipe": self._recipe}
            self._card |= {"techniques": count, "handed": False}
        carried = {f"{i}.{key}": u for i, handed in enumerate(finished.carried) for key, u in handed.items()}
        self._sums = {name: digest for name, digest in self._sums.items() if not name.startswith("carried")}
        for what, tensors in (("carried", carried), ("chunk", dict(finished.tensors))):
            path = self._path(what, index)
            if tensors:
                with replacing(path) as temporary:
                    save_file({k: u.detach().cpu().contiguous().clone() for k, u in tensors.items()}, temporary)
                self._sums[path.name] = sha256(path)
        # Last: a chunk counts as finished when all of it is there.
        self._card |= {"sha256": self._sums, "handed": self._card["handed"] or bool(carried)}
        write_text(self.folder / CARD, json.dumps(self._card, indent=2, sort_keys=True) + "\n")
        for old in self.folder.glob("carried_*.safetensors"):
            if old.name not in self._sums:
                old.unlink()

    def remove(self) -> None:
        """Takes the folder away, when the video is written."""
        if self._card is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, what: str, index: int) -> Path:
        return self.folder / f"{what}_{index:04d}.safetensors"

    def _read(self) -> dict[str, Any] | None:
        if not self.folder.exists():
            return None
        others = not self.folder.is_dir() or any(not path.name.startswith(".") for path in self.folder.iterdir())
        if others and not (self.folder / CARD).exists():
            raise KinemaError(f"{self.folder} is in the way of the chunks of {self.out}; choose another name")
        try:
            text = (self.folder / CARD).read_text(encoding="utf-8") if (self.folder / CARD).exists() else "null"
            card = json.loads(text)
        except OSError as error:
            raise KinemaError(f"cannot read {self.folder / CARD}: {reason(error)}") from error
        except ValueError:
            card = {}
        if card is not None and not {"asked", "seed", "recipe", "techniques", "sha256", "handed"} <= card.keys():
            raise KinemaError(f"{self.folder / CARD} is broken; remove the folder to make {self.out} anew")
        return card  # type: ignore[no-any-return]

    def _sound(self) -> dict[str, str]:
        """SHA-256 of the files that are as they were written, by name."""
        if self._card is None:
            return {}
        sums: dict[str, str] = self._card["sha256"]
        kept = {name: digest for name, digest in sums.items() if self._digest(name) == digest}
        # What a lost chunk was handed itself is gone, so that all are made anew.
        return {} if self._card["handed"] and len(kept) < len(sums) else kept

    def _digest(self, name: str) -> str | None:
        try:
            return sha256(self.folder / name)
        except OSError:
            return None

    def _refuse(self, what: str) -> None:
        raise KinemaError(
            f"{self.folder} holds {self.count} finished chunks of a video {what}; ask for that one again, remove the "
            "folder, or choose another name"
        )
