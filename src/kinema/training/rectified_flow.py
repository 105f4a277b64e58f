"""The objective of stage 2: rectified flow in which every latent frame has its own time.

The path and its arithmetic are `kinema.core.path`; here is what only training needs.
Times are logit-normal and shifted towards noise: "Scaling Rectified Flow Transformers for High-Resolution Image
Synthesis", Esser et al., 2024, arXiv:2403.03206, section 3.1 and equation 23. Frames with time 0 are conditions,
as the first frame of Wan 2.2 TI2V is: given clean and not part of the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.path import RectifiedFlow, shift_times

TIMESTEPS = 1000.0  # diffusers' Wan models read t * 1000
FLOW = RectifiedFlow()
LOSS_BUCKETS = 5  # equal parts of 0..1 for which the loss is logged apart


def sample_times(
    batch: int, shift: float, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Times (B,) in 0..1: sigmoid(mean + std * normal), shifted; one for each clip of the batch.

    The normal numbers are spread over the quantiles (one in each B-th part, in random order), which leaves the
    distribution as it is and makes the loss of a batch less noisy: "Variational Diffusion Models", Kingma et
    al., 2021, arXiv:2107.00630, appendix I.1.
    """
    offset = torch.rand(1, generator=generator)
    order = torch.randperm(batch, generator=generator)
    uniform = ((order + offset) / batch).clamp(1e-4, 1 - 1e-4)
    return shift_times(torch.sigmoid(mean + std * torch.special.ndtri(uniform)), shift)


def clean_frames(batch: int, frames: int, generator: torch.Generator) -> Tensor:
    """Which latent frames are given clean, (B, T) bool: half the clips the first, a quarter the first k of
    2..T-1, a quarter the first and the last. Never all of them; needs at least 2 frames.

    Raises: ValueError for a single frame, of which nothing would be left to learn.
    """
    if frames < 2:
        raise ValueError(f"a clip of {frames} latent frame cannot have a clean one and one to learn; use 2 or more")
    given = torch.zeros(batch, frames, dtype=torch.bool)
    given[:, 0] = True
    if frames == 2:
        return given
    choice = torch.rand(batch, generator=generator)
    first = torch.randint(2, frames, (batch,), generator=generator)  # k of "the first k", 2..T-1
    index = torch.arange(frames)
    given |= (choice >= 0.5)[:, None] & (choice < 0.75)[:, None] & (index < first[:, None])
    given[:, -1] |= choice >= 0.75
    return given


def frame_times(t: Tensor, given: Tensor) -> Tensor:
    """Times of the frames (B, T): 0 for given frames (B, T bool), the clip's own t (B,) for the others."""
    return t[:, None] * ~given


def token_timesteps(times: Tensor, rows: int, cols: int) -> Tensor:
    """What `WanTransformer3DModel` is given for times (B, T): t * 1000 for each token, (B, T * rows * cols).

    Where all frames of every clip have one time it is (B,) instead: the same function of the same numbers, with
    modulations computed once a clip and not once a token.
    """
    if bool((times == times[:, :1]).all()):
        return times[:, 0] * TIMESTEPS
    return (times * TIMESTEPS).repeat_interleave(rows * cols, dim=1)


def velocity_loss(velocity: Tensor, x0: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error to noise - x0 over the frames with a time above 0: the batch's mean and each clip's (B,).

    Every frame that is not given counts the same, whichever clip it is in.
    """
    error = (velocity.float() - FLOW.velocity(x0.float(), noise.float())).square().mean(dim=(1, 3, 4))  # (B, T)
    learned = (times > 0).to(error.dtype)
    clips = (error * learned).sum(1) / learned.sum(1).clamp_min(1)
    return (error * learned).sum() / learned.sum().clamp_min(1), clips


def bucket_losses(clips: Tensor, t: Tensor) -> dict[str, float]:
    """Mean of the clips' losses (B,) for each fifth of 0..1 that a time t (B,) fell into; empty ones left out."""
    index = (t * LOSS_BUCKETS).long().clamp(0, LOSS_BUCKETS - 1)
    found: dict[str, float] = {}
    for k in range(LOSS_BUCKETS):
        chosen = clips[index == k]
        if len(chosen):
            found[f"loss_t{k / LOSS_BUCKETS:.1f}"] = float(chosen.mean())
    return found
