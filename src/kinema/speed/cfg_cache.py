"""Leave out the call without the prompt in most steps; its difference to the other call is kept from an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.run import Run

WITHOUT_TEXT = ("uncond", "no_text")  # branches, the second of `multi_cfg`


@technique(
    "cfg_cache",
    paper="arXiv:2410.19355",
    base="Open-Sora, Open-Sora-Plan, Latte, CogVideoX, Vchitect 2.0",
    neutral=dict(every=1),
)
@dataclass(frozen=True, kw_only=True)
class CFGCache(Technique):
    """u = c + low + high, with the low and the high frequencies of the last computed u - c, each made a bit stronger.

    A second branch without the text, as MinT's guidance has, is made in the same way.
    Paper: "FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality", 2024, arXiv:2410.19355,
    eq. 9 to 11; its other half is the technique faster_cache. Departures: the paper takes the outputs of the network,
    here they are velocities. As in the authors' code and in diffusers', a difference grows again in every step that it
    is used in, and the windows are diffusers': timesteps 641 (`noise_range`), 901 to 99 and below 301, in the
    levels of a flow model (about 0.76, 0.95 to 0.26 and 0.47 for CogVideoX).
    Shapes: velocities (B, C, T, H, W); frequencies are those of a frame's rows and columns.
    Raises: KinemaError at start, for values out of range, or for guidance without the branches cond and uncond.
    """

    works_on = ("cond", "uncond")
    noise_range: tuple[float, float] = (0.641, 0.0)
    every: int = 5  # steps from one computed u to the next; 1 computes all
    low_gain: float = 1.1  # of low frequencies while low_range[0] > t > low_range[1], no unit
    high_gain: float = 1.1  # of high frequencies while high_range[0] > t > high_range[1], no unit
    low_range: tuple[float, float] = (0.901, 0.099)  # noise levels, no unit
    high_range: tuple[float, float] = (0.301, 0.0)  # noise levels, no unit

    def start(self, run: Run) -> None:
        if self.every < 1:
            raise KinemaError(f"every of cfg_cache is {self.every}; use 1 or more")
        run.state[self] = {"step": -1, "calls": {}, "series": {}}

    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[[Tensor], Tensor]) -> Tensor:
        if branch not in ("cond", *WITHOUT_TEXT):
            return next(x)
        kept = self._series(step, x, branch)
        if branch == "cond":
            given = next(x)
            kept["cond"], kept["step"] = given, step.index
            return given
        if kept.get("step") != step.index:  # cond is called before the others, or not at all
            return next(x)
        cond: Tensor = kept["cond"]
        own = kept.setdefault(branch, {})
        if own and step.index - own["computed"] < self.every:
            own["low"] = own["low"] * (self.low_gain if self.low_range[0] > step.t > self.low_range[1] else 1.0)
            own["high"] = own["high"] * (self.high_gain if self.high_range[0] > step.t > self.high_range[1] else 1.0)
            approximated: Tensor = cond + own["low"] + own["high"]
            return approximated
        uncond = next(x)
        own["low"], own["high"] = split(uncond - cond)
        own["computed"] = step.index
        return uncond

    def _series(self, step: Step, x: Tensor, branch: str) -> dict[str, Any]:
        """What belongs to this call: of several calls of a branch in one step, each has its own."""
        assert step.run is not None
        state = step.run.state[self]
        if state["step"] != step.index:
            state.update(step=step.index, calls={})
        nth = state["calls"][branch] = state["calls"].get(branch, -1) + 1
        kept: dict[str, Any] = state["series"].setdefault((nth, tuple(x.shape)), {})
        return kept


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high frequencies of frames (..., H, W), whose sum is x; low is within a fifth of the shorter side."""
    rows, columns = x.shape[-2:]
    y = torch.arange(rows, device=x.device) - rows // 2
    z = torch.arange(columns, device=x.device) - columns // 2
    near = y[:, None] ** 2 + z[None] ** 2 <= (min(rows, columns) // 5) ** 2
    spectrum = torch.fft.fft2(x.double() if x.dtype == torch.float64 else x.float())
    low = torch.fft.ifft2(spectrum * torch.fft.ifftshift(near)).real.to(x.dtype)
    return low, x - low
