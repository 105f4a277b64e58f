"""A model call that techniques look at: what stands where, what beside the clip, and which frame reads which text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.attention import Positions, Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.features import Inside
from kinema.core.tokens import Tokens, levels_beside, places_beside

if TYPE_CHECKING:
    from kinema.backbones.base import DiffusersBackbone
    from kinema.backbones.protocol import Conditions


def velocity(
    backbone: DiffusersBackbone,
    taps: Taps,
    x: Tensor,
    t: float | Tensor,
    inputs: Mapping[str, Tensor],
    conditions: Conditions,
    branches: Sequence[frozenset[str]],
) -> Tensor:
    """The velocity of one branch of the guidance, or of several as one batch: what each of them leaves out.

    The first of them says whether they read the prompt, or frames read others instead.
    """
    own_text = "text" not in branches[0]
    inside = Inside(x, t, branches, taps.step.window, inputs.get("known_frames"))
    clip, texts, beside = x.shape[2], 1, list(taps.beside)
    if own_text and conditions.more_texts and any(technique.overrides("context") for technique in taps.techniques):
        inputs = {**inputs, **backbone.join_texts([backbone.text(conditions, frozenset()), *conditions.more_texts])}
        texts += len(conditions.more_texts)
    if beside:
        check(backbone, beside, conditions)
        t = levels_beside(t, x, beside)
        x = torch.cat([x, *(tokens.x.to(x).expand(len(x), -1, -1, -1, -1) for tokens in beside)], dim=2)
        inputs = {name: _longer(u, backbone.by_frame.get(name), x.shape[2] - clip) for name, u in inputs.items()}
    part = taps.step.window
    begins = 0 if part is None else part.first
    padding = max(backbone.padding - begins, 0)
    own = backbone.grid(x.shape)
    places = places_beside(own, beside, clip, backbone.patch)
    seen = dataclasses.replace(
        taps,
        positions=Positions(places, places, extra=len(own) * (x.shape[2] - clip) // x.shape[2]),
        own=own,
        padding=padding,
        frames=clip - padding,
        before=max(begins - backbone.padding, 0),
        whole=clip - padding if taps.step.run is None else taps.step.run.conditions.shape[2] - backbone.padding,
        patch=backbone.patch,
        texts=texts,
        owners=backbone.owners(inputs, texts) if texts > 1 else None,
        inside=inside,
    )
    if "text" in inputs:
        inputs = {**inputs, "text": seen.worded(inputs["text"])}
    token = current_taps.set(seen)
    try:
        return backbone.predict(x, t, inputs, conditions)[:, :, :clip]
    finally:
        current_taps.reset(token)


def _longer(u: Tensor, dim: int | None, frames: int) -> Tensor:
    """An input with zeros for frames beside the clip, where it has one entry a frame."""
    if dim is None:
        return u
    return torch.cat([u, torch.zeros_like(u.narrow(dim, 0, 1)).repeat_interleave(frames, dim)], dim)


def check(backbone: DiffusersBackbone, beside: Sequence[Tokens], conditions: Conditions) -> None:
    """Raises: KinemaError for latent frames that cannot stand beside the clip of these conditions."""
    batch, channels, clip, rows, columns = conditions.shape
    step, total = backbone.patch[0], clip + sum(tokens.frames for tokens in beside)
    for tokens in beside:
        shape = tuple(tokens.x.shape)
        if shape not in {(b, channels, tokens.frames, rows, columns) for b in (1, batch)} or tokens.frames % step:
            frames = "frames" if step == 1 else f"frames in groups of {step}"
            raise KinemaError(
                f"tokens beside the clip are {shape}; model {backbone.name!r} takes ({batch}, {channels}, {frames}, "
                f"{rows}, {columns}) latent cells here"
            )
        if tokens.places is not None and tuple(tokens.places.shape) != (tokens.frames, 3):
            raise KinemaError(
                f"places of tokens beside the clip are {tuple(tokens.places.shape)}; use ({tokens.frames}, 3): frame, "
                "row and column of each"
            )
        if tokens.t is not None and not 0 <= tokens.t <= 1:
            raise KinemaError(f"tokens beside the clip are at noise level {tokens.t}; use 0 to 1")
        if tokens.t is not None and not backbone.time_per_frame:
            raise KinemaError(
                f"model {backbone.name!r} has one noise level for the whole call; leave t of tokens beside the clip out"
            )
    most = backbone.most_tokens[0]
    if most is not None and total > most * step:
        raise KinemaError(f"clip and what stands beside it are {total} latent frames; this model has places for {most}")
