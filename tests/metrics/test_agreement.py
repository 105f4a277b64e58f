"""What was asked beside what was read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kinema.metrics.agreement import ATTRIBUTES, all_right, compare, unknown_words
from kinema.metrics.control.psnr import decibels
from kinema.metrics.judge import Guess, ObjectReading, Reading
from kinema.training.judge import words_of
from kinema.world.curricula import get_curriculum
from kinema.world.reading import ReadCaption, ReadObject, parse_caption

READ = Reading(
    objects=(ObjectReading(Guess("ball", 0.9), Guess("red", 0.8)),),
    ground=Guess("grass", 0.99),
    sky=Guess("day", 0.99),
    camera=Guess("still", 0.7),
    events=(Guess("bounce", 0.9), Guess("move left", 0.6)),
    seconds=3.0,
)
ASKED = ReadCaption(
    kind="ball", colour="red", ground="grass", sky=None, events=("bounce", "roll left"), camera=None, objects=()
)


def right(asked: ReadCaption) -> dict[str, bool | None]:
    return {row.attribute: row.right for row in compare(asked, READ)}


def test_what_is_not_asked_does_not_count() -> None:
    rows = compare(ASKED, READ)
    assert [row.attribute for row in rows] == list(ATTRIBUTES)
    assert right(ASKED) == dict(kind=True, colour=True, ground=True, sky=None, events=True, camera=None)
    assert all_right(rows)
    events = rows[ATTRIBUTES.index("events")]
    assert (events.asked, events.read, events.confidence) == ("bounce, then move left", "bounce, then move left", 0.6)


@pytest.mark.parametrize(
    "change, wrong",
    [
        (dict(kind="cube"), "kind"),
        (dict(colour="blue"), "colour"),
        (dict(sky="night"), "sky"),
        (dict(camera="pan left"), "camera"),
        (dict(events=("roll left", "bounce")), "events"),  # the order counts
        (dict(events=("bounce",)), "events"),  # and so does what was not asked for
        (dict(events=("bounce", "slide right")), "events"),
    ],
)
def test_wrong_is_wrong(change: dict, wrong: str) -> None:
    asked = replace(ASKED, **change)
    assert [name for name, ok in right(asked).items() if ok is False] == [wrong]
    assert not all_right(compare(asked, READ))


def test_each_object_is_found_once() -> None:
    two = replace(ASKED, objects=(ReadObject(kind="ball", colour="red"), ReadObject(kind="ball", colour=None)))
    assert right(two)["kind"] is False and right(two)["colour"] is True


def test_prompts_of_our_own_words() -> None:
    asked = parse_caption("a red ball bounces on the grass, then rolls to the left")
    rows = {row.attribute: row for row in compare(asked, READ)}
    assert rows["events"].asked == "bounce, then move left"
    assert all_right(list(rows.values()))


def test_unknown_words_are_named() -> None:
    config = words_of(get_curriculum("first"))
    assert unknown_words(ASKED, config) == []
    assert unknown_words(replace(ASKED, kind="figure", events=("wave",)), config) == ["figure", "wave"]


def test_psnr_in_closed_form() -> None:
    a = torch.zeros(2, 3, 4, dtype=torch.uint8)
    b = a.clone()
    b[1] = 255  # MSE = 255^2  =>  0 dB
    assert decibels(a, b).tolist() == [float("inf"), 0.0]
    with pytest.raises(ValueError, match="both uint8 with span 255 or both floats"):
        decibels(a, b.float())
    d = torch.tensor([[0.02], [0.2]])  # of -1..1: 20 log10(2 / d)
    torch.testing.assert_close(decibels(d, torch.zeros_like(d), span=2), torch.tensor([40.0, 20.0]))
