"""Texts with times: what is said is read back, what is wrong is refused at its place, nothing timed is plain words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.request import Request
from kinema.timeline import Event, Timeline

WORDS = st.sampled_from(
    ["a-ball", "it", "rolls", "then", "|", "\\", "meanwhile", "and", ",", ".", "2", "s:", "é", "[x]", "0-2s"]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
TOKENS = "0 1.5 3 24 % s f - – : [ ] | , . a ball then meanwhile and 0-3s: [0:24] [25%:50%] 5: after-that"
PIECES = st.lists(st.sampled_from([*TOKENS.split(), "after that", " ", " ", "\n"]), max_size=14).map("".join)


@st.composite
def timelines(draw):
    unit, clock, events = draw(st.sampled_from("sf%")), 0, []
    for text in draw(st.lists(TEXTS, min_size=1, max_size=4)):
        at_once = bool(events) and draw(st.booleans())
        begins = draw(st.integers(int(events[-1].start), clock - 1)) if at_once else clock + draw(st.integers(0, 3))
        ends = begins + draw(st.integers(1, 8))
        events.append(Event(text=text, start=begins, end=ends, meanwhile=at_once))
        clock = max(clock, ends)
    try:
        return Timeline(tuple(events), unit)
    except KinemaError:  # a text that would be read as two
        return Timeline(tuple(Event(text="a", start=e.start, end=e.end, meanwhile=e.meanwhile) for e in events), unit)


@given(timelines())
def test_any_timeline_comes_back(timeline):
    assert Timeline.parse(str(timeline)) == timeline
    request = Request(prompt="x", timeline=timeline)
    assert Timeline.parse(request.timeline) == timeline and Request(**request.model_dump(mode="json")) == request


@given(st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=4))
def test_any_sequence_comes_back_or_is_refused(parts):
    try:
        timeline = Timeline(tuple(Event(text=t, meanwhile=at_once and i > 0) for i, (t, at_once) in enumerate(parts)))
    except KinemaError:
        return
    assert Timeline.parse(str(timeline)) == timeline


RANGE = re.compile(r"(?<![\w.%])\d+(\.\d+)?[sf%]? ?[-–] ?\d+(\.\d+)?[sf%] ?:|\[\d+[sf%]?:\d+[sf%]?\]")


@given(st.one_of(st.text(max_size=40), PIECES))
def test_anything_is_read_or_refused_and_times_are_never_plain_words(text):
    try:
        timeline = Timeline.parse(text)
    except KinemaError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert Timeline.parse(str(timeline)) == timeline
        assert timeline.timed or not RANGE.search(text)
        assert len(timeline) >= len(RANGE.findall(text))


@given(timelines(), st.data())
def test_a_range_that_lost_a_character_is_never_plain_words(timeline, data):
    first = Timeline((Event(text="a ball", start=timeline.events[0].start, end=timeline.events[0].end),), timeline.unit)
    text = str(first)
    lost = data.draw(st.integers(0, text.index("a ball") - 2))
    try:
        assert Timeline.parse(text[:lost] + text[lost + 1 :]).timed
    except KinemaError as error:
        assert str(error).startswith("column 1: ")


FAULTS = {  # what a part that starts at second n becomes
    "turned": lambda n: f"{n + 1}-{n}s: a",
    "no unit": lambda n: f"{n}-{n + 1}: a",
    "other unit": lambda n: f"[{n}:{n + 1}] a",
    "no range": lambda n: "a",
    "too early": lambda n: f"0-{n + 1}s: a",
    "no overlap": lambda n: f"{n}-{n + 1}s: meanwhile a",
}


@given(
    st.lists(TEXTS.filter(lambda t: "|" not in t), min_size=1, max_size=3), st.sampled_from(list(FAULTS)), st.booleans()
)
def test_errors_name_the_place_of_the_fault(texts, fault, lines):
    good = []
    for n, text in enumerate(texts):
        try:
            good.append(str(Timeline((Event(text=text, start=n, end=n + 1),))))
            Timeline.parse(" | ".join(good))
        except KinemaError:
            good[n:] = [f"{n}-{n + 1}s: a"]
    bad = FAULTS[fault](len(good))
    with pytest.raises(KinemaError) as error:
        Timeline.parse(("\n" if lines else " | ").join([*good, bad]))
    column = 1 if lines else len(" | ".join(good)) + 4
    where = f"line {len(good) + 1}, column {column}: " if lines else f"column {column}: "
    assert str(error.value).startswith(where), (where, str(error.value))


@pytest.mark.parametrize(
    "text, events",
    [
        ("a ball jumps, after that it falls", ["a ball jumps", "it falls"]),
        ("a ball jumps. Afterwards it falls", ["a ball jumps", "it falls"]),
        ("a ball jumps then falls", ["a ball jumps", "falls"]),
        ("since then a ball jumps", ["since then a ball jumps"]),
        ("a ball jumps, meanwhile a cube falls", ["a ball jumps", "+a cube falls"]),
        ("a ball jumps; at the same time, a cube falls, then it stops", ["a ball jumps", "+a cube falls", "it stops"]),
        ("a ball and a cube fall at the same time", ["a ball and a cube fall at the same time"]),
        ("Meanwhile in the snow, a ball jumps", ["Meanwhile in the snow, a ball jumps"]),
        ("16:9 film of a ball", ["16:9 film of a ball"]),
        ("5 balls: one red", ["5 balls: one red"]),
    ],
)
def test_plain_english(text, events):
    assert [f"{'+' * e.meanwhile}{e.text}" for e in Timeline.parse(text)] == events


@pytest.mark.parametrize(
    "text, says",
    [
        ("a ball jumps, then", "column 19: nothing follows"),
        ("a ball, then meanwhile a cube", "column 7: 'then meanwhile' says both"),
        ("0-2s: a 2-4s: b", "column 9: a second range"),
        ("0-2s: a | 0-1s: meanwhile 0-2s", "column 27: a second range"),
        ("0-2s: a | [0:24] b", "column 11: the range is in frames, the one ahead of it in seconds"),
        ("[25%:50] a", "column 1: the range has two units"),
        ("[0:1.5] a", "column 1: the event 'a' lasts from frame 0 to frame 1.5; use whole frames"),
        ("[50%:120%] a", "column 1: the event 'a' ends at 120%; use at most 100%"),
        ("0-2s: a | 1-3s: meanwhile b | 2-4s: c", "column 31: the event 'c' starts at 2 s"),
        ("0:00-0:03: a ball", "column 1: expected a range"),
        ("from 0 to 3 seconds a ball jumps", "column 1: expected a range"),
        ("a ball, then 0-2s: it falls", "column 1: expected a range"),
        ("a ball, then 0-2: it falls", "column 14: expected a range"),
    ],
)
def test_refused_at_its_place(text, says):
    with pytest.raises(KinemaError, match=re.escape(says)):
        Timeline.parse(text)


PLAIN = """a red ball rolls from 0-3s
a 10-20 year old
10-15s of silence
2-3 seconds later it jumps
a room, 10-15s of silence, a man
a ball rolls, 2-3 seconds later it jumps
the bar fills from 0 to 100%
a film, 24-30 frames per second
a film, 12-15 frames a second
a mouse, 20-30% the size of a cat
a clip, 5-10 seconds, the camera still
a clock counts from 1 to 2s and from 3 to 4s"""


@pytest.mark.parametrize("text", PLAIN.splitlines())
def test_lengths_and_shares_are_plain_words(text):
    assert not Timeline.parse(text).timed and Request(prompt=text, timeline="0-1s: it spins").events.timed


@pytest.mark.parametrize(
    "text, column, found",
    [
        ("a red ball, 0-1.5s it rolls, 1.5-3s it jumps", 13, "0-1.5s"),
        ("a red ball, 0-2 seconds rolling", 13, "0-2 seconds"),
        ("a red ball; from 2s to 4s the ball jumps", 18, "2s to 4s"),
        ("a ball. And 2-4s it jumps", 13, "2-4s"),
        ("a ball, 0-24f it rolls", 9, "0-24f"),
        ("a cup, 0-50% it is full", 8, "0-50%"),
        ("a ball rolls 1-2s and jumps 2-3s", 14, "1-2s"),
        ("a ball, then from 0 to 2 seconds it falls", 19, "0 to 2 seconds"),
    ],
)
def test_tries_at_times_are_refused_in_plain_words_and_in_events(text, column, found):
    with pytest.raises(KinemaError, match=rf"^column {column}: '{found}' looks like times; .* with a colon"):
        Request(prompt=text)
    if ", then" not in text:
        with pytest.raises(KinemaError, match=f"^column {column + 6}: a second range in one event"):
            Timeline.parse(f"0-1s: {text}")


@pytest.mark.parametrize(
    "text, says",
    [
        ("0-1e3s: it rolls", "column 3: the number '1e3' cannot be read; write it as 3 or 1.5"),
        ("0-1s: a\n1-.5s: a", "line 2, column 3: the number '.5'"),
        ("[0,5:1] a", "column 2: the number '0,5'"),
    ],
)
def test_numbers_that_are_not_read_are_named(text, says):
    with pytest.raises(KinemaError, match=f"^{re.escape(says)}"):
        Timeline.parse(text)
