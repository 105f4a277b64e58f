"""Run the encoder of a UNet in few steps, and its decoder in all of them, several steps in one batch."""

from __future__ import annotations

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
    Paper: "Faster Diffusion: Rethinking the Role of the Encoder for Diffusion Model Inference", 2023, arXiv:2312.09608;
    its key steps of 50, stretched to the number of steps. Departures: the second half of the noise levels counts as
    the second half of the steps, which it is for levels that are evenly spaced; the noise is added in units of
    variance-preserving latents, also where a solver has others. What looks into the network gets its steps one by one.
    A transformer has no decoder that the features of an encoder skip to: it is refused.
    Shapes: latents (B, C, T, H, W); the features of the encoder, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks that are no UNet.
    """

    key_steps: tuple[int, ...] = (0, 1, 2, 3, 5, 10, 15, 25, 35)  # steps of `of` whose encoder runs, from 0
    of: int = 50  # steps that key_steps count
    every: int = 0  # a key step every so many steps instead; 1 makes all of them key steps, 0 takes key_steps
    parallel: bool = True  # the decoders up to the next key step as one batch: faster, takes more memory
    injection: float = 0.003  # share of the first noise that is added in each step of the second half, no unit

    def start(self, run: Run) -> None:
        if not self.key_steps or not 0 <= min(self.key_steps) <= max(self.key_steps) < self.of:
            raise KinemaError(f"key_steps of faster_diffusion are {self.key_steps}; use steps from 0 to {self.of - 1}")
        if self.every < 0 or not self.injection >= 0:
            raise KinemaError(
                f"every {self.every} and injection {self.injection} of faster_diffusion must be 0 or more"
            )

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


def mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples and dictionaries with their tensors changed."""
    if isinstance(given, Tensor):
        return change(given) if given.ndim else given
    if isinstance(given, dict):
        return {name: mapped(u, change) for name, u in given.items()}
    return tuple(mapped(u, change) for u in given) if isinstance(given, tuple) else given
