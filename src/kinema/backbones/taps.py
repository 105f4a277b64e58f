"""Attention opened for techniques through diffusers' attention processors, the same way for every family.

The processors are put in only while a run asks for attention and are taken out again when the last such run ends. A
site that nobody acts on in the current step goes through diffusers' own processor, so that it costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from kinema.core.attention import Site, Taps, current_taps
from kinema.core.errors import KinemaError


class TappedProcessor:
    """Stands in for the processor of one attention while runs want to see it. A family writes its `__call__`."""

    def __init__(self, site: Site, original: Any) -> None:
        self.site = site
        self.original = original

    def acting(self) -> Taps | None:
        """The taps of the run in progress, None when nobody acts here: then `original` is called as it is.

        A subclass's `__call__` has the parameters of the processor it stands for, because diffusers reads them.
        """
        taps = current_taps.get()
        return taps if taps is not None and taps.acts(self.site) else None

    def dispatch(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, parallel: bool = True) -> Tensor:
        """diffusers' attention of q, k and v, each (B, L, N, D), by the backend the model was set to."""
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        attended: Tensor = dispatch_attention_fn(
            q,
            k,
            v,
            attn_mask=mask,
            backend=getattr(self.original, "_attention_backend", None),
            parallel_config=getattr(self.original, "_parallel_config", None) if parallel else None,
        )
        return attended


class AttentionDoor:
    """Opens the attentions of a model to the runs that want them, and closes them after the last."""

    def __init__(self, attentions: Iterable[tuple[Site, Any]], processor: type[TappedProcessor]) -> None:
        self._attentions = list(attentions)
        self._processor = processor
        self._open = 0
        self._lock = threading.Lock()
        self._originals: list[tuple[Any, Any]] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        with self._lock:
            if self._open == 0:
                self._install()
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    self._restore()

    def _install(self) -> None:
        if any(getattr(attn, "fused_projections", False) for _, attn in self._attentions):
            raise KinemaError("the attention projections of the model are fused; call unfuse_qkv_projections() first")
        for site, attn in self._attentions:
            self._originals.append((attn, attn.processor))
            _set(attn, self._processor(site, attn.processor))

    def _restore(self) -> None:
        while self._originals:
            attn, original = self._originals.pop()
            _set(attn, original)


def _set(attn: Any, processor: Any) -> None:
    """Gives an attention a processor; some of diffusers' attentions (Mochi's) have no method for it."""
    if hasattr(attn, "set_processor"):
        attn.set_processor(processor)
    else:
        attn.processor = processor
