"""Timelines in YAML files: what they say, where they are wrong, and what of it a model reads."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.request import Request
from kinema.timeline import Timeline
from kinema.timeline import given as given_timeline
from kinema.timeline.file import from_yaml
from kinema.world.reading import parse_caption
from kinema.world.words import CAMERA_PHRASES

PIECES = ("-", "{", "}", "[", "]", ": ", ",", "start", "end", "text", "0", "3", "&a", "*a", "\n", "  ", "!x", "a")
FILE = """
# a comment
- start: 0
  end: 1.5
  text: a red ball rolls left.
  camera: the camera pans to the left
- {start: 1, end: 3s, text: meanwhile a cube falls}
"""


def test_a_file_says_what_a_text_says(tmp_path):
    (tmp_path / "a.yaml").write_text(FILE)
    same = "0-1.5s: a red ball rolls left, the camera pans to the left | 1-3s: meanwhile a cube falls"
    assert given_timeline(tmp_path / "a.yaml") == given_timeline(str(tmp_path / "a.yaml")) == Timeline.parse(same)
    request = Request(prompt="on the grass.", timeline=tmp_path / "a.yaml")
    assert request.timeline == same and request.text.startswith("on the grass, a red ball rolls left, the camera")
    assert [e.text for e in request.events][1] == "on the grass, a cube falls"
    assert request.asked.endswith("| 1-3s: meanwhile on the grass, a cube falls")


def test_a_text_file_says_what_a_text_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("\ufeff0-1s: a ball\r\n\r\n1-2s: it jumps | 2-3s: it falls\r\n", encoding="utf-8")
    same = Timeline.parse("0-1s: a ball | 1-2s: it jumps | 2-3s: it falls")
    assert given_timeline("a.txt") == given_timeline(Path("a.txt")) == same
    assert Request(timeline="a.txt").timeline == str(same)


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("a.txt", "0-1s: a\n2-1s: b", "a.txt, line 2, column 1: the event 'b' lasts from 2 to 1"),
        ("a.txt", "a, then b", "a.txt, column 1: the timeline says no times"),
        ("a.txt", "\n", "the timeline a.txt is empty"),
        ("a.txt", "a" * 300_001, "the timeline a.txt has 300001 bytes; use at most 300000"),
        ("a.mp4", "0-1s: a", "the timeline a.mp4 is no text file; name a .yaml"),
        ("story", "0-1s: a", "the timeline story is no text file"),
        ("folder/a.txt", "0-1s: a", "the timeline folder is a folder; name a .yaml"),
    ],
)
def test_other_files_are_refused_as_files(name, text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    for value in (name.split("/")[0], Path(name.split("/")[0])):
        with pytest.raises(KinemaError, match=f"^{re.escape(says)}"):
            given_timeline(value)


def test_what_is_no_timeline_at_all_is_told_what_is():
    with pytest.raises(KinemaError, match="^timeline is 5; give a text, a path or a kinema.Timeline$"):
        Request(prompt="a", timeline=5)
    assert Request(prompt="a", timeline=None).timeline is None


@given(
    st.lists(st.tuples(st.integers(1, 9), st.text("ab|:é#'\"- ", min_size=1).filter(str.strip)), min_size=1, max_size=4)
)
def test_whatever_yaml_can_say_comes_back(parts):
    clock, events = 0, []
    for length, text in parts:
        events.append({"start": f"{clock}%", "end": f"{clock + length}%", "text": f"x {text}"})
        clock += length
    timeline = from_yaml(yaml.safe_dump(events, allow_unicode=True))
    assert [(e.start, e.end, e.text) for e in timeline] == [
        (float(e["start"][:-1]), float(e["end"][:-1]), " ".join(e["text"].split())) for e in events
    ]
    assert timeline.unit == "%" and Timeline.parse(str(timeline)) == timeline


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    try:
        from_yaml(text, "a.yaml")
    except KinemaError as error:
        assert str(error).startswith("a.yaml") and len(str(error).splitlines()) == 1


@pytest.mark.parametrize("move", sorted(CAMERA_PHRASES))
def test_cameras_of_the_world_are_read_as_what_they_are(move):
    for third, _, where in CAMERA_PHRASES[move]:
        camera = f"the camera {third} {where}".strip()
        timeline = from_yaml(f"- {{start: 0, end: 3, text: a red ball jumps, camera: {camera}}}")
        assert parse_caption(timeline.events[0].text).camera == move
        assert parse_caption(timeline.events[0].text).events == ("jump",)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "a.yaml: expected a list of events"),
        ("a: b", "a.yaml, line 1, column 1: expected a list"),
        ("- 1", "line 1, column 3: expected an event"),
        ("- start: 0\n  end: 1", "line 1, column 3: the event has no text"),
        ("- start: 0\n  end: x\n  text: a", "line 2, column 8: end is 'x'"),
        (
            "- {start: 0, end: 1, text: a}\n- {start: 0.5, end: 2, text: b}",
            "line 2, column 11: the event 'b' starts at 0.5",
        ),
        ("- {start: 2, end: 1, text: a}", "line 1, column 3: the event 'a' lasts from 2 to 1"),
        ("- {start: 0, end: 1, text: a}\n- {start: 1, end: 2f, text: b}", "line 2, column 11: start is in frames"),
        ("- {start: 0, end: 1, text: a, txt: b}", "line 1, column 31: an event has no field 'txt'"),
        ("- {start: 0, end: 1, text: a, text: b}", "line 1, column 31: text is given twice"),
        ("- {start: 0, end: [1], text: a}", "line 1, column 19: end is no text and no number"),
        (
            "- {start: 0, end: 1, text: a, camera: zoom in}",
            "line 1, column 39: camera is 'zoom in'; write what it does",
        ),
        ("- {start: 0, end: 1, text: '1-2s: a'}", "line 1, column 28: text holds a range"),
        ("- {start: 0, end: 1, text: ''}", "line 1, column 28: text is empty"),
        ("- {start: 0", "line 1, column 12: expected"),
        ("- {start: 0, end: 1, text: 5}", "line 1, column 28: text is '5', no text; put it in quotes"),
        ("- {start: 0, end: 1, text: yes}", "line 1, column 28: text is 'yes', no text"),
        ("- {start: 0, end: 1, text: a, camera: 3}", "line 1, column 39: camera is '3', no text"),
        ("[" * 5000, "a.yaml: it is no YAML that can be read"),
    ],
)
def test_refused_at_its_place(text, says):
    with pytest.raises(KinemaError, match=re.escape(says)):
        from_yaml(text, "a.yaml")


@pytest.mark.parametrize(
    "value, says",
    [
        ("a, then b", "column 1: the timeline says no times"),
        (Timeline.parse("a"), "column 1: the timeline says no times"),
        (" ", "the timeline is empty"),
        ("no.yaml", "cannot read no.yaml: there is no such file"),
        (3, "timeline is 3; give a text, a path or a kinema.Timeline"),
        ("no.txt", "cannot read no.txt: there is no such file"),
        ("a story.yml", "cannot read a story.yml: there is no such file"),
        ("a" * 5000 + ".txt", "cannot read aaaa"),
        ("\0.txt", "cannot read '\\x00.txt': no file has such a name"),
        ("a.mp4", "the timeline a.mp4 is no text file; name a .yaml, .yml or .txt file, or write the events"),
        ("a ball rolls. It jumps.", "column 1: the timeline says no times"),
    ],
)
def test_a_timeline_has_times(value, says):
    with pytest.raises(KinemaError, match=re.escape(says)):
        given_timeline(value)


def test_prompt_and_timeline_say_different_things():
    for prompt in ("a, then b", "0-1s: a"):
        with pytest.raises(KinemaError, match="prompt and timeline both say what happens when"):
            Request(prompt=prompt, timeline="0-1s: c")
    with pytest.raises(KinemaError, match="an event's text holds what parts events"):
        Request(prompt="meanwhile", timeline="0-1s: c | 1-2s: d")
