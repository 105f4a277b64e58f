"""What stands beside the clip in a model call: references, memory of earlier clips, subjects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Latent frames that go through the network behind the clip's last one and are cut off what it gives.

    The clip's tokens and theirs see each other wherever tokens of the clip do; where they seem to stand is theirs to
    say. They read the request's own prompt. Whatever a family gives its clip frame by frame (a picture beside the
    latents) is nothing for them.
    """

    x: Tensor  # (B or 1, C, T', H, W): rows and columns as the clip has; T' whole tokens of the model
    t: float | None = None  # noise level told to the network for them, 0..1; None is the clip's
    places: Tensor | None = None  # (T', 3): frame, row, column of the first cell of each, latent cells, any number

    @property
    def frames(self) -> int:
        return int(self.x.shape[2])


def places_beside(own: Tensor, beside: list[Tokens], clip: int, patch: tuple[int, int, int]) -> Tensor:
    """Where the tokens of a call stand, (L, 3); the object `own` itself where nothing asks for places.

    own: (L, 3), the places that the model gives to the clip and to what follows. clip: latent frames of the clip, with
    any before its first.
    """
    if all(tokens.places is None for tokens in beside):
        return own
    frame, moved, start = own[:, 0], own.double().clone(), clip
    for tokens in beside:
        for j in range(0, tokens.frames, patch[0]):
            if tokens.places is not None:
                mine = frame == start + j
                corner = own.new_tensor([start + j, 0, 0])
                moved[mine] = (own[mine] - corner).double() + tokens.places[j].to(moved)
        start += tokens.frames
    return moved


def levels_beside(t: float | Tensor, x: Tensor, beside: list[Tokens]) -> float | Tensor:
    """Noise levels of a call: `t` of the clip x (B, C, T, H, W), and one a frame, (B, T + T'), where others differ."""
    if all(tokens.t is None for tokens in beside):
        return t
    own = torch.as_tensor(t, dtype=torch.float64, device=x.device)
    own = own.reshape(-1, 1) if own.ndim < 2 else own
    own = own.expand(x.shape[0], x.shape[2])
    levels = [own]
    for tokens in beside:
        level = own.amax(dim=1, keepdim=True) if tokens.t is None else torch.full_like(own[:, :1], tokens.t)
        levels.append(level.expand(-1, tokens.frames))
    return torch.cat(levels, dim=1)
