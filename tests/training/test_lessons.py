"""Which clips a lesson draws, and how the text encoder learns to read."""

import copy
from dataclasses import replace

import pytest
import torch

from kinema.core.errors import KinemaError
from kinema.models.text import build_text_encoder, build_tokenizer, tokenize
from kinema.training.captions import CaptionSettings, draw_captions
from kinema.training.lessons import Lesson, Timetable, check_order
from kinema.training.reading import ReadingSettings, learn_to_read
from kinema.world.caption import caption
from kinema.world.sample import sample_spec


class Scenes:
    """A cache that holds scenes only."""

    def __init__(self, count):
        self.scenes = [sample_spec(i).to_dict() for i in range(count)]

    def __len__(self):
        return len(self.scenes)

    def scene_dict(self, index):
        return self.scenes[index]


EASY = Lesson(until=100, share=0.75, cameras=("still",), max_events=1)


def test_lessons_draw_what_fits_until_they_end():
    cache = Scenes(60)
    table = Timetable([EASY, Lesson(until=200, share=1.0, max_events=1)], cache, full=100)
    share = sum(EASY.fits(scene) for scene in cache.scenes) / len(cache)
    draw = lambda seen: [cache.scenes[i] for i in table.draw(seen, 4000, torch.Generator().manual_seed(1))]  # noqa: E731
    fitting = [sum(EASY.fits(scene) for scene in draw(seen)) / 4000 for seen in (0, 99, 200)]
    assert fitting == pytest.approx([0.75 + 0.25 * share] * 2 + [share], abs=0.03)
    assert all(len(scene["events"]) <= 1 for scene in draw(100))
    assert {scene["camera"]["move"] for scene in draw(100)} > {"still"}
    cache.scenes = cache.scenes + Scenes(80).scenes[60:]  # it has grown
    assert max(table.draw(0, 4000, torch.Generator().manual_seed(1))) >= 60


def test_a_lesson_that_no_clip_fits_waits_while_the_cache_grows_and_is_refused_when_it_is_full():
    cache, generator = Scenes(60), torch.Generator().manual_seed(1)
    later = [EASY, Lesson(until=200, min_events=4)]
    assert not any(later[1].fits(scene) for scene in cache.scenes)
    assert len(set(Timetable(later, cache, full=61).draw(150, 4000, generator))) == len(cache)  # from all of them
    with pytest.raises(KinemaError, match="none of the 60 clips of the cache fits the lesson until 200"):
        Timetable(later, cache, full=60).draw(0, 4, generator)  # told before the first lesson begins
    Timetable(later, cache, full=60).draw(200, 4, generator)  # a lesson that is over needs nothing


def test_lessons_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="each must end after"):
        check_order([Lesson(until=20), Lesson(until=20)])
    with pytest.raises(ValueError, match="use some of still, pan left"):
        Lesson(until=20, cameras=("wobble",))


def test_a_text_encoder_learns_which_event_comes_first():
    scenes = [sample_spec(i) for i in range(400)]
    two = [s for s in scenes if len(s.events) == 2]
    both = two + [replace(s, events=(s.events[1], s.events[0])) for s in two]  # the same words in the other order
    tokenizer = build_tokenizer(caption(s, i) for i, s in enumerate(both))
    encoder = build_text_encoder(len(tokenizer), d_model=32, d_ff=64, num_layers=2, num_heads=2)
    plain = CaptionSettings(dense_share=0.0, strange_share=0.0)
    draw = lambda batch, g: tokenize(tokenizer, draw_captions(batch, plain, g), 36)  # noqa: E731
    quiet = lambda line: None  # noqa: E731
    settings = ReadingSettings(steps=250, batch_size=32, lr=5e-3)
    assert learn_to_read(encoder, both, draw, settings, say=quiet) > 0.8
    kept = copy.deepcopy(encoder.state_dict())
    learn_to_read(encoder, both, draw, replace(settings, steps=0), say=quiet)
    assert all(torch.equal(kept[key], value) for key, value in encoder.state_dict().items())
