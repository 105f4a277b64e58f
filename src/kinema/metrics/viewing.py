"""One clip as the metrics look at it: with its prompt, its reference, and everything already computed about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kinema.core.errors import KinemaError
from kinema.core.footage import Footage

T = TypeVar("T")


@dataclass(eq=False)
class Viewing(Footage):
    """A clip, what was asked for, and what it is compared with.

    `reference` is the clip that this one is compared with, of any size and length; a metric that wants the same says
    so. `auxiliary` is what a prompt file in the form of VBench's says beside the prompt (`auxiliary_info`), by
    dimension: {"color": {"color": "red"}}. What several metrics need (optical flow, features, what the judge read) is
    computed once: `once`.
    Raises: KinemaError when a shape, a type or a rate is none of Footage's.
    """

    prompt: str | None = None
    reference: Viewing | None = None
    auxiliary: Mapping[str, Any] | None = None
    known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make()` gives, computed at the first call with this key and kept as long as the viewing."""
        if key not in self.known:
            self.known[key] = make()
        found: T = self.known[key]
        return found

    def but(self, **changes: Any) -> Viewing:
        """The same clip with some fields changed, and nothing known of it yet."""
        return replace(self, **changes, known={})


def same_size(clip: Viewing) -> Viewing:
    """The clip's reference. Raises: KinemaError when it differs in size or length."""
    reference = clip.reference
    assert reference is not None  # a metric that needs one is never asked without
    if reference.frames.shape != clip.frames.shape:
        t, h, w, _ = reference.frames.shape
        raise KinemaError(
            f"the clip has {len(clip)} frames of {clip.width}x{clip.height} and its reference {t} of {w}x{h}; "
            "use two of one length and size"
        )
    return reference


def same_length(clip: Viewing) -> Viewing:
    """The clip's reference. Raises: KinemaError when it differs in length."""
    reference = clip.reference
    assert reference is not None
    if len(reference) != len(clip):
        raise KinemaError(f"the clip has {len(clip)} frames and its reference {len(reference)}; use two of one length")
    return reference
