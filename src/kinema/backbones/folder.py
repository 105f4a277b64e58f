"""A model folder in diffusers layout: model_index.json and one subfolder a part, read as safetensors and JSON only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import KinemaError

INDEX = "model_index.json"
CLOCK = 1000  # the time that flow models are told at t = 1


@dataclass(frozen=True)
class Folder:
    """An opened model folder. Nothing but its index has been read yet."""

    path: Path
    name: str  # what the user called it
    index: Mapping[str, Any]  # model_index.json
    card: Mapping[str, Any]  # card.json, where there is one

    @classmethod
    def open(cls, path: Path, name: str) -> Folder:
        """Raises: KinemaError when there is no readable index, or it names no pipeline."""
        if not (path / INDEX).is_file():
            raise KinemaError(f"model {name!r} has no {INDEX}; give a folder in diffusers layout")
        index = _json(path / INDEX, name)
        if not isinstance(index.get("_class_name"), str):
            raise KinemaError(f"{INDEX} of model {name!r} names no pipeline class; it may be damaged")
        card = _json(path / "card.json", name) if (path / "card.json").is_file() else {}
        return cls(path, name, index, card)

    @property
    def pipeline(self) -> str:
        return str(self.index["_class_name"])

    def declared(self, part: str) -> str | None:
        """Class name of a part, None when the model has none."""
        entry = self.index.get(part)
        return entry[1] if isinstance(entry, list | tuple) and len(entry) == 2 else None

    def config(self, part: str, file: str = "config.json") -> dict[str, Any]:
        path = self.path / part / file
        if (self.path / part).is_file():
            raise KinemaError(
                f"{part} of model {self.name!r} is a link to another model's, which was checked out as a text; "
                "clone kinema again with git's core.symlinks on, or install it with pip"
            )
        if not path.is_file():
            raise KinemaError(f"model {self.name!r} has no {part}/{file}; it is not complete")
        return _json(path, self.name)

    def tokenizer(self, part: str = "tokenizer") -> Any:
        from transformers import AutoTokenizer

        self.config(part, "tokenizer_config.json")
        with self._reading(part):
            return AutoTokenizer.from_pretrained(self.path / part, local_files_only=True, trust_remote_code=False)

    def scheduler(self, *kinds: type, part: str = "scheduler") -> Any:
        """The scheduler, of one of the classes `kinds`."""
        kind = self.known(self.config(part, "scheduler_config.json").get("_class_name"), kinds, part)
        with self._reading(part):
            return kind.from_pretrained(self.path / part, local_files_only=True)

    def flow_scheduler(self, *kinds: type, inverted: bool = False, dynamic: bool = False) -> Any:
        """A scheduler whose levels are 0..1 and whose network gives velocities; anything else is another convention.

        inverted: its sigmas are the share of the data. dynamic: its shift may depend on the number of tokens.
        Raises: KinemaError for another kind, another clock than 1000, or noise from the global generator.
        """
        scheduler = self.scheduler(*kinds)
        config = scheduler.config
        velocities = config.get("prediction_type", "flow_prediction") == "flow_prediction"
        flow = velocities and config.get("use_flow_sigmas", True) and config.num_train_timesteps == CLOCK
        other = config.get("stochastic_sampling") or (config.get("use_dynamic_shifting") and not dynamic)
        if not flow or other or bool(config.get("invert_sigmas")) != inverted:
            shift = "" if dynamic else " with inverted sigmas" if inverted else " with a fixed shift"
            raise KinemaError(
                f"scheduler of model {self.name!r} is not a flow scheduler of {CLOCK} timesteps{shift}, as a "
                f"{self.pipeline} needs; take the one of its checkpoint"
            )
        return scheduler

    def processor(self, family: str, part: str = "image_processor") -> Any:
        """The picture preparation of an image encoder: a class of transformers whose name begins with `family`."""
        import transformers

        kinds = [
            getattr(transformers, name) for name in dir(transformers) if name.startswith(f"{family}ImageProcessor")
        ]
        kind = self.known(self.declared(part), kinds, part)
        with self._reading(part):
            return kind.from_pretrained(self.path / part, local_files_only=True)

    def reader(self, device: torch.device, dtype: torch.dtype) -> Callable[..., Any]:
        """`module` for one device and, unless a call says otherwise, one dtype: read(part, *kinds, dtype=...)."""

        def read(part: str, *kinds: type, dtype: torch.dtype = dtype) -> Any:
            return self.module(part, kinds, device, dtype)

        return read

    def module(
        self, part: str, kinds: Sequence[type], device: torch.device, dtype: torch.dtype, **options: Any
    ) -> torch.nn.Module:
        """A network, of one of the classes `kinds`, complete, in evaluation mode and without gradients.

        options: more for `from_pretrained` of its class.
        Raises: KinemaError when its class is unknown, a file is missing or damaged, or weights are missing.
        """
        config = self.config(part)
        kind = self.known(config.get("_class_name") or self.declared(part), kinds, part)
        if not any((self.path / part).glob("*.safetensors")):
            raise KinemaError(f"model {self.name!r} has no weights in {part}/; kinema reads safetensors only")
        options |= dict(use_safetensors=True, local_files_only=True, output_loading_info=True)
        options["torch_dtype" if hasattr(kind, "load_config") else "dtype"] = dtype  # diffusers or transformers
        with self._reading(part):
            module, info = kind.from_pretrained(self.path / part, **options)
        for trouble in ("missing_keys", "mismatched_keys"):
            if found := sorted(str(key) for key in info.get(trouble) or ()):
                what = trouble.removesuffix("_keys")
                raise KinemaError(f"{part} of model {self.name!r} has {len(found)} {what} weights, first {found[0]}")
        network: torch.nn.Module = module.to(device).eval().requires_grad_(False)
        return network

    def known(self, kind: Any, kinds: Sequence[type], part: str) -> Any:
        """That of the classes `kinds` whose name is `kind`. Raises: KinemaError when there is none."""
        known = {cls.__name__: cls for cls in kinds}
        if kind not in known:
            allowed = ", ".join(sorted(known))
            raise KinemaError(f"{part} of model {self.name!r} is a {kind}; kinema knows {allowed}")
        return known[kind]

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        """Silences progress bars and turns whatever a library raises over damaged files into one sentence."""
        with as_sentence(f"{part} of model {self.name!r} cannot be read"), no_progress_bars():
            yield


@contextmanager
def as_sentence(what: str) -> Iterator[None]:
    """Turns whatever a library raises over damaged files into one sentence that begins with `what`."""
    from safetensors import SafetensorError

    try:
        yield
    except KinemaError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise KinemaError(f"{what}: {lines[0]}") from error


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KinemaError(f"{path.parent.name}/{path.name} of model {name!r} cannot be read; is it damaged?") from error
    if not isinstance(found, dict):
        raise KinemaError(f"{path.parent.name}/{path.name} of model {name!r} holds no JSON object; is it damaged?")
    return found


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silences the bars that diffusers and transformers draw while they read and write weights."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in libraries:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in libraries:
            log.enable_progress_bar()
