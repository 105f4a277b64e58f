"""What was asked for and when: on a picture, and beside what the judge reads."""

import json

import pytest
import torch

import kinema
from kinema.cli import run, when
from kinema.cli.when import Read, Seen, in_time, read_times
from kinema.timeline import Timeline
from kinema.timeline.sheet import (
    BACK,
    COLOURS,
    EDGE,
    GAP_IN_TIME,
    GIVEN,
    LINE,
    NARROWEST,
    Box,
    Making,
    every,
    fullest,
    lanes_of,
    parted,
    timeline_sheet,
)
from kinema.video import Video, load_picture
from kinema.world.caption import timed_caption
from kinema.world.motion import simulate
from kinema.world.render import render
from kinema.world.sample import sample_spec

SIZE = ["--height", "64", "--width", "64", "--num-inference-steps", "2", "--seed", "1"]
WORLD = {"data": {"world": "any", "height": 128, "width": 128, "num_frames": 25, "fps": 8}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_generate_with_a_timeline(tiny_wan, here, capsys, caplog):
    (here / "t.yaml").write_text("- {start: 0, end: 0.5, text: it rolls}\n- {start: 0.5, end: 1, text: it jumps}\n")
    common = ["generate", "a red ball", "--model", str(tiny_wan), *SIZE, "--technique", "talc", "--fps", "8"]
    assert run([*common, "--timeline", "t.yaml", "--sheet", "a.png", "--out", "a.mp4"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].startswith("9 frames") and told[-1] == "a.png" and "8 frames; " in caplog.text
    assert told[-2].startswith("times of events: not read, as the judge knows clips of kinema's world only")
    assert (load_picture("a.png") == COLOURS[0]).all(-1).any() and (load_picture("a.png") == COLOURS[1]).all(-1).any()
    recipe = json.loads((here / "a.json").read_text())["kinema"]
    request = recipe["request"]
    assert request["timeline"] == "0-0.5s: it rolls | 0.5-1s: it jumps" and request["num_frames"] == 9
    assert run(["generate", "--from", "a.mp4", "--out", "b.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"]
    assert run([*common, "--timeline", "0-0.5s: it rolls | 0.5-1s: it falls", "--out", "c.mp4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["events"] == [] and "kinema's world" in answer["events_not_read"] and "sheet" not in answer
    assert (Video.load("c.mp4").frames != Video.load("a.mp4").frames).any()
    assert run(["show", "a.mp4", "--timeline", "--out", "d.png"]) == 0
    assert (load_picture("d.png") == load_picture("a.png")).all()
    made = kinema.generate(
        "a red ball", timeline=Timeline.parse(request["timeline"]), seconds=1.1, fps=8, model=tiny_wan,
        height=64, width=64, num_inference_steps=2, seed=1, techniques=["talc"],
    )  # fmt: skip
    assert len(made) == 9 and made.metadata["kinema"]["frames"] == recipe["frames"]


def test_a_remade_video_keeps_its_timeline_unless_the_new_prompt_says_what_happens(tiny_wan, here, capsys):
    common = ["--model", str(tiny_wan), *SIZE, "--fps", "8", "--num-frames", "9", "--technique", "talc"]
    timeline = "0-0.5s: it rolls | 0.5-1s: it jumps"
    assert run(["generate", "a red ball", *common, "--timeline", timeline, "--out", "a.mp4"]) == 0
    for prompt, kept, changed in [
        ("a blue cube", timeline, ["prompt"]),
        ("a blue cube rolls, then it falls", None, ["prompt", "timeline"]),
        ("0-0.5s: a cube | 0.5-1s: it falls", None, ["prompt", "timeline"]),
    ]:
        capsys.readouterr()
        assert run(["generate", prompt, "--from", "a.mp4", "--out", "b.mp4", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["changed"] == changed
        request = json.loads((here / "b.json").read_text())["kinema"]["request"]
        assert request["prompt"] == prompt and request["timeline"] == kept


@pytest.mark.parametrize(
    "words, says",
    [
        (["--timeline", "0-1s: a | 1-2: b"], "column 11: expected a range as in"),
        (["--timeline", "0-1s: a"], "the timeline gives times, and no technique of this request follows them; add one"),
        (["--timeline", "t.yaml"], "cannot read t.yaml"),
        (["a", "--seconds", "2", "--num-frames", "5"], "seconds and num_frames are both given"),
        (["a", "--sheet", "a.txt"], "cannot write a.txt: use .png"),
        (["0-1s: a | b"], "column 11: expected a range as in"),
    ],
)
def test_refused_before_the_model_is_loaded(words, says, here, capsys, monkeypatch):
    monkeypatch.setattr("kinema.backbones.load.load", lambda *_, **__: pytest.fail("loaded"))
    assert run(["generate", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not list(here.iterdir())


def test_the_judge_reads_when_events_of_the_world_begin_and_end():
    spec = next(spec for spec in map(sample_spec, range(100)) if len(spec.events) == 2)
    video = Video(render(simulate([spec])[0]).frames[0].numpy(), fps=spec.fps)
    read, why = read_times(video, timed_caption(spec), WORLD, "mini")
    assert why == "" and len(read) == 2 and all(event.found is not None for event in read)
    assert max(abs(event.to_dict()[which]) for event in read for which in ("start_error", "end_error")) < 0.25, read
    late = read_times(video, timed_caption(spec).replace("0.", "0.3", 1), WORLD, "mini")[0][0]
    assert late.to_dict()["start_error"] == pytest.approx(read[0].to_dict()["start_error"] + read[0].start - late.start)
    assert str(late).startswith(f"{late.word}: asked for at {late.start:.2f}-{late.end:.2f} s, read at")


def test_times_of_two_things_are_told_with_doubt():
    video = Video(torch.zeros(49, 128, 128, 3, dtype=torch.uint8).numpy(), fps=8)
    read, why = read_times(video, "0-3s: a red ball jumps | 3-6s: a blue cube grows", WORLD, "m")
    assert [event.word for event in read] == ["jump", "grow"]
    assert why == "less sure, as the prompt names 2 things and the judge was trained on 1"
    told = Seen(read=tuple(read), why=why)
    assert next(told.lines()) == f"times of events: {why}" and told.to_dict()["events_doubt"] == why
    assert told.to_dict()["events_not_read"] is None and Seen(why="x").to_dict()["events_doubt"] is None


def test_events_in_plain_english_are_read_in_their_even_shares(tiny_wan, here, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(when, "read_times", lambda video, asked, *_: said.append(asked) or ([Read("roll", 0, 0.5)], ""))
    asked = ["generate", "a red ball rolls, then it jumps", "--model", str(tiny_wan), *SIZE, "--fps", "9"]
    asked += ["--num-frames", "9", "--out", "a.mp4"]
    assert run([*asked, "--json"]) == 0
    assert not said and "events" not in json.loads(capsys.readouterr().out)  # nothing follows times
    assert run([*asked, "--technique", "talc", "--json"]) == 0
    assert said == ["0-0.5s: a red ball rolls | 0.5-1s: it jumps"]
    answer = json.loads(capsys.readouterr().out)
    assert answer["events_share_evenly"] and answer["events"][0]["end"] == 0.5 and answer["events_not_read"] is None
    told = list(Seen(read=(Read("roll", 0, 0.5),), even=True).lines())
    assert told[0].endswith("each event is asked for in an even share of the video") and told[1].endswith(", not read")
    one = ["a red ball rolls" if word.startswith("a red") else word for word in asked]
    assert run([*one, "--technique", "talc"]) == 0 and len(said) == 1


def test_times_of_a_video_that_goes_on_from_a_clip_count_from_its_end():
    assert in_time("a ball, then a cube", grey(24)) == "0-1.5s: a ball | 1.5-3s: a cube"
    assert in_time("a ball, then a cube", grey(24), 1.0) == "1-2s: a ball | 2-3s: a cube"
    assert in_time("0-50%: a ball", grey(24), 1.0) == "1-2s: a ball"
    assert in_time("[0:12] a ball", grey(24)) == "0-1.5s: a ball"


@pytest.mark.parametrize(
    "frames, size, asked, card, says",
    [
        (25, 128, "0-1s: a ball jumps", {}, "model 'm' was not trained on them"),
        (25, 64, "0-1s: a ball jumps", WORLD, "the judge knows clips of 128x128, and this one is 64x64"),
        (25, 128, "0-1s: a ball spins", WORLD, "the judge cannot tell spin"),
        (25, 128, "0-1s: a ball jumps | 1-2s: it grows | 2-3s: it falls", WORLD, "tells 2 events in 3.125 s"),
        (25, 128, "0-1s: a ball", WORLD, "names no event that the judge knows"),
    ],
)
def test_why_the_judge_does_not_look(frames, size, asked, card, says):
    video = Video(torch.zeros(frames, size, size, 3, dtype=torch.uint8).numpy(), fps=8)
    assert read_times(video, asked, card, "m")[0] == [] and says in read_times(video, asked, card, "m")[1]


def grey(frames: int) -> Video:
    return Video(torch.full((frames, 16, 16, 3), 200, dtype=torch.uint8).numpy(), fps=8)


def test_bars_stand_above_the_frames_of_their_time():
    timeline = Timeline.parse("0-1s: a | 1.5-2.5s: b | 2-3s: meanwhile c")
    assert lanes_of([event.span for event in timeline]) == [0, 0, 1]
    sheet = timeline_sheet(grey(24), timeline, Making(says="seed 7"), columns=6, cell=32)
    pixels, first = sheet.load(), 2 * EDGE + 3 * LINE
    high = [lanes * LINE + 32 + LINE + 2 * EDGE for lanes in (1, 1, 2, 2)]  # nothing overlaps in the first two rows
    assert sheet.size == (NARROWEST, first + sum(high) + LINE)
    for place in range(24):
        x, y = EDGE + place % 6 * 36 + 34 - 8, first + sum(high[: place // 6])
        time, lanes = (place + 0.5) / 8, 1 + (place >= 12)
        lane_0 = COLOURS[0] if time < 1 else COLOURS[1] if 1.5 <= time < 2.5 else GAP_IN_TIME
        lane_1 = COLOURS[2] if time >= 2 else BACK
        assert [pixels[x, y + 1 + lane * LINE] for lane in range(lanes)] == [lane_0, lane_1][:lanes], place
        assert pixels[x, y + lanes * LINE + 16] == (200, 200, 200)
    assert pixels[0, 0] == BACK
    foot = sheet.crop((0, sheet.height - LINE, NARROWEST, sheet.height))
    assert len(foot.getcolors()) > 2  # the seed is told


def test_a_short_clip_is_shown_whole_and_a_long_one_at_even_times():
    assert [every(n) for n in (1, 25, 32, 33, 57, 65, 200)] == [1, 1, 1, 2, 2, 3, 7]
    assert [fullest(n) for n in (1, 10, 25, 29, 32)] == [1, 10, 9, 10, 8]
    video = grey(33)
    video.frames[:] = torch.arange(33, dtype=torch.uint8)[:, None, None, None]
    sheet = timeline_sheet(video, None, columns=4, cell=16)
    shown = {sheet.getpixel((EDGE + c * 20 + 8, EDGE * 2 + r * (2 * LINE + 16 + 2 * EDGE) + LINE + 8))
             for r in range(5) for c in range(4)}  # fmt: skip
    assert {(n, n, n) for n in range(0, 33, 2)} <= shown


@pytest.mark.parametrize(
    "texts, shared, own",
    [
        (["a red ball, it rolls", "a red ball, it jumps"], "a red ball", ["it rolls", "it jumps"]),
        (["a red ball rolls", "a red ball jumps"], "a red ball", ["rolls", "jumps"]),
        (["a ball rolls", "a cube falls"], "", ["a ball rolls", "a cube falls"]),
        (["a ball rolls", "a ball"], "", ["a ball rolls", "a ball"]),
        (["a red ball rolls"], "", ["a red ball rolls"]),
    ],
)
def test_what_events_share_is_told_once(texts, shared, own):
    assert parted(texts) == (shared, own)


def test_what_was_given_and_what_nothing_follows_look_different():
    making = Making(given=((0.0, 1.0),), opening=1.0, followed=False, boxes=(Box("a", 0, 0, 0.5, 0.5, 1.5, 2.0),))
    sheet = timeline_sheet(grey(16), Timeline.parse("a"), making, columns=16, cell=32)
    y = 2 * EDGE + 3 * LINE  # what is given, the event, and what stripes mean
    bar = [sheet.getpixel((EDGE + x, y + 1)) for x in range(16 * 36 - EDGE)]
    assert set(bar[: 8 * 36 - EDGE]) == {GIVEN} and set(bar[8 * 36 :]) == {
        COLOURS[0],
        tuple(c // 2 for c in COLOURS[0]),
    }
    corner = [sheet.getpixel((EDGE + place * 36, y + LINE + 10)) for place in range(16)]
    assert corner == [(200, 200, 200)] * 12 + [(255, 255, 255)] * 4


def test_the_sheet_reads_from_the_recipe_what_was_given_and_where(tiny_wan, here):
    from kinema.cli.making import making_of

    with_region = "paint_with_words:regions=ball: 0 0.5 0.5 1 @ 0-0.5s"
    asked = ["generate", "a red ball rolls, then it jumps", "--model", str(tiny_wan), *SIZE, "--fps", "8"]
    assert run([*asked, "--num-frames", "9", "--technique", with_region, "--out", "b.mp4"]) == 0
    video = Video.load("b.mp4")
    making = making_of(video.metadata["kinema"], video)
    assert making.boxes == (Box("ball", 0, 0.5, 0.5, 1, 0, 0.5),) and not making.followed and not making.given
    assert (
        making.says.startswith("model ") and "seed 1  |  2 steps  |  paint_with_words (regions ball: 0" in making.says
    )
    assert run(["show", "b.mp4", "--timeline"]) == 0
    made = {"request": {"prompt": "a", "video": "a.mp4"}, "given": [[0, 4], [5, 9]], "opening": 4}
    making = making_of(made, video)
    assert making.given == ((0, 0.5), (0.625, 1.125)) and making.opening == 0.5
    assert making_of(None, video) == making_of({"request": {"seed": "x"}}, video) == Making()
