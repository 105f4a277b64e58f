"""A network of a model folder built of its config alone, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from kinema.backbones.folder import as_sentence

if TYPE_CHECKING:
    from kinema.backbones.folder import Folder


def build(folder: Folder, part: str, kinds: Sequence[type], dtype: torch.dtype) -> torch.nn.Module:
    """A network of one of the classes `kinds`: its parameters on no device, in the types they will be computed in.

    Buffers are what the class makes of its config. Raises: KinemaError when the class or its config is unknown.
    """
    from accelerate import init_empty_weights

    config = folder.config(part)
    kind = folder.known(config.get("_class_name") or folder.declared(part), kinds, part)
    what = f"{part} of model {folder.name!r} cannot be built"
    with as_sentence(what), _default(dtype), init_empty_weights(include_buffers=False), _EmptyNowhere():
        if hasattr(kind, "load_config"):  # diffusers, else transformers
            network = kind.from_config(config)
        else:
            settings = kind.config_class.from_pretrained(folder.path / part, local_files_only=True)
            settings.dtype = dtype
            network = kind(settings)
    if hasattr(network, "tie_weights"):  # `init_empty_weights` makes two of what was one
        network.tie_weights()
    _set_types(network, kind, dtype)
    built: torch.nn.Module = network.eval().requires_grad_(False)
    return built


class _EmptyNowhere(TorchFunctionMode):
    """Takes no memory for parameters that are about to be moved nowhere; buffers are never made by `torch.empty`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if function is torch.empty:
            named["device"] = "meta"
        return function(*args, **named)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _set_types(network: torch.nn.Module, kind: Any, dtype: torch.dtype) -> None:
    """Number types as the libraries set them when they read the weights; some layers stay in float32."""
    kept: list[str] = list(getattr(kind, "_keep_in_fp32_modules", None) or ())
    if not hasattr(kind, "load_config"):
        kept = kept if dtype == torch.float16 else []
        kept += list(getattr(kind, "_keep_in_fp32_modules_strict", None) or ())
    stored = network.state_dict().keys()
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name in stored and tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if set(kept) & set(name.split(".")) else dtype)
