"""Questions about clips, and the models that answer them."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import world_clips

from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.asked import parse
from kinema.metrics.extractors import openai, vlm
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.metric import find
from kinema.metrics.questions import Claim, Question, clock, questions, share_of_yes, shown_frames

PROMPT = "a red ball bounces on the grass at night, then rolls to the left, the camera pans right"
THERE = Question(text="Is there a ball ?", claim=Claim(about="kind", value="ball"))


def test_a_prompt_gives_one_question_for_each_thing_it_asks_for():
    assert [q.text for q in questions(parse(PROMPT))] == [
        "Is there a ball in the video?",
        "Is the ball red?",
        "Is the ground grass?",
        "Does the video show the night?",
        "Is the red ball bouncing at some time in the video?",
        "Is the red ball moving to the left at some time in the video?",
        "Is the camera panning right?",
    ]
    assert questions(parse("what a wonderful world")) == []


def test_nominal_frames_map_to_the_ends_and_come_once():
    assert clock((1, 16), 16) == [0, 15] and clock((1, 9, 16), 25) == [0, 13, 24]
    assert clock(range(1, 7), 4) == [0, 1] and clock((1, 5, 9, 13, 16), 1) == [0]
    second_half = Question(text="", claim=THERE.claim, frames=(1, 16), span=(0.5, 1.0))
    assert second_half.shown(25) == [12, 24]
    assert shown_frames(np.arange(25), THERE).tolist() == [0, 3, 7, 10, 14, 17, 21, 24]


def test_three_of_four_right():
    assert share_of_yes(np.array([1.0, 0.9, 0.4, 0.51])) == 0.75
    assert share_of_yes(np.array([1.0, math.nan, 0.5])) == 0.5  # an even chance is no yes
    assert share_of_yes(np.array([math.nan])) is None


def test_chance_of_yes_by_logits():
    assert vlm.chance_of_yes(torch.tensor([0.0, 2.0, 1.0]), 1, 2) == pytest.approx(0.7311, abs=5e-5)


def test_each_wrong_claim_costs_one_share():
    clip = world_clips(1)[0]  # a yellow cone grows and then bounces on the water under a night sky, camera tilting up
    alignment = find("t2v_alignment")
    assert alignment(clip) == 1.0
    swaps = [("cone", "cube"), ("yellow", "blue"), ("water", "grass"), ("grows", "jumps"), ("bounces", "falls")]
    for old, new in [*swaps, ("tilting up", "tilting down"), ("under a night sky", "by day")]:
        assert alignment(clip.but(prompt=clip.prompt.replace(old, new))) == pytest.approx(6 / 7)
    assert alignment(clip.but(prompt="a person waves")) is None  # words that the judge does not know


def test_one_frame_loses_all_questions_on_motion():
    clip = world_clips(1)[0]
    still = clip.but(frames=clip.frames[:1])
    world = load_extractor("world")
    asked = [q for q in questions(parse(clip.prompt)) if q.claim.about in ("event", "camera")]
    assert len(asked) == 3 and not world.answers(still.frames, 8.0, asked).any()


@pytest.fixture(scope="module")
def tiny_vlm(tmp_path_factory) -> Path:
    """A random model of the kind of SmolVLM, with its tokenizer and processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    folder = tmp_path_factory.mktemp("vlm")
    special = ["<pad>", "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<row_1_col_1>"]
    words = ["[UNK]", *special, "Yes", "No", "Is", "there", "a", "ball", "?"]
    text = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=text, unk_token="[UNK]", pad_token="<pad>", additional_special_tokens=special[1:]
    )
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
        "{% endfor %}<end_of_utterance>{% endfor %}"
    )
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 28}, max_image_size={"longest_edge": 28})
    Idefics3Processor(pictures, tokenizer, image_seq_len=1, chat_template=template).save_pretrained(folder)
    small = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(
        Idefics3Config(
            image_token_id=words.index("<image>"),
            text_config=dict(model_type="llama", vocab_size=len(words), pad_token_id=1, eos_token_id=4, **small),
            vision_config=dict(image_size=28, patch_size=14, **small),
            pad_token_id=1,
        )
    ).save_pretrained(folder)
    return folder


def test_a_vision_language_model_answers(tiny_vlm):
    model = load_extractor(f"vlm@{tiny_vlm}")
    frames = world_clips(1)[0].frames
    twice = model.answers(frames, 8.0, [THERE, THERE])
    assert twice.shape == (2,) and 0 < twice[0] < 1 and twice[0] == twice[1]
    assert model.answers(255 - frames, 8.0, [THERE])[0] != twice[0]  # it sees the frames
    assert model.yes != model.no and model.network.config.model_type == "idefics3"
    assert find("t2v_alignment")(frames, prompt="a ball", extractor=model) in (0.0, 1.0)


def test_a_model_that_cannot_be_had_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(KinemaError, match="weights cannot be read") as error:
        load_extractor(f"vlm@{tmp_path}")
    assert "\n" not in str(error.value)


class _Server(HTTPServer):
    """Answers as told, and keeps what was asked."""

    def __init__(self, replies: list[tuple[int, object]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.asked, self.keys = replies, [], []

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    @property
    def model(self) -> openai.ChatEndpoint:
        return openai.ChatEndpoint(f"http://127.0.0.1:{self.server_port}/v1#seer")


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        self.server.keys.append(self.headers.get("Authorization"))
        code, reply = self.server.replies.pop(0)
        data = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def said(word: str, **chances: float) -> dict:
    """An answer of chat completions, with chances of the first word where there are any."""
    likely = [{"token": token, "logprob": math.log(chance)} for token, chance in chances.items()]
    logprobs = {"content": [{"token": word, "top_logprobs": likely}]} if likely else None
    return {"choices": [{"message": {"content": word}, "logprobs": logprobs}]}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(openai, "WAIT", 0.001)


def test_an_endpoint_answers_by_chances_or_by_the_word(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")
    chances = said("Yes", Yes=0.5, yes=0.1, No=0.2, maybe=0.2)
    with _Server([(200, chances), (200, said("No.")), (200, said("Perhaps"))]) as server:
        found = server.model.answers(world_clips(1)[0].frames, 8.0, [THERE] * 3)
    assert found == pytest.approx([0.6 / 0.8, 0.0, 0.5])
    path, body = server.asked[0]
    assert path == "/v1/chat/completions" and (body["model"], body["temperature"]) == ("seer", 0)
    pictures = body["messages"][0]["content"][:-1]
    assert len(pictures) == 8 and pictures[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert "Is there a ball ?" in body["messages"][0]["content"][-1]["text"]
    assert set(server.keys) == {"Bearer sesame"}


def test_a_busy_endpoint_is_asked_again_and_one_without_chances_without():
    replies = [(429, "busy"), (503, ""), (400, "logprobs are not supported"), (200, said("yes")), (200, said("no"))]
    with _Server(replies) as server:
        assert server.model.answers(np.zeros((1, 16, 16, 3), np.uint8), 8.0, [THERE, THERE]).tolist() == [1.0, 0.0]
    assert ["logprobs" in body for _, body in server.asked] == [True, True, True, False, False]


@pytest.mark.parametrize(
    "replies, match",
    [
        ([(401, "")], "set OPENAI_API_KEY"),
        ([(404, "no such model")], "answers 404 for model 'seer': no such model"),
        ([(200, "<html>")], "no JSON"),
        ([(200, {"choices": []})], "another form"),
        ([(500, "")] * 5, "after 5 tries .* try again later"),
    ],
)
def test_an_endpoint_that_fails_is_one_sentence(replies, match):
    with _Server(replies) as server, pytest.raises(KinemaError, match=match):
        server.model.answers(np.zeros((1, 16, 16, 3), np.uint8), 8.0, [THERE])
    assert not server.replies


def test_no_endpoint_is_one_sentence():
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        load_extractor("openai@http://127.0.0.1:9/v1#seer").answers(np.zeros((1, 16, 16, 3), np.uint8), 8.0, [THERE])
    with pytest.raises(KinemaError, match="write openai@http"):
        load_extractor("openai@localhost")
    with pytest.raises(KinemaError, match="answers no questions"):
        load_extractor("dis").answers(np.zeros((1, 16, 16, 3), np.uint8), 8.0, [THERE])
