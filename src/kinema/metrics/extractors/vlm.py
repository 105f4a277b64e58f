"""A vision-language model of transformers that answers questions with yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.layers.hub import Source
from kinema.layers.pixels import device
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.questions import Question, shown_frames, spoken

ASKED = "Answer with Yes or No."


@extractor("vlm", gives=("answers",), usual="HuggingFaceTB/SmolVLM-Instruct")
class VisionLanguage(Extractor):
    """Any image-text-to-text model of transformers, for example `vlm@Qwen/Qwen2.5-VL-3B-Instruct`.

    It sees the frames that the question is about, at most 8 spread evenly, as pictures in a row, and is asked once for
    each question. The answer is p(Yes) / (p(Yes) + p(No)) by the log odds of the first word that it would say, as the
    rater of VideoPhy (2024, arXiv:2406.03520) has it. Pictures are not cut into tiles where the model would do so:
    frames are small. Some processors need torchvision, which kinema does not install.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        source = Source.open(self.name, model)
        self.network = source.network({str(source.config.get("model_type")): "AutoModelForImageTextToText"})
        self.processor = source.processor()
        if not getattr(self.processor, "chat_template", None):
            raise KinemaError(f"extractor {self.label} has no chat template; use a model that follows instructions")
        pictures: Any = getattr(self.processor, "image_processor", None)
        if hasattr(pictures, "do_image_splitting"):
            pictures.do_image_splitting = False
        self.yes, self.no = (self._first_token(word) for word in ("Yes", "No"))
        if self.yes == self.no:
            raise KinemaError(f"extractor {self.label} has one token for both Yes and No; use another model")

    def answers(self, frames: np.ndarray, fps: float, questions: Sequence[Question]) -> np.ndarray:
        return np.array([self._answer(frames, question) for question in questions], np.float64)

    def _first_token(self, word: str) -> int:
        return int(self.processor.tokenizer.encode(word, add_special_tokens=False)[0])

    @torch.inference_mode()
    def _answer(self, frames: np.ndarray, question: Question) -> float:
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in shown_frames(frames, question)]
        content: list[dict[str, Any]] = [{"type": "image"} for _ in pictures]
        content.append({"type": "text", "text": f"{spoken(question, len(pictures))} {ASKED}"})
        talk = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        ready = self.processor(text=[talk], images=[pictures], return_tensors="pt").to(device())
        return chance_of_yes(self.network(**ready).logits[0, -1], self.yes, self.no)


def chance_of_yes(logits: Tensor, yes: int, no: int) -> float:
    """p(yes) / (p(yes) + p(no)) from the logits (V,) of the next word: the softmax over these two."""
    return float(torch.sigmoid(logits[yes].double() - logits[no].double()))
