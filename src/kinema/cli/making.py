"""What a recipe tells of how a video was made, for the picture of its frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinema.request import Request
    from kinema.timeline import Timeline
    from kinema.timeline.sheet import Box, Making
    from kinema.video import Video

LONGEST = 60  # characters of an option's value


def timeline_of(made: Any) -> Timeline | None:
    """The events that a recipe's video was made from; None where it does not say, or there are none."""
    from kinema import recipe
    from kinema.timeline import Timeline

    asked = recipe.asked(made)
    return None if asked is None else Timeline.parse(asked).completed()


def making_of(made: Any, video: Video) -> Making:
    """What the sheet of a video shows of its recipe; nothing of what this version cannot read."""
    from kinema.core.errors import KinemaError
    from kinema.core.registry import techniques
    from kinema.request import Request
    from kinema.timeline.sheet import Making
    from kinema.timing import follows

    if not isinstance(made, Mapping) or not isinstance(made.get("request"), Mapping):
        return Making()
    try:
        request = Request(**made["request"])
    except KinemaError:
        return Making()
    known, events = techniques(), request.events
    opening = made.get("opening", 0) / video.fps
    one = events is None or (len(events) == 1 and not events.timed)
    return Making(
        given=tuple((first / video.fps, stop / video.fps) for first, stop in made.get("given", ())),
        opening=opening,
        followed=one or any(part.name in known and follows(known[part.name].cls) for part in request.techniques),
        boxes=tuple(_boxes(request, video)),
        says=_says(request),
    )


def _boxes(request: Request, video: Video) -> list[Box]:
    """Where words of the prompt were asked for, by a technique with regions."""
    from kinema.layers.regions import read_regions
    from kinema.timeline import Timeline
    from kinema.timeline.sheet import Box

    found = []
    for part in request.techniques:
        for region in read_regions(part.options["regions"], part.name) if part.options.get("regions") else ():
            start, end = 0.0, video.seconds
            if region.when:
                (event,) = Timeline.parse(f"{region.when}: {region.words}").over(video.seconds, video.fps)
                start, end = event.span
            found.append(Box(region.words, region.left, region.top, region.right, region.bottom, start, end))
    return found


def _says(request: Request) -> str:
    """Model, seed and techniques in a line."""
    parts = [f"model {request.model}", f"seed {request.seed}"]
    if request.num_inference_steps is not None:
        parts.append(f"{request.num_inference_steps} steps")
    for part in request.techniques:
        options = ", ".join(f"{field} {_value(value)}" for field, value in part.options.items())
        parts.append(f"{part.name} ({options})" if options else part.name)
    if request.camera:
        parts.append(f"camera {request.camera}")
    return "  |  ".join(parts if request.techniques or request.camera else [*parts, "no technique"])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = text.partition(",")[0] if text.startswith("data:") else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
