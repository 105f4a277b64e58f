"""A model that keeps parts of its calls for the next ones, for one run: caches on twins of its networks, diffusers' or
kinema's own.

Every series of calls that may share something has twins of its own, so that nothing mixes: a branch of the guidance,
or the branches that go through the network as one batch, a window of the clip, and each of several calls of these
within one step. What is kept is of the step before: a series that was left out for a step begins anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from diffusers import FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import Tensor

from kinema.backbones.folder import CLOCK
from kinema.backbones.twins import hidden_hooks, hooked, twin
from kinema.core.errors import KinemaError
from kinema.core.technique import Cache, Call

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Step, Technique

NETWORKS = ("transformer", "transformer_2", "unet")  # attributes of a backbone
RESIDUALS = (FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig)  # keep the sum of what the blocks add


@contextmanager
def cached(backbone: Any, run: Run, technique: Technique) -> Iterator[Any]:
    """A copy of `backbone` for one run, whose networks keep what the hook `cache` of `technique` asks for.

    Raises: KinemaError when they cannot.
    """
    own = copy.copy(backbone)
    reuse = Reuse(own, run, technique)
    own.predict, own.at = reuse.predict, reuse.at
    try:
        yield own
    finally:
        reuse.close()


class Reuse:
    """The twins of one run, and which of them is called. `backbone` belongs to that run alone."""

    def __init__(self, backbone: Any, run: Run, technique: Technique) -> None:
        self.backbone, self.run, self.technique = backbone, run, technique
        self._predict = type(backbone).predict
        networks = {name: getattr(backbone, name, None) for name in NETWORKS}
        self._networks = {name: network for name, network in networks.items() if network is not None}
        self._series: dict[Any, Call] = {}
        self._step: Step = run.schedule[0]
        self._calls: dict[Any, int] = {}  # branch and window -> calls within the step
        self._open(Call(self._step))  # what cannot be done is refused before the first step

    def at(self, step: Step) -> Any:
        """The backbone, told which step and branch its next calls are for."""
        if step.index != self._step.index:
            self._calls = {}
        self._step = step
        return self.backbone

    def predict(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        """One call of the network, by the twins of its series."""
        call, step = self._of(x), self._step
        call.step, call.x = step, x
        told: dict[str, Any] = dict(step_index=step.index, num_inference_steps=step.count)
        ask = partial(self._predict, self.backbone)
        for own in call.own:
            ask = partial(own.predict, ask)
        with ExitStack() as stack:
            for name, network in zip(self._networks, call.networks, strict=True):
                setattr(self.backbone, name, network)
                if hasattr(network, "cache_context"):
                    stack.enter_context(network.cache_context("run", timestep=CLOCK * step.told, sigma=step.t, **told))
            v: Tensor = ask(x, *args, **named)
        call.count += 1
        return v

    def close(self) -> None:
        for call in self._series.values():
            self._let_go(call)
        self._series.clear()

    def _let_go(self, call: Call | None) -> None:
        """Forgets what a series has kept at once: twins are rings of objects, which wait for the garbage collector."""
        for network in () if call is None else call.networks:
            HookRegistry.check_if_exists_or_initialize(network).reset_stateful_hooks()
        for own in () if call is None else call.own:
            own.forget()

    def _of(self, x: Tensor) -> Call:
        """The series that the next call of the network belongs to."""
        seen = (self._step.branch, self._step.window)
        nth = self._calls[seen] = self._calls.get(seen, -1) + 1
        key = (*seen, nth, tuple(x.shape))
        call = self._series.get(key)
        if call is None or call.step.index + 1 < self._step.index:
            self._let_go(call)
            call = self._series[key] = Call(self._step)
            self._open(call)
        return call

    def _open(self, call: Call) -> None:
        call.networks = tuple(twin(network) for network in self._networks.values())
        for network in call.networks:
            self._enable(network, call)

    def _enable(self, network: Any, call: Call) -> None:
        kind = type(network).__name__
        config = self.technique.cache(self.run, call)
        own = hasattr(config, "around")
        if not own and not hasattr(network, "enable_cache"):
            raise self._refused(f"diffusers has no caches for its {kind}")
        if getattr(network, "is_cache_enabled", False):
            raise self._refused(f"its {kind} has a cache already; call disable_cache() first")
        if isinstance(config, RESIDUALS) and hasattr(network, "vace_blocks"):
            raise self._refused(f"its {kind} adds to what its blocks give, which would be counted twice")
        if getattr(config, "use_lite_mode", False) and hasattr(network, "audio_proj_out"):
            raise self._refused(f"one series would continue the video of its {kind}, and not the sound")
        try:
            if own:
                call.own += (config,)
                _put_on(network, config)
            else:
                network.enable_cache(config)
        except (ValueError, IndexError) as error:
            unknown = "diffusers does not know its blocks" if "not registered" in str(error) else str(error).rstrip(".")
            raise self._refused(f"its {kind} does not take it: {unknown}") from None
        if not hooked(network):
            raise self._refused(f"its {kind} has nothing of what it keeps")
        if hidden_hooks(network):
            raise self._refused(f"what it would keep of its {kind} is compiled, or replaced by another tool")

    def _refused(self, why: str) -> KinemaError:
        return KinemaError(f"{self.technique.name} cannot run on model {self.backbone.name!r}: {why}")


class _Around(ModelHook):
    """Calls a cache of kinema's own in the place of a module."""

    def __init__(self, around: Callable[..., Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.around = around

    def new_forward(self, module: Any, *args: Any, **named: Any) -> Any:
        return self.around(self.fn_ref.original_forward, *args, **named)


def _put_on(network: Any, cache: Cache) -> None:
    """Raises: ValueError for a network that the cache is not for."""
    for number, part in enumerate(cache.parts(network)):
        hook = _Around(partial(cache.around, number))
        HookRegistry.check_if_exists_or_initialize(part).register_hook(hook, "kinema")
