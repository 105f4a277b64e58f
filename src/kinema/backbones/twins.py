"""A second module tree over the same weights, so that one run can change how a network computes and no other sees it.

diffusers' caches put hooks on a network and keep their state in them. On a twin they belong to one run: two threads do
not meet, and the network itself is never touched.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def twin(network: torch.nn.Module) -> torch.nn.Module:
    """The same network with modules of its own and the same parameters and buffers.

    What is put around a module stays around its twin: diffusers' and accelerate's hooks for weights that come and go,
    and what the taps of a run put there. A module whose forward was replaced in another way, or compiled, is called as
    it is by its twin; `hidden_hooks` tells when that hides something.
    """
    made: dict[int, torch.nn.Module] = {}

    def copy(module: torch.nn.Module) -> torch.nn.Module:
        if id(module) not in made:
            other = made[id(module)] = module.__new__(type(module))
            other.__dict__.update(module.__dict__)
            other.__dict__.pop("_diffusers_hook", None)  # hooks of its own
            other.__dict__["_modules"] = {n: m if m is None else copy(m) for n, m in module._modules.items()}
            _take_over(module, other)
        return made[id(module)]

    return copy(network)


def hooked(network: torch.nn.Module) -> bool:
    """Whether a hook of diffusers was put on a module of a twin."""
    registries: list[Any] = [getattr(module, "_diffusers_hook", None) for module in network.modules()]
    return any(registry is not None and registry.hooks for registry in registries)


def hidden_hooks(network: torch.nn.Module) -> bool:
    """Whether one was put on a module that is never called, because one above it calls its original."""
    below = hooked if network.__dict__.get("_calls_original", False) else hidden_hooks
    return any(below(child) for child in network.children())


def _take_over(module: torch.nn.Module, other: torch.nn.Module) -> None:
    """Gives a twin the forward that its original has."""
    if module.__dict__.get("_compiled_call_impl") is not None:
        hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
        other.__dict__.update({name: type(module.__dict__[name])() for name in hooks})  # the original runs its own
        other.__dict__.update(_compiled_call_impl=None, forward=module, _calls_original=True)
        return
    forward = module.__dict__.get("forward")
    if forward is None:
        return
    around = _surroundings(module, forward)
    if around is None:
        other.__dict__["_calls_original"] = True
        return
    del other.__dict__["forward"]
    for put in around:
        put(other)


def _surroundings(module: torch.nn.Module, forward: Any) -> list[Callable[[torch.nn.Module], Any]] | None:
    """What stands around a module's own forward, innermost first, as functions that put it around another's; None if
    that is not known."""
    found: list[Callable[[torch.nn.Module], Any]] = []
    while hasattr(forward, "put_on"):
        found.insert(0, forward.put_on)
        forward = forward.inner
        if forward is None:
            return found
    registry = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry.hooks:
        hooks = [registry.hooks[name] for name in registry._hook_order]
        if any(hasattr(hook, "new_forward") for hook in hooks):
            return None
    elif hasattr(module, "_hf_hook") and hasattr(module, "_old_forward"):
        hooks = [module._hf_hook]
    else:
        return None
    return [functools.partial(_put_hook, module, hook) for hook in hooks] + found


def _put_hook(module: torch.nn.Module, hook: Any, other: torch.nn.Module) -> None:
    """Puts a hook of `module`, which brings its weights and takes them away, around the forward of its twin."""
    inner = other.forward

    @functools.wraps(inner)
    def forward(*args: Any, **named: Any) -> Any:
        args, named = hook.pre_forward(module, *args, **named)
        return hook.post_forward(module, inner(*args, **named))

    other.forward = forward
