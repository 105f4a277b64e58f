"""Networks of transformers, from the hub or from a folder in the hub's layout. Safetensors only, no remote code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core.errors import KinemaError, Unreachable
from kinema.core.optional import library
from kinema.layers.pixels import device

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def local(name: str, model: str) -> Path | None:
    """The file or folder that `model` names; None when it is the id of a model on the hub.

    A path is what exists, or what begins with ./ ../ ~ or /.
    Raises: KinemaError when nothing is at that path, or it is neither a path nor an id.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.startswith((".", "/", "~")):
        raise KinemaError(f"extractor {name}@{model}: there is no file or folder {path}")
    if not HUB_ID.fullmatch(model):
        raise KinemaError(f"extractor {name}@{model}: {model!r} is neither a hub id (owner/name) nor a folder")
    return None


def fetch(name: str, model: str, file: str, revision: str | None = None) -> tuple[Path, bool]:
    """A file of a model on the hub, and whether the hub answers; the copy on this machine when it does not.

    Raises: Unreachable, one sentence, when there is neither.
    """
    import httpx
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    answers = True
    try:
        try:
            HfApi().model_info(model, timeout=10)  # asked once: a download tries again and again for half a minute
        except (HfHubHTTPError, HFValidationError):
            raise
        except (OSError, httpx.TransportError):
            answers = False
        return Path(hf_hub_download(model, file, revision=revision, local_files_only=not answers)), answers
    except (HfHubHTTPError, HFValidationError) as error:
        why = f"the hub answered: {line(error)}"
    except (OSError, httpx.TransportError) as error:
        why = "the hub cannot be reached and there is no copy on this machine"
        if answers:
            why = f"fetching it failed: {line(error)}"
    raise unreachable(name, model, why)


def unreachable(name: str, model: str, why: str) -> Unreachable:
    return Unreachable(f"extractor {name} needs {model}, and {why}; give a folder that holds it with {name}@/path")


@dataclass(frozen=True)
class Source:
    """A model of transformers: its place, and its configuration, read already."""

    name: str  # of the extractor
    model: str  # as the user named it
    folder: Path | None  # None for a model on the hub
    offline: bool  # a folder, or the hub does not answer: nothing is fetched
    config: Mapping[str, Any]  # config.json

    @classmethod
    def open(cls, name: str, model: str) -> Source:
        """Raises: Unreachable when the hub does not give it, KinemaError when the folder is damaged."""
        library("transformers")
        path = local(name, model)
        if path is None:
            file, answers = fetch(name, model, "config.json")
        else:
            file, answers = path / "config.json", False
            if not file.is_file():
                raise KinemaError(f"extractor {name}@{model}: {path} has no config.json; give a folder as the hub's")
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise KinemaError(f"extractor {name}@{model}: config.json cannot be read; is it damaged?") from error
        return cls(name, model, path, not answers, config)

    def network(self, kinds: Mapping[str, str], **options: Any) -> Any:
        """The network, complete, in float32, in evaluation mode and without gradients.

        kinds: model type of config.json -> class of transformers. options: more for its `from_pretrained`.
        Raises: KinemaError for another type or missing weights, Unreachable when they cannot be fetched.
        """
        kind = str(self.config.get("model_type"))
        if kind not in kinds:
            raise KinemaError(f"{self._title} is a model of type {kind}; {self.name} takes {', '.join(sorted(kinds))}")
        options |= dict(use_safetensors=True, output_loading_info=True, dtype=torch.float32)
        with self._reading("weights"):
            network, info = self._class(kinds[kind]).from_pretrained(self._place, **self._only, **options)
        if missing := sorted(str(key) for key in info.get("missing_keys") or ()):
            raise KinemaError(f"{self._title} lacks {len(missing)} weights, first {missing[0]}")
        found: nn.Module = network.to(device()).eval().requires_grad_(False)
        return found

    def preparation(self) -> Preparation:
        """What turns frames into input, as the model's own preprocessor_config.json says; torchvision is not used."""
        with self._reading("preprocessor_config.json"):
            kind = self._class("AutoImageProcessor")
            return Preparation(kind.from_pretrained(self._place, backend="pil", **self._only))

    def processor(self) -> Any:
        """What turns pictures and a conversation into the input of a vision-language model."""
        with self._reading("processor"):
            return self._class("AutoProcessor").from_pretrained(self._place, trust_remote_code=False, **self._only)

    def tokenizer(self) -> Any:
        with self._reading("tokenizer"):
            return self._class("AutoTokenizer").from_pretrained(self._place, trust_remote_code=False, **self._only)

    @property
    def _title(self) -> str:
        return f"extractor {self.name}@{self.model}"

    @property
    def _place(self) -> str:
        return str(self.folder or self.model)

    @property
    def _only(self) -> dict[str, bool]:
        return {"local_files_only": True} if self.offline else {}

    def _class(self, name: str) -> Any:
        return getattr(library("transformers"), name)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """One sentence for whatever a library raises over files that are damaged, missing or not to be had."""
        from safetensors import SafetensorError

        try:
            with _no_progress_bars():
                yield
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, ImportError, SafetensorError) as error:
            why = f"its {what} cannot be read: {line(error)}"
            if self.folder is None:
                raise unreachable(self.name, self.model, why) from error
            raise KinemaError(f"{self._title}: {why}") from error


@dataclass(frozen=True)
class Preparation:
    """Resizing, cropping and normalising as a checkpoint wants it, by the image processor of transformers."""

    processor: Any

    def __call__(self, frames: np.ndarray) -> Tensor:
        """(T, H, W, 3) uint8 -> (T, 3, h, w) float32, on the device."""
        ready = self.processor(list(frames), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        pixels: Tensor = ready.reshape(len(frames), *ready.shape[-3:])  # processors of video put a batch in front
        return pixels.to(device())


def line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(" .:")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    logging = library("transformers").utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
