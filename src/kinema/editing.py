"""A clip with another look: its things stay where they are, and its length, size, rate, cuts and sound are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError
from kinema.pictures import address, open_picture
from kinema.pipeline import generate
from kinema.request import Part
from kinema.video import Video, clip_address

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD = "gen1"
# Stands where a picture tells the content. The model reads the picture's tokens in its place, of which a short prompt
# would leave some masked.
NEUTRAL = "a video of what can be seen in a picture, and of nothing else than that"


def edit(
    source: str | os.PathLike[str] | Video | Any,
    prompt: str = "",
    *,
    content: str | os.PathLike[str] | Any | None = None,
    structure: str = "depth",
    fidelity: float = 0.8,
    temporal_scale: float = 1.0,
    depth: str = "",
    weight: float = 1.0,
    adapter: str | os.PathLike[str] | None = None,
    frames: int | None = None,
    overlap: int | None = None,
    cuts: bool = True,
    techniques: Any = (),
    **request: Any,
) -> Video:
    """A clip made anew as a text or a picture says, with its structure kept (Gen-1).

    `source` is a path, or in memory a `Video` or an array (T, H, W, 3) uint8, of which sound is left out; `content` a
    picture instead of the prompt. The other arguments are the fields of the technique `gen1`, and those of `generate`.
    Returns a `Video` of the source's length, size, rate and sound; `kinema edit` writes it as it is made, so that
    memory does not grow with it.
    Raises: KinemaError, one sentence, before the first step, for anything that cannot be done.
    """
    options = told(
        source=_clip(source),
        content=None if content is None else _picture(content),
        structure=structure,
        fidelity=fidelity,
        temporal_scale=temporal_scale,
        depth=depth,
        weight=weight,
        adapter=None if adapter is None else os.fspath(adapter),
        frames=frames,
        overlap=overlap,
        cuts=cuts,
    )
    if isinstance(source, Video):
        request = {"fps": source.fps, **request}
    several: Sequence[Any] = techniques if isinstance(techniques, list | tuple) else [techniques]
    around = [Part(name=METHOD, options=options), *several]
    return generate(worded(prompt, content is not None), techniques=around, **request)


def told(**options: Any) -> dict[str, Any]:
    """Fields of the technique behind an edit; those that are None have their defaults."""
    return {"as_source": True, **{name: value for name, value in options.items() if value is not None}}


def worded(prompt: str | None, pictured: bool) -> str:
    """The prompt of an edit. Raises: KinemaError, where nothing says what is to be seen, or two things do."""
    if pictured and prompt:
        raise KinemaError("the content is told by a picture, and there is a prompt; give one of them")
    if not pictured and not prompt:
        raise KinemaError("nothing says what the edited video shows; give a prompt, or a picture as content")
    return prompt or NEUTRAL


def _clip(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return clip_address(source.frames if isinstance(source, Video) else source)


def _picture(content: Any) -> str:
    return os.fspath(content) if isinstance(content, str | os.PathLike) else address(open_picture(content, "content"))
