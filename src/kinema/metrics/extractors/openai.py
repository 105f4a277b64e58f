"""A vision-language model behind an endpoint that speaks OpenAI's chat completions, on this machine or elsewhere."""

from __future__ import annotations

import base64
import io
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.questions import Question, shown_frames, spoken

ASKED = "Answer with one word, yes or no."
EDGE = 512  # pixels, longer edge of what is sent at most
SECONDS = 120.0  # until an answer is given up
TRIES = 5
WAIT = 1.0  # seconds before the second try, twice as long before each next
MOST_WAIT = 30.0
BUSY = (408, 429, 500, 502, 503, 504)


@extractor("openai", gives=("answers",), usual="https://api.openai.com/v1#gpt-4.1-mini")
class ChatEndpoint(Extractor):
    """A model by `openai@URL#MODEL`, for example `openai@http://127.0.0.1:8000/v1#my-model`.

    It sees the frames that the question is about, at most 8 spread evenly, as JPEG pictures, and is asked once for each
    question at temperature 0. The answer is p(yes) / (p(yes) + p(no)) where the endpoint tells chances of words; else 1
    for a yes, 0 for a no and 0.5 for any other word. The key is read from OPENAI_API_KEY, where it is set.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.url, _, self.id = model.partition("#")
        if not self.url.startswith(("http://", "https://")) or not self.id:
            raise KinemaError(f"{model!r} is no endpoint and model; write openai@http://HOST:PORT/v1#MODEL")
        self.chances = True  # whether the endpoint takes a request for chances of words

    def answers(self, frames: np.ndarray, fps: float, questions: Sequence[Question]) -> np.ndarray:
        return np.array([self._answer(frames, question) for question in questions], np.float64)

    def _answer(self, frames: np.ndarray, question: Question) -> float:
        pictures = shown_frames(frames, question)
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": _jpeg(p)}} for p in pictures]
        content.append({"type": "text", "text": f"{spoken(question, len(pictures))} {ASKED}"})
        body: dict[str, Any] = {
            "model": self.id,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": 8,
        }
        try:
            return chance_of_yes(self._ask(body)["choices"][0])
        except (LookupError, TypeError, AttributeError) as error:
            raise KinemaError(f"{self.url} answered in another form than chat completions have") from error

    def _ask(self, body: dict[str, Any]) -> Any:
        """The endpoint's answer; what is busy is asked again. Raises: Unreachable, KinemaError when it refuses."""
        import httpx

        answer, wait, reason = None, WAIT, ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(min(_asked_to_wait(answer) or wait, MOST_WAIT))
                wait *= 2
            try:
                answer = self._post(body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason, answer = (
                    f"cannot be reached ({type(error).__name__}); start a server there or name another",
                    None,
                )
                continue
            if answer.status_code not in BUSY:
                return self._read(answer)
            reason = f"is too busy (it answers {answer.status_code}); try again later"
        raise Unreachable(f"after {TRIES} tries {self.url} {reason}")

    def _post(self, body: dict[str, Any]) -> Any:
        """One request; an endpoint that takes no request for chances of words is asked without from then on."""
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        told: dict[str, Any] = {"headers": {"Authorization": f"Bearer {key}"} if key else {}, "timeout": SECONDS}
        url = f"{self.url}/chat/completions"
        if self.chances:
            answer = httpx.post(url, json=body | {"logprobs": True, "top_logprobs": 10}, **told)
            if answer.status_code != 400 or "logprobs" not in answer.text:
                return answer
            self.chances = False
        return httpx.post(url, json=body, **told)

    def _read(self, answer: Any) -> Any:
        if answer.status_code in (401, 403):
            raise KinemaError(f"{self.url} refuses the key ({answer.status_code}); set OPENAI_API_KEY to one it takes")
        if answer.status_code != 200:
            what = " ".join(answer.text.split())[:200]
            raise KinemaError(f"{self.url} answers {answer.status_code} for model {self.id!r}: {what}")
        try:
            return answer.json()
        except ValueError as error:
            raise KinemaError(f"{self.url} answered no JSON; is it an endpoint of chat completions?") from error


def chance_of_yes(choice: dict[str, Any]) -> float:
    """The chance of a yes in one choice of an answer, 0..1: by the chances of the first word, else by the word."""
    words = (choice.get("logprobs") or {}).get("content") or []
    likely = words[0].get("top_logprobs") or [] if words else []
    chance = {"yes": 0.0, "no": 0.0}
    for each in likely:
        word = each["token"].strip(" \n.*▁").lower()
        if word in chance:
            chance[word] += math.exp(each["logprob"])
    if sum(chance.values()) > 0:
        return chance["yes"] / sum(chance.values())
    said = (choice["message"]["content"] or "").strip(" \n*\"'").lower()
    return 1.0 if said.startswith("yes") else 0.0 if said.startswith("no") else 0.5


def _asked_to_wait(answer: Any) -> float | None:
    """Seconds that a busy endpoint asks for."""
    told = answer.headers.get("Retry-After", "") if answer is not None else ""
    return float(told) if told.replace(".", "", 1).isdigit() else None


def _jpeg(frame: np.ndarray) -> str:
    """A picture as a data URL, its longer edge at most EDGE pixels."""
    from PIL import Image

    picture, data = Image.fromarray(frame), io.BytesIO()
    picture.thumbnail((EDGE, EDGE))
    picture.save(data, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
