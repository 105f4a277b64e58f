"""The motion of a reference clip, kept in positions: found once, and used again with any prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.layers import step_tables
from kinema.layers.reading import clip_tokens, read_attention, self_attentions
from kinema.layers.rotary_pairs import reproduces, table_of, turned
from kinema.motion.transfer import FIRST, Following, MotionTransfer

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step, Technique
    from kinema.layers.reading import Seen


@dataclass(kw_only=True)
class Placed(Following):
    """The same, and the rotary tables of the run."""

    table: Tensor | None  # of the step in progress, before the first the model's own, (2, 2, N or 1, L, D)
    given: list[Tensor]  # by guided step, where they come from a file
    kept: list[Tensor] = field(default_factory=list)  # by guided step, as they were optimised


@technique(
    "ditflow_positions",
    paper="arXiv:2412.07776",
    base="CogVideoX-2B, CogVideoX-5B",
    neutral=dict(iterations=0, inject=False),
)
@dataclass(frozen=True, kw_only=True)
class DiTFlowPositions(MotionTransfer):
    """R <- R - lr * Adam(d/dR |F(x; R) - F_ref|^2), for the rotary tables R of queries and of keys.

    The flows F and the injection are those of `ditflow`. What is optimised are the numbers cos and sin by which queries
    and keys are turned, in all blocks alike and held to no circle; queries and keys have tables of their own, as a
    common one cancels. Each guided step goes on from the tables of the last one, and behind the range the model has its
    own again. With `save` they are kept, and `tables` uses them with any prompt, without gradients; the reference is
    then only needed to be injected.
    Paper: "Video Motion Transfer with Diffusion Transformers", 2024, arXiv:2412.07776, section 3.4, and its authors'
    code for what it leaves open. Departures: those of `ditflow`, without the one on the size of latents; models that
    add positions to their tokens (CogVideoX 2B, where the paper optimises that table) are refused, and so are those
    that do not turn neighbouring channels. Where heads have frequencies of their own, they get tables of their own.
    Shapes: a table is (2, 2, N or 1, L, D), queries and keys, cos and sin, for the L tokens of the clip.
    Raises: KinemaError at start, for values out of range, a reference that is not there, tables of another grid, length
    or list of steps, a model of another kind, several clips at once without tables, or techniques that move tokens or
    show the clip in windows.
    """

    files = ("reference", "tables")
    conflicts = ("ditflow", "token_merging", "freenoise")  # the others merge or move places, which this one rules

    tables: str = ""  # a file that `save` has written: these tables, and nothing is optimised
    save: str = ""  # where the tables go, safetensors

    @property
    def optimises(self) -> bool:
        return self.iterations > 0 and not self.tables

    @property
    def injects(self) -> bool:
        return self.inject and bool(self.reference or not self.tables)

    def start(self, run: Run) -> None:
        super().start(run)
        state, table, given = run.state[self], None, []
        if self.tables and self.save:
            raise KinemaError(
                f"{self.name} has both tables and save, and makes no new ones then; leave one of them out"
            )
        if self.save:
            step_tables.check_place(self.save, [self.reference])
        if self.optimises and len(run.requests) > 1:
            raise KinemaError(
                f"{self.name} finds tables for one clip, and {len(run.requests)} are asked for; ask for one, or give "
                "tables"
            )
        if self.optimises or self.tables:
            self._refuse_moved(run.techniques)
            table = self._own_table(run, state)
        if self.tables:
            given = step_tables.load(self.tables, self.name, self._belongs(run, state), f"tables of {self.name}")
            if any(table is None or u.shape != table.shape for u in given):
                raise KinemaError(
                    f"tables of {self.name} {self.tables} are for a model with other heads than {run.backbone.name!r}"
                )
        run.state[self] = Placed(**vars(state), table=table, given=given)

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        state: Placed = step.run.state[self]
        x = super().before_step(step, x)
        if self.save and state.table is not None:
            state.kept.append(state.table.cpu())
        if self.tables:
            place = [guided.index for guided in state.steps].index(step.index)
            state.table = state.given[place].to(x.device)
        return x

    def follow(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None and x is not None
        state: Placed = step.run.state[self]

        def error(table: Tensor) -> Tensor:
            state.table = table
            return self.error(step, x)

        assert state.table is not None
        state.table = self.optimised(step, state.table, error)
        return x

    def finish(self, run: Run, x: Tensor) -> Tensor:
        state: Placed = run.state[self]
        if self.save and state.kept:
            step_tables.save(self.save, self.name, state.kept, self._belongs(run, state))
        return x

    def attend(
        self,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        next: Attention,
    ) -> Tensor:
        assert step.run is not None
        state: Placed = step.run.state[self]
        k, v = self.injected(step, site, k, v, positions)
        if state.table is None or positions is None:
            return next(q, k, v, positions)
        q_own, k_own = next.turn(q, k, positions)
        q = _placed(q, q_own, positions, "q", state.table[0])
        # Injected keys stand where the model itself has them, as they do in the authors' code.
        injected = state.injected is not None and site.block == FIRST
        k = k_own if injected else _placed(k, k_own, positions, "k", state.table[1])
        return next(q, k, v, replace(positions, turned=True))

    def _refuse_moved(self, techniques: Sequence[Technique]) -> None:
        for other in techniques:
            if other.windowed or other.overrides("positions"):
                does = "shows the clip in windows" if other.windowed else "moves tokens"
                raise KinemaError(
                    f"{self.name} has a table for the place of every token, and {other.name} {does}; leave one out"
                )

    def _own_table(self, run: Run, state: Following) -> Tensor:
        """The model's own rotary table, for queries and keys. Raises: KinemaError when it is none of the usual kind."""
        model = f"model {run.backbone.name!r}"
        with torch.no_grad():
            x = torch.zeros(run.conditions.shape, device=run.backbone.device)
            read = read_attention(run, state.steps[0], x, self_attentions(run))
        first = read[0]
        table = table_of(partial(_side, first, 0), first.q)
        for seen in read:
            for side in (0, 1):
                own = partial(_side, seen, side)
                if not reproduces(table, own, seen.q) or not torch.equal(
                    seen.next.turn(seen.q, seen.k, None)[0], seen.q
                ):
                    raise KinemaError(
                        f"{self.name} needs one table of cos and sin for neighbouring channels, and {model} turns "
                        "queries and keys otherwise"
                    )
        if not table[1].any():
            raise KinemaError(f"{self.name} needs rotary positions, and {model} adds positions to its tokens instead")
        return table[:, :, first.clip].expand(2, *[-1] * 4).clone()

    def _belongs(self, run: Run, state: Following) -> dict[str, Any]:
        """What a file of tables must be for."""
        levels = [round(step.t, 6) for step in state.steps]
        count = run.conditions.num_inference_steps
        return {"grid": list(state.grid), "num_inference_steps": count, "noise levels": levels}


def _side(seen: Seen, side: int, u: Tensor) -> Tensor:
    """u turned by the model as queries (side 0) or keys (side 1) are."""
    return seen.next.turn(u, u, seen.positions)[side]


def _placed(u: Tensor, own: Tensor, positions: Positions, side: str, table: Tensor) -> Tensor:
    """Queries or keys `own`, after the model's positions, with the clip's of u turned by the table instead."""
    rows, tokens = clip_tokens(positions, side)
    mine = tokens < table.shape[2]  # others stand beside the clip
    rows, tokens = rows[mine], tokens[mine]
    return own.index_copy(2, rows, turned(u[:, :, rows], table[:, :, tokens]))
