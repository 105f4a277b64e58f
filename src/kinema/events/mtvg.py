"""One clip an event: each starts from the noise that its last frame, standing still, came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.chunk_prompts import one_an_event

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.backbones.protocol import Backbone
    from kinema.core.chunks import Chunk
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.request import Request


@technique("mtvg", paper="arXiv:2312.04086", base="LVDM", neutral=dict(structure=0.0))
@dataclass(frozen=True, kw_only=True)
class MTVG(Technique):
    """The noise of a clip is that of the last frame repeated, found by inversion; its estimate is smoothed in time.

    Inversion, from a level t up to s, without text: e = x + (1 - t) v, where for frame i > 0 it becomes
    a e / sqrt(1 + a^2) + n, n new noise of spread 1 / sqrt(1 + a^2), a = exp(-10 (i - 1) / (T - 2)) (dynamic noise); x0
    of frame 0 is drawn to that of the last frame by `anchor`; then x = (1 - s) x0 + s e. Sampling: for f = 0, 1, ... in
    turn x0_f += `structure` (x0_{f-1} - x0_f), where x0_{-1} is the last frame.
    Paper: "MTVG: Multi-text Video Generation with Text-to-Video Models", 2023, arXiv:2312.04086. Departures: its steps
    along the gradient of a squared error are the blends they amount to: 1000 on a latent of 4x32x32 is 0.49 (`anchor`),
    7 is 0.003 to 0.05 (`structure`). The noise keeps its variance; that of the authors' code has less. A clip begins at
    the noise e alone, also where a schedule begins a little below level 1.
    The last frame is encoded anew and its clean latents stand for the estimates of the last clip at each level, which
    a causal autoencoder has for groups of frames only. The first frame of a clip is the last one's last and is not
    shown. Events must follow each other without gaps.
    Shapes: latents (B, C, T, H, W).
    Raises: KinemaError before the first clip, for values out of range, and for events that do not follow each other.
    """

    anchor: float = 0.49  # how far frame 0 is drawn to the last frame in an inversion step, 0..1
    structure: float = 0.02  # how far each frame is drawn to the one ahead of it in a step, 0..1; 0 is none
    decay: float = 10.0  # of the inverted noise along the clip, no unit; 0 keeps it in all frames alike

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        if not (0 <= self.anchor <= 1 and 0 <= self.structure <= 1 and self.decay >= 0):
            raise KinemaError(f"{self.name} needs anchor and structure of 0 to 1 and decay of 0 or more")
        return one_an_event(backbone, request, self.name, overlap=1)

    def start(self, run: Run) -> None:
        if run.conditions.companion is not None:
            raise KinemaError(
                f"{self.name} inverts clips, and the {run.conditions.companion.name} of model {run.backbone.name!r} "
                "has no way back"
            )
        run.state[self] = None

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        if run.before is None or run.chunk.index == 0:
            return x
        still = run.before[:, -1:].expand(-1, run.conditions.num_frames, -1, -1, -1)
        latents = run.backbone.encode(as_video(still)).to(x)
        ahead = x.shape[2] - latents.shape[2]
        latents = torch.cat([latents[:, :, :1].expand(-1, -1, ahead, -1, -1), latents], dim=2)
        run.state[self] = latents[:, :, :1]
        return self._inverted(run, latents)

    def _inverted(self, run: Run, x: Tensor) -> Tensor:
        """The noise from which `x`, clean, comes without text; frames behind the first have more and more new noise."""
        levels = sorted({step.t for step in run.schedule} | {run.schedule[-1].t_next})
        text = frozenset({"text"}) & run.backbone.droppable
        along = torch.linspace(0, 1, x.shape[2] - 1, device=x.device, dtype=x.dtype)  # from frame 1 to the last
        kept = torch.exp(-self.decay * along)[:, None, None]
        share, spread = kept / (1 + kept**2) ** 0.5, 1 / (1 + kept**2) ** 0.5
        first, e = run.state[self], x
        for t, s in pairwise(levels):
            v = run.backbone.velocity(x, t or s, run.conditions, text)
            x0, e = run.path.clean(x, v, t), run.path.noise(x, v, t)
            noise = run.noise().to(x)
            e = torch.cat([e[:, :, :1], share * e[:, :, 1:] + spread * noise[:, :, 1:]], dim=2)
            x0 = torch.cat([x0[:, :, :1].lerp(first, self.anchor), x0[:, :, 1:]], dim=2)
            x = run.path.add_noise(x0, e, s)
        return e

    def clean(self, step: Step, x0: Tensor) -> Tensor:
        assert step.run is not None
        before = step.run.state[self]
        if before is None:
            return x0
        frames = [before.to(x0)]
        for f in range(x0.shape[2]):
            frames.append(x0[:, :, f : f + 1].lerp(frames[-1], self.structure))
        return torch.cat(frames[1:], dim=2)
