"""Run the encoder of a network in few steps, and its decoder in all of them, in UNets several steps in one batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.path import VariancePreserving
from kinema.core.registry import technique
from kinema.core.technique import Call, Step, Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Conditions
    from kinema.core.run import Run

BLOCKS = ("blocks", "transformer_blocks", "single_transformer_blocks")  # of transformers, in the order they run
PATH = VariancePreserving("epsilon")  # for changes of scale, in which what a network predicts plays no part


@technique(
    "faster_diffusion",
    paper="arXiv:2312.09608",
    base="Stable Diffusion 1.5, DeepFloyd-IF, ModelScope",
    neutral=dict(every=1, injection=0.0),
)
@dataclass(frozen=True, kw_only=True)
class FasterDiffusion(Technique):
    """output_j = decoder(encoder(x_k, t_k), t_j) for the key step k and all steps j up to the next one.

    The decoder of such steps does not look at x_j, so that it makes them all in one batch at step k (`parallel`); the
    steps behind k then ask no network. In the second half of the steps x gets `injection` times the first noise.
    In transformers, where no features skip to a decoder, the encoder is the first `depth` of the blocks, and what it
    adds to its tokens h0 is kept: h0(x_j) + h(x_k, t_k) - h0(x_k) goes into the other blocks, step by step.
    Paper: "Faster Diffusion: Rethinking the Role of the Encoder for Diffusion Model Inference", 2023, arXiv:2312.09608;
    its key steps of 50, stretched to the number of steps. Departures: the second half of the noise levels counts as
    the second half of the steps, which it is for levels that are evenly spaced; the noise is added in units of
    variance-preserving latents, also where a solver has others. What looks into the network gets its steps one by one.
    The paper is about UNets; its counterpart for transformers keeps a difference, as Delta-DiT does (2024,
    arXiv:2406.01125), because blocks that do not see x_j at all would lose what only x_j knows. It always runs the last
    blocks, where first_block_cache and its like leave them out, and pab and taylorseer leave out layers of all blocks.
    Shapes: latents (B, C, T, H, W); the features of the encoder, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks of another kind.
    """

    key_steps: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 15, 25, 35)  # steps of `of` whose encoder runs, from 0
    of: int = 50  # steps that key_steps count
    every: int = 0  # a key step every so many steps instead; 1 makes all of them key steps, 0 takes key_steps
    parallel: bool = True  # UNets: the decoders up to the next key step as one batch, which takes more memory
    depth: float = 0.5  # transformers: share of the blocks that is kept, above 0; the last block never is
    injection: float = 0.003  # share of the first noise that is added in each step of the second half, no unit

    def start(self, run: Run) -> None:
        if not self.key_steps or not 0 <= min(self.key_steps) <= max(self.key_steps) < self.of:
            raise KinemaError(f"key_steps of faster_diffusion are {self.key_steps}; use steps from 0 to {self.of - 1}")
        if self.every < 0 or not self.injection >= 0:
            raise KinemaError(
                f"every {self.every} and injection {self.injection} of faster_diffusion must be 0 or more"
            )

        if not 0 < self.depth <= 1:
            raise KinemaError(f"depth of faster_diffusion is {self.depth}; use more than 0, and 1 at most")

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        run.state[self] = x
        return x

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        if self.injection == 0 or 2 * step.index < step.count:
            return x
        noise: Tensor = step.run.state[self]
        return x + self.injection * PATH.inwards(noise.to(x.dtype), step.t)

    def cache(self, run: Run, call: Call) -> Any:
        if not any(hasattr(network, "down_blocks") for network in call.networks):
            return BlockCache(call, self.keys(run.steps), self.depth)
        acting = [step for step in run.schedule if self.active(step)]
        return EncoderCache(call, self.keys(run.steps), acting if self.parallel and not run.tapping else ())

    def keys(self, count: int) -> frozenset[int]:
        """The key steps of a run of `count`."""
        if self.every:
            return frozenset(range(0, count, self.every))
        return frozenset(round(key * count / self.of) for key in self.key_steps)


@dataclass
class EncoderCache:
    """The features of one series of calls, and what the decoder has made of them for steps to come."""

    call: Call
    keys: frozenset[int]
    together: Sequence[Step]  # steps whose decoders may run in one batch with those of others
    copies: int = 0  # steps in the call in progress that runs the encoder, 0 in one that does not
    features: dict[int, Any] = field(default_factory=dict)  # part of the encoder -> what it gave
    outputs: dict[int, Tensor] = field(default_factory=dict)  # step -> output of the network

    def parts(self, network: Any) -> Sequence[Any]:
        if getattr(network, "mid_block", None) is None or not hasattr(network, "down_blocks"):
            raise ValueError("it has no encoder whose features skip to a decoder, as UNets have")
        return [network.conv_in, *network.down_blocks, network.mid_block]

    def around(self, part: int, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """What a part of the encoder gives: for one step, repeated for all that the decoder makes in this call."""
        if self.copies:
            args, named = (mapped(given, lambda u: u[: len(u) // self.copies]) for given in (args, named))
            self.features[part] = forward(*args, **named)
        found = self.features[part]
        return found if self.copies < 2 else mapped(found, lambda u: u.repeat(self.copies, *[1] * (u.ndim - 1)))

    def predict(
        self, ask: Callable[..., Tensor], x: Tensor, t: float, inputs: Mapping[str, Tensor], conditions: Conditions
    ) -> Tensor:
        path, now = VariancePreserving(conditions.scheduler.config.prediction_type), self.call.step.index
        if now in self.outputs:
            return path.velocity(self.outputs.pop(now), x, t)
        if self.features and now not in self.keys:
            self.copies = 0
            return ask(x, t, inputs, conditions)
        stop = min((key for key in self.keys if key > now), default=self.call.step.count)
        steps = [step for step in self.together if now <= step.index < stop]
        self.copies = max(1, len(steps))
        if self.copies == 1:
            return ask(x, t, inputs, conditions)
        times = torch.tensor([step.told for step in steps], dtype=x.dtype, device=x.device).repeat_interleave(len(x))
        repeated = torch.cat([x] * self.copies)
        inputs = {name: torch.cat([u] * self.copies) for name, u in inputs.items()}
        v = ask(repeated, times, inputs, conditions)
        outputs = path.output(v, repeated, times).chunk(self.copies)
        self.outputs = {step.index: output for step, output in zip(steps[1:], outputs[1:], strict=True)}
        return v[: len(x)]

    def forget(self) -> None:
        self.features, self.outputs = {}, {}


@dataclass
class BlockCache:
    """What the first blocks of a transformer add to their tokens, in one series of calls."""

    call: Call
    keys: frozenset[int]
    depth: float
    last: int = 0  # of these blocks
    runs: bool = True  # whether they run in the call in progress
    entered: tuple[Tensor, ...] = ()  # what went into the first of them
    added: tuple[Tensor, ...] = ()  # by stream of tokens: the video's, and the text's or the sound's beside it

    def parts(self, network: Any) -> Sequence[Any]:
        blocks = [block for name in BLOCKS for block in getattr(network, name, ())]
        if len(blocks) < 2:
            raise ValueError("it has no blocks of which some could be left out")
        if hasattr(network, "vace_blocks"):
            raise ValueError("it adds to what its blocks give, which would be counted twice")
        self.last = min(max(round(self.depth * len(blocks)), 1), len(blocks) - 1) - 1
        return blocks[: self.last + 1]

    def around(self, part: int, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The streams of tokens, which come first among what a block is given, in the order in which it gives them."""
        streams = tuple(inspect.signature(forward).bind(*args, **named).arguments.values())
        if part == 0:
            alike = all(a.shape == u.shape for a, u in zip(self.added, streams, strict=False))
            self.runs = self.call.step.index in self.keys or not self.added or not alike
            self.entered = streams
        if not self.runs:
            streams = streams[: len(self.added)]
            if part == self.last:
                streams = tuple(u + a for u, a in zip(streams, self.added, strict=True))
            return streams if len(streams) > 1 else streams[0]
        made = forward(*args, **named)
        if part == self.last:
            given = made if isinstance(made, tuple) else (made,)
            self.added = tuple(u - before for u, before in zip(given, self.entered, strict=False))
        return made

    def predict(
        self, ask: Callable[..., Tensor], x: Tensor, t: float, inputs: Mapping[str, Tensor], conditions: Conditions
    ) -> Tensor:
        return ask(x, t, inputs, conditions)

    def forget(self) -> None:
        self.entered, self.added = (), ()


def mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples and dictionaries with their tensors changed."""
    if isinstance(given, Tensor):
        return change(given) if given.ndim else given
    if isinstance(given, dict):
        return {name: mapped(u, change) for name, u in given.items()}
    return tuple(mapped(u, change) for u in given) if isinstance(given, tuple) else given
