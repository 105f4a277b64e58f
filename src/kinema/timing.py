"""When and how long: a request's times are followed or refused, and its seconds become frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinema.core.errors import KinemaError
from kinema.core.registry import techniques as registered
from kinema.core.technique import Technique
from kinema.request import Request
from kinema.timeline.sentences import unclear

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.timeline import Timeline

CLOSE = 1e-6  # frames by which two lengths may differ and still be one
FOLLOWING = ("context", "chunks")  # the hooks with which a technique can show an event at its time


def check_times(request: Request, techniques: Sequence[Technique]) -> None:
    """Times are never taken for plain words. Raises: KinemaError where no technique follows them."""
    if request.events is None or not request.events.timed or any(map(follows, map(type, techniques))):
        return
    known = [name for name, entry in registered().items() if follows(entry.cls)]
    hint = f"add one that does ({', '.join(known)}), or " if known else ""
    raise KinemaError(
        f"the {'prompt' if request.timeline is None else 'timeline'} gives times, and no technique of this request "
        f"follows them; {hint}write 'a, then b' without times"
    )


def tell_events(request: Request, techniques: Sequence[Technique]) -> None:
    """Tells what is read as the text of each event, where it was not written so, and which do not say their subject."""
    if request.events is None or not any(map(follows, map(type, techniques))):
        return
    log, texts = logging.getLogger("kinema"), [event.text for event in request.events]
    if any(text not in request.asked for text in texts):
        log.warning(f"the events are read as: {' | '.join(texts)}")
    for text in unclear(request.events.events):
        log.warning(f"the event {text!r} does not say who or what does it; write it, as in 'the red ball jumps'")


def follows(technique: type[Technique]) -> bool:
    """Whether a technique can follow times."""
    return technique.follows_times or any(technique.overrides(hook) for hook in FOLLOWING)


def lasting(request: Request, backbone: Backbone) -> Request:
    """The request with its seconds as num_frames: the number nearest to them that the model takes.

    Where no length is given the video ends with the last event of its timeline; it is never shorter than that.
    """
    if request.num_frames is not None:
        return request
    fps, step = request.fps or backbone.defaults.fps, backbone.frames_step
    least = _end(request.events, fps)
    wanted = request.seconds * fps if request.seconds is not None else least
    if not wanted:
        return request
    frames = 1 + step * max(round((wanted - 1) / step), 0)
    if frames < least - CLOSE and wanted >= least - CLOSE:
        frames += step
    if abs(frames - wanted) > CLOSE:
        logging.getLogger("kinema").warning(
            f"{wanted / fps:g} s at {fps:g} fps is {wanted:g} frames; {backbone.name} takes {step}k + 1, "
            f"so the video has {frames} frames, {frames / fps:g} s"
        )
    return request.changed(num_frames=frames, seconds=None)


def _end(timeline: Timeline | None, fps: float) -> float:
    """In which frame the last event ends; 0 where no times are given, or only parts of the video."""
    if timeline is None or not timeline.timed or timeline.unit == "%":
        return 0.0
    end = max(event.span[1] for event in timeline)
    return end if timeline.unit == "f" else end * fps
