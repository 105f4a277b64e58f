"""A second module tree over the same weights, so that one run can change how a network computes and no other sees it.

diffusers' caches put hooks on a network and keep their state in them. On a twin they belong to one run: two threads do
not meet, and the network itself is never touched.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers.hooks.hooks import HookFunctionReference


def twin(network: torch.nn.Module) -> torch.nn.Module:
    """The same network with modules of its own and the same parameters and buffers.

    What was put around a module is around its twin, too: diffusers' hooks, for example for weights that come and go,
    and what the taps of runs put there. A module whose forward was replaced in another way, or compiled, is called as
    it is by its twin; `hidden_hooks` tells when that hides something.
    """
    made: dict[int, torch.nn.Module] = {}

    def double(module: torch.nn.Module) -> torch.nn.Module:
        if id(module) not in made:
            other = made[id(module)] = module.__new__(type(module))
            was = dict(module.__dict__)  # at once: another thread may be putting something around it
            other.__dict__.update(was)
            other.__dict__.pop("_diffusers_hook", None)  # hooks of its own
            other.__dict__["_modules"] = {n: m if m is None else double(m) for n, m in was["_modules"].items()}
            _take_over(module, was, other)
        return made[id(module)]

    return double(network)


def hooked(network: torch.nn.Module) -> bool:
    """Whether a hook of diffusers was put on a module of a twin."""
    registries: list[Any] = [getattr(module, "_diffusers_hook", None) for module in network.modules()]
    return any(registry is not None and registry.hooks for registry in registries)


def hidden_hooks(network: torch.nn.Module) -> bool:
    """Whether one was put on a module that is never called, because one above it calls its original."""
    below = hooked if network.__dict__.get("_calls_original", False) else hidden_hooks
    return any(below(child) for child in network.children())


def _take_over(module: torch.nn.Module, was: dict[str, Any], other: torch.nn.Module) -> None:
    """Gives a twin the forward that its original has, which looked like `was` when it was copied."""
    if was.get("_compiled_call_impl") is not None:
        hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
        other.__dict__.update({name: type(was[name])() for name in hooks})  # the original runs its own
        other.__dict__.update(_compiled_call_impl=None, forward=module, _calls_original=True)
        return
    if "forward" not in was:
        return
    around = _surroundings(module, was["forward"])
    if around is None:
        other.__dict__["_calls_original"] = True
        return
    del other.__dict__["forward"]
    for put in around:
        put(other)


def _surroundings(module: torch.nn.Module, forward: Any) -> list[Callable[[torch.nn.Module], Any]] | None:
    """What stands around a module's own forward, innermost first, as functions that put it around its twin's; None if
    that is not known."""
    found: list[Callable[[torch.nn.Module], Any]] = []
    while hasattr(forward, "put_on"):
        found.insert(0, forward.put_on)
        forward = forward.inner
    registry: Any = getattr(module, "_diffusers_hook", None)
    hooks = [] if registry is None else [registry.hooks[name] for name in registry._hook_order]
    if forward is not None and not hooks:
        return None
    return [functools.partial(_put_hook, module, hook) for hook in hooks] + found


def _put_hook(module: torch.nn.Module, hook: Any, other: torch.nn.Module) -> None:
    """Puts a hook of `module` around the forward of its twin; what the hook changes, it changes on `module`."""
    inner = around = other.forward
    if hasattr(hook, "new_forward"):
        hook = copy.copy(hook)
        hook.fn_ref = HookFunctionReference()
        hook.fn_ref.original_forward = inner
        around = functools.partial(hook.new_forward, module)

    @functools.wraps(inner)
    def forward(*args: Any, **named: Any) -> Any:
        args, named = hook.pre_forward(module, *args, **named)
        return hook.post_forward(module, around(*args, **named))

    other.forward = forward
