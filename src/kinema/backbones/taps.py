"""Attention opened for techniques through diffusers' attention processors, the same way for every family.

The processors are put in only while a run asks for attention and are taken out again when the last such run ends. A
site that nobody acts on in the current step goes through diffusers' own processor, so that it costs nothing.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from kinema.core.attention import SHARED, Site, Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions, followed

# A kind of attention in a block -> what goes through that block beside the video, by the name of its argument.
SECOND = {"joint": "encoder_hidden_states", "sound_self": "audio_hidden_states"}


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

    def dispatch(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """diffusers' attention of q, k and v, each (B, L, N, D), by the backend the model was set to."""
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        attended: Tensor = dispatch_attention_fn(
            q,
            k,
            v,
            attn_mask=mask,
            backend=getattr(self.original, "_attention_backend", None),
        )
        return attended

    def masked(
        self, mask: Tensor | None, bias: Tensor | None, positions: Positions | None, q: Tensor, k: Tensor
    ) -> Tensor | None:
        """What attention of q and k, (B, L, N, D), is told beside them: the model's mask, and the bias of techniques.

        mask: of the whole sequence, (B or 1, N or 1, Lq or 1, Lk or 1), bool or added to logits.
        """
        if mask is not None:
            mask = followed(mask, (q.shape[1], k.shape[1]), positions)
        if mask is None or bias is None:
            return bias if mask is None else mask
        return torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else mask + bias

    def read_apart(
        self,
        reads: Tensor,
        owners: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        bias: Tensor | None,
        text_first: bool = False,
    ) -> Tensor:
        """Joint attention in which video tokens read different texts, of q, k and v (B, L + P, N, D) or a part of them.

        reads: (L, texts), which video token reads which text. owners: (B or 1, P), see `Taps.owners`. Video is seen by
        all, a text by itself and by whoever reads it; what is shared reads as the first text does. Tokens that see the
        same go through attention together, so that no mask over all pairs is made.
        """
        tokens, texts = reads.shape
        out, shape = torch.empty_like(q), (q.shape[1], k.shape[1])
        video = owners.new_full((tokens,), SHARED)
        for i, owner in enumerate(owners.expand(len(q), -1)):
            own = torch.nn.functional.one_hot(owner.clamp(min=0), texts).bool()
            order = -1 if text_first else 1
            belongs, sees = (torch.cat(pair[::order]) for pair in ((video, owner), (reads, own)))
            groups, group = torch.unique(sees, dim=0, return_inverse=True)
            group = followed(group[:, None], shape, positions)[:, 0]
            belongs = followed(belongs[None], shape, positions)[0]
            for j, texts_seen in enumerate(groups):
                seen = (belongs == SHARED) | ((belongs >= 0) & texts_seen[belongs.clamp(min=0)])
                mine = group == j
                if mine.any():
                    more = picked(bias, i, mine, seen)
                    out[i, mine] = self.dispatch(q[i : i + 1, mine], k[i : i + 1, seen], v[i : i + 1, seen], more)[0]
        return out


def picked(bias: Tensor | None, sample: int, queries: Tensor, keys: Tensor) -> Tensor | None:
    """A bias (B or 1, N or 1, Lq or 1, Lk or 1) for some tokens of one sample; queries and keys: one bool a token."""
    if bias is None:
        return None
    mine = bias if len(bias) == 1 else bias[sample : sample + 1]
    mine = mine if mine.shape[2] == 1 else mine[:, :, queries]
    return mine if mine.shape[3] == 1 else mine[:, :, :, keys]


class AttentionDoor:
    """Opens a model to the runs that want to see it, and closes it after the last.

    attentions: every site with its module; `processor` stands in for theirs. blocks: what the hook `skip` may leave
    out, and behind which features are seen. readers: modules that read a text as a whole; they get several texts one by
    one. passages: modules behind which features are seen as maps, where there are no blocks.
    """

    def __init__(
        self,
        attentions: Iterable[tuple[Site, Any]],
        processor: type[TappedProcessor],
        blocks: Iterable[tuple[int, torch.nn.Module]] = (),
        readers: Iterable[torch.nn.Module] = (),
        passages: Iterable[tuple[int, torch.nn.Module]] = (),
    ) -> None:
        self._attentions, self._blocks, self._readers = list(attentions), list(blocks), list(readers)
        self._passages = list(passages)
        self._processor = processor
        self._open = 0
        self._lock = threading.Lock()
        self._undo: list[Callable[[], None]] = []

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

    def leave_uncompiled(self) -> None:
        """Keeps torch.compile out of the processors, and so of what techniques do in them."""
        call = torch.compiler.disable(self._processor.__call__)  # type: ignore[no-untyped-call]
        self._processor = type(self._processor.__name__, (self._processor,), {"__call__": call})

    def _install(self) -> None:
        if any(getattr(attn, "fused_projections", False) for _, attn in self._attentions):
            raise KinemaError("the attention projections of the model are fused; call unfuse_qkv_projections() first")
        for site, attn in self._attentions:
            self._undo.append(partial(_set, attn, attn.processor))
            _set(attn, self._processor(site, attn.processor))
        second = {site.block: SECOND[site.kind] for site, _ in self._attentions if site.kind in SECOND}
        for index, block in self._blocks:
            self._undo.append(_opened(block, partial(_as_tokens, index=index, second=second.get(index))))
        for index, module in self._passages:
            self._undo.append(_opened(module, partial(_as_maps, index=index)))
        for module in self._readers:
            self._undo.append(module.register_forward_pre_hook(_one_by_one, with_kwargs=True).remove)
            self._undo.append(module.register_forward_hook(_together).remove)

    def _restore(self) -> None:
        while self._undo:
            self._undo.pop()()


def _set(attn: Any, processor: Any) -> None:
    """Gives an attention a processor; some of diffusers' attentions (Mochi's) have no method for it."""
    if hasattr(attn, "set_processor"):
        attn.set_processor(processor)
    else:
        attn.processor = processor


def _opened(block: torch.nn.Module, around: Callable[..., Any]) -> Callable[[], None]:
    """Lets taps act around a block, `around(taps, inner, signature, args, named)`; returns what undoes it."""
    inner, own, signature = block.forward, "forward" in vars(block), inspect.signature(block.forward)

    @wraps(inner)
    def forward(*args: Any, **named: Any) -> Any:
        taps = current_taps.get()
        return inner(*args, **named) if taps is None else around(taps, inner, signature, args, named)

    def undo() -> None:
        if own:
            block.forward = inner
        else:
            del block.forward

    vars(forward).update(inner=inner if own else None, put_on=partial(_opened, around=around))  # for its twin
    block.forward = forward
    return undo


def _as_tokens(
    taps: Taps, inner: Any, signature: inspect.Signature, args: Any, named: Any, *, index: int, second: str | None
) -> Any:
    """A block of tokens, which may be left out. second: what it gives back beside the video."""
    if taps.skips(index):
        given = signature.bind(*args, **named).arguments
        found = given["hidden_states"] if second is None else (given["hidden_states"], given[second])
    else:
        found = inner(*args, **named)
    if not taps.looks_inside or taps.inside is None:
        return found
    h, *others = found if isinstance(found, tuple) else (found,)
    frames, rows, columns = (n // p for n, p in zip(taps.inside.x.shape[2:], taps.patch, strict=True))
    h = taps.passing(index, h, (frames, rows, columns))
    return (h, *others) if isinstance(found, tuple) else h


def _as_maps(taps: Taps, inner: Any, signature: Any, args: Any, named: Any, *, index: int) -> Any:
    """A module of a U-Net whose output is (B T, C, H, W)."""
    found = inner(*args, **named)
    if not taps.looks_inside or taps.inside is None:
        return found
    h, *others = found if isinstance(found, tuple) else (found,)
    frames, (rows, columns) = taps.inside.x.shape[2], h.shape[2:]
    flat = h.reshape(-1, frames, *h.shape[1:]).permute(0, 1, 3, 4, 2).flatten(1, 3)
    flat = taps.passing(index, flat, (frames, rows, columns))
    # In the order of memory that it had: convolutions round otherwise in another.
    order = torch.contiguous_format if h.is_contiguous() else torch.channels_last
    h = flat.reshape(len(flat), frames, rows, columns, -1).permute(0, 1, 4, 2, 3).flatten(0, 1)
    h = h.contiguous(memory_format=order)
    return (h, *others) if isinstance(found, tuple) else h


def _one_by_one(module: Any, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Texts that stand one behind the other, (B, texts P, ...), become samples, (B texts, P, ...)."""
    taps = current_taps.get()
    texts = 1 if taps is None else taps.texts

    def apart(u: Any) -> Any:
        if texts == 1 or not isinstance(u, Tensor):
            return u
        return u.repeat_interleave(texts, 0) if u.ndim == 1 else u.reshape(len(u) * texts, -1, *u.shape[2:])

    return tuple(map(apart, args)), {name: apart(u) for name, u in named.items()}


def _together(module: Any, args: Any, output: Any) -> Any:
    """And back; of what sums a text up, (B texts, D), the first text's is kept, which is the request's own."""
    taps = current_taps.get()
    texts = 1 if taps is None else taps.texts

    def behind(u: Tensor) -> Tensor:
        return u[::texts] if u.ndim == 2 else u.reshape(len(u) // texts, -1, u.shape[2])

    if texts == 1:
        return output
    return tuple(map(behind, output)) if isinstance(output, tuple) else behind(output)
