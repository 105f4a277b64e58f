"""What an event leaves out is taken from the one ahead: subject, place, time of day; what cannot be told is left."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.events.talc import TALC
from kinema.guidance.cfg import CFG
from kinema.metrics.asked import parse
from kinema.request import Request
from kinema.timeline import Prompt, Timeline
from kinema.timeline.sentences import completed, subject, unclear
from kinema.timing import tell_events
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES


def texts(prompt):
    return [event.text for event in completed(Timeline.parse(prompt).events)]


@pytest.mark.parametrize(
    "prompt, others",
    [
        (
            "a red ball rolls to the left on the grass, then it bounces, then it rolls to the right",
            ["the red ball bounces on the grass", "the red ball rolls to the right on the grass"],
        ),
        ("a red ball bounces on the grass, then rolls to the left", ["the red ball rolls to the left on the grass"]),
        (
            "a red ball rolls on the grass at night, then a blue cube falls, then the ball stops",
            ["a blue cube falls on the grass at night", "the red ball stops on the grass at night"],
        ),
        (
            "at sunset, a dog runs on a beach, then it jumps in the water, then barks",
            ["the dog jumps in the water at sunset", "the dog barks in the water at sunset"],
        ),
        (
            "a ball rolls on the grass, then it jumps while the camera pans left",
            ["the ball jumps on the grass while the camera pans left"],
        ),
        (
            "a ball rolls on the grass, then the camera zooms in, then it stops",
            ["the ball on the grass, the camera zooms in", "the ball stops on the grass"],
        ),
        (
            "a ball on the grass, the camera pans left, then zooms in, then rises",
            ["the ball on the grass, the camera zooms in", "the ball on the grass, the camera rises"],
        ),
        (
            "two cats run in the garden, then they sleep, then jump",
            ["the two cats sleep in the garden", "the two cats jump in the garden"],
        ),
        ("cats run on the beach, then they sleep", ["the cats sleep on the beach"]),
        (
            "a boy and his dog walk in the forest, then they run",
            ["the boy and his dog run in the forest"],
        ),
        ("a man in a red hat walks in the park, then he waves", ["the man in a red hat waves in the park"]),
        ("a glass of water falls on the wooden floor, then breaks", ["the glass of water breaks on the wooden floor"]),
        ("Anna walks in the rain. Then she's dancing", ["Anna is dancing in the rain"]),
        ("a small flying saucer lands in the desert, then it glows", ["the small flying saucer glows in the desert"]),
        ("a big dog slowly walks into the house, then it sleeps", ["the big dog sleeps in the house"]),
        (
            "a cat sits in the garden, then it runs to the street, then it stops",
            ["the cat runs to the street", "the cat stops"],
        ),
        ("a bird sings, then waves crash on the shore", ["waves crash on the shore"]),
        ("fireworks explode under a night sky, then they fade", ["the fireworks fade under a night sky"]),
        ("a red ball rolling on the sand, then bouncing", ["the red ball bouncing on the sand"]),
        (
            "a red ball on the grass, then turns blue, meanwhile it grows",
            ["the red ball turns blue on the grass", "the red ball grows on the grass"],
        ),
        ("0-2s: a red ball rolls on the grass | 2-4s: it jumps", ["the red ball jumps on the grass"]),
        ("a cat runs on the sand, then a cat jumps on the snow", ["a cat jumps on the snow"]),
    ],
)
def test_an_event_takes_what_it_leaves_out_from_the_one_ahead(prompt, others):
    first = Timeline.parse(prompt).events[0].text
    assert texts(prompt) == [first, *others] and not unclear(completed(Timeline.parse(prompt).events))


@pytest.mark.parametrize(
    "prompt, last",
    [
        ("a man throws a ball, then it bounces", "it bounces"),
        ("a king bows, then she smiles", "she smiles"),
        ("a red ball and a blue cube roll on the sand, then it falls", "it falls on the sand"),
        ("a red ball rolls, meanwhile a blue cube falls, then it stops", "it stops"),
        ("a red ball rolls, then they jump", "they jump"),
        ("slowly and quietly, then it jumps", "it jumps"),
        ("a ball rolls, then bounce", "bounce"),
    ],
)
def test_who_cannot_be_told_is_left_as_it_is_written(prompt, last):
    events = completed(Timeline.parse(prompt).events)
    assert events[-1].text == last and unclear(events) == [last]


@pytest.mark.parametrize("phrase", [p for table in (GROUND_PHRASES, SKY_PHRASES) for ps in table.values() for p in ps])
def test_scenes_of_the_world_stay(phrase):
    assert texts(f"a red ball rolls {phrase}, then it falls")[1] == f"the red ball falls {phrase}"
    assert texts(f"{phrase}, a red ball rolls, then a cube falls")[1] == f"a cube falls {phrase}"


@pytest.mark.parametrize(
    "text, name, plural",
    [
        ("a red sports car drives fast", "the red sports car", False),
        ("the wild horses gallop", "the wild horses", True),
        ("there is an old man at the window", "the old man", False),
        ("three small birds sing", "the three small birds", True),
        ("it rolls", None, None),
        ("rolls to the left", None, None),
        ("", None, None),
    ],
)
def test_the_noun_phrase_that_a_text_begins_with(text, name, plural):
    found = subject(text)
    assert (found and found.name, found and found.plural) == (name, plural)


WORDS = (
    "a the two his red ball balls cat man woman and of with in on at under grass beach night sky rolls roll rolling "
    "runs jump it he she they it's the-camera camera zooms left , . while slowly there is into garden to "
    "street Anna turns é 3"
)
SENTENCES = st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=9).map(" ".join)
JOINED = st.lists(st.one_of(SENTENCES, st.text(max_size=15)), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([", then ", ", meanwhile ", " then "]).map(lambda by: by.join(parts))
)


@given(JOINED)
def test_any_prompt_is_completed_once(prompt):
    try:
        timeline = Timeline.parse(prompt)
    except KinemaError:
        return
    done = timeline.completed()
    assert done.completed() == done and len(done) == len(timeline) and done.events[0] == timeline.events[0]
    assert Timeline.parse(str(done)) == done
    assert [e.meanwhile for e in done] == [e.meanwhile for e in timeline]


@given(st.lists(SENTENCES, min_size=2, max_size=5), st.integers(1, 3))
def test_a_part_of_what_is_complete_is_complete(parts, first):
    try:
        events = Timeline.parse(", then ".join(parts)).completed().events
    except KinemaError:
        return
    part = events[first:]
    assert completed(part) == part


@pytest.mark.parametrize("piece", ["a cat and ", "a cat of ", "slowly, ", "in the ", "the ", "it ", "on the grass "])
def test_long_texts_are_read_as_short_ones(piece):
    long = piece * 400 + "x"
    for text in (long, f"a ball rolls, then {long}", f"{long}, then it jumps, then {long}, then it falls"):
        assert len(str(Timeline.parse(text).completed())) < 3 * len(text) + 200


def test_shared_words_that_say_it_all_change_nothing():
    request = Request(prompt="a red ball on the grass", timeline="0-2s: it rolls to the left | 2-4s: a blue cube falls")
    assert [e.text for e in request.events] == [
        "a red ball on the grass, it rolls to the left",
        "a red ball on the grass, a blue cube falls",
    ]
    shared = Request(prompt="at night", timeline="0-2s: a red ball rolls | 2-4s: it jumps")
    assert shared.events.events[1].text == "at night, the red ball jumps"


def test_a_request_keeps_the_words_and_reads_the_events():
    request = Request(prompt="a red ball rolls on the grass, then it bounces")
    assert request.asked == request.text == request.prompt and Request(**request.model_dump()) == request
    assert request.events.events[1].text == "the red ball bounces on the grass"
    assert Prompt.parse(request.prompt).timeline == request.events == parse(request.prompt).timeline
    timed = parse("0-2s: a blue cube jumps on the snow | 2-4s: it moves to the left")
    assert timed.timeline.events[1].text == "the blue cube moves to the left on the snow"
    assert [span.word for span in timed.spans] == ["jump", "move left"]


def test_what_the_events_are_read_as_is_told_once(caplog):
    caplog.set_level(logging.WARNING, "kinema")
    for prompt in ("a red ball rolls", "a red ball rolls, then a blue cube falls"):
        tell_events(Request(prompt=prompt), [TALC()])
    tell_events(Request(prompt="a ball rolls, then it bounces"), [CFG()])  # all of it is read as one text
    assert not caplog.messages
    tell_events(Request(prompt="a ball rolls on the sand, then it bounces, then they stop"), [TALC(), TALC()])
    read, doubt = caplog.messages
    assert read.endswith(": a ball rolls on the sand | the ball bounces on the sand | they stop on the sand")
    assert doubt.startswith("the event 'they stop on the sand' does not say who or what does it")
