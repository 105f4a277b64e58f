"""What a network makes of the texts alone, made once a run: their projection, and keys and values of cross-attention.

They do not depend on the latents nor on the noise level. A run keeps them on twins of its networks, so that no other
sees them, and only up to a size: for large models they are a thousandth of a step, and would take memory.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from kinema.backbones.twins import hooked, twin

LAYERS = re.compile(r"(^condition_embedder\.text_embedder|\.attn2\.(to_k|to_v|norm_k))$")
MOST_BYTES = 2**28  # kept in a run
MOST_TEXTS = 4  # kept by a layer: the branches of the guidance, or all of them as one batch


@contextmanager
def kept(backbone: Any, networks: tuple[str, ...]) -> Iterator[Any]:
    """A copy of `backbone` for one run, whose `networks` (names of attributes) compute once what texts alone decide."""
    own, layers, budget = copy.copy(backbone), [], Budget()
    for name in networks:
        network = getattr(backbone, name)
        if network is not None and not watched(network):
            network = twin(getattr(backbone, name))
            setattr(own, name, network)
            layers += [Kept(module, budget) for path, module in network.named_modules() if LAYERS.search(path)]
    try:
        yield own
    finally:
        for layer in layers:  # twins are rings of objects, which wait for the collector of garbage
            layer.found.clear()


def watched(network: Any) -> bool:
    """Whether hooks of diffusers or accelerate stand around modules: then every call is left as it is."""
    return hooked(network) or any(hasattr(module, "_hf_hook") for module in network.modules())


class Budget:
    """Bytes that a run may still keep."""

    left = MOST_BYTES


class Kept:
    """Stands for the forward of a layer that is called again and again with the same text."""

    def __init__(self, module: Any, budget: Budget) -> None:
        self.forward: Callable[[Tensor], Tensor] = module.forward
        self.budget = budget
        self.found: list[tuple[Tensor, int, Tensor]] = []  # input, its version, output
        module.forward = self

    def __call__(self, x: Tensor) -> Tensor:
        for seen, version, made in self.found:
            # The same memory, unchanged; it cannot be another tensor's as long as this one is held.
            if seen.data_ptr() == x.data_ptr() and seen.shape == x.shape and version == x._version:
                return made
        made = self.forward(x)
        size = made.numel() * made.element_size()
        if len(self.found) < MOST_TEXTS and size <= self.budget.left:
            self.budget.left -= size
            self.found.append((x, x._version, made))
        return made
