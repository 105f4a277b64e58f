"""Every scene's caption is read by the frames of that scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.events import events_of

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.attention import Site
    from kinema.core.run import Run
    from kinema.core.technique import Step


@technique("talc", paper="arXiv:2405.04682", base="ModelScope T2V", neutral=dict())
@dataclass(frozen=True, kw_only=True)
class TALC(Technique):
    """Latent frame t reads the texts of the events it belongs to, and the whole prompt where it belongs to none.

    Paper: "TALC: Time-Aligned Captions for Multi-Scene Text-to-Video Generation", 2024, arXiv:2405.04682, without its
    fine-tuning. Departures: scenes need not be of one length, they are the events of the prompt's timeline; the paper
    repeats the embeddings for the frames that its cross-attention sees one by one, and where frames are seen together
    it is a mask of the attention that says who reads what. A summary of the prompt that a network is told beside its
    tokens stays that of the whole prompt. The branch without the prompt is as it was.
    Shapes: (events, T) bool, which latent frame reads which text.
    Raises: KinemaError at start, for a batch with several prompts, and for an event too short for a latent frame.
    """

    def start(self, run: Run) -> None:
        found = run.state[self] = events_of(run, self.name)
        run.read_texts(found.texts if len(found.texts) > 1 else [])

    def context(self, step: Step, site: Site, frames: int) -> Tensor | None:
        assert step.run is not None
        table: Tensor = step.run.state[self].frames
        return table
