"""Words of a prompt as the tokens that a network reads: by what its tokenizer spells, behind templates and pictures."""

import re

import pytest

from backbones.test_families import CASES, request
from kinema.backbones.load import load
from kinema.backbones.words import Spelling, framed, spelled
from kinema.core.errors import KinemaError

ROWS = {  # every family that reads text, and how many tokens of a picture stand before its words
    "wan 2.1 t2v": 0,
    "skyreels v2": 0,
    "cogvideox 5b": 0,
    "ltx 0.9.0 t2v": 0,
    "ltx 2.0 t2v": 0,
    "hunyuan t2v": 0,
    "hunyuan i2v, tokens replaced": 576 // 4,
    "hunyuan i2v, latents beside": 576 // 2,
    "hunyuan 1.5 t2v": 0,
    "mochi": 0,
    "animatediff": 0,
}
PROMPT = "the red ball rolls left on the Blue cube"


@pytest.mark.parametrize("name", ROWS)
def test_the_tokens_of_a_word_are_those_that_another_word_changes(name, folders, pictures):
    backbone = load(folders(name), device="cpu", dtype="float32")
    the, ball, cube = (backbone.word_tokens(PROMPT, words) for words in ("THE", "ball", "blue\n cube"))
    assert ROWS[name] <= the[0] < ball[0] < the[-1] < cube[0] and len(cube) == 2 * len(ball)
    with pytest.raises(KinemaError, match="does not say 'green ball'; name words that stand in it"):
        backbone.word_tokens(PROMPT, "green ball")

    apart(backbone)
    conditions = backbone.prepare([request(CASES[name], pictures)])
    texts = [backbone.encode_texts([p], conditions)["text"] for p in (PROMPT, PROMPT.replace("ball", "ring"))]
    changed = (texts[0] - texts[1])[0].norm(dim=-1)
    assert sorted(changed.topk(len(ball)).indices.tolist()) == ball


def apart(backbone):
    """Lets no token of a text look at another: what attention gives is nothing."""
    for part in (backbone, getattr(backbone, "pipeline", backbone)):
        for name in ("text_encoder", "connectors"):
            network = getattr(part, name, None)
            for path, weight in network.named_parameters() if network is not None else ():
                if re.search(r"\.(o|o_proj|out_proj|to_out\.0)\.(weight|bias)$", path):
                    weight.data.zero_()


def test_what_stands_in_quotes_is_read_before_the_words(folders, pictures):
    backbone = load(folders("hunyuan 1.5 t2v"), device="cpu", dtype="float32")
    said = 'the ball "red" rolls'
    inputs = backbone.encode_texts([said])
    ahead = int(inputs["glyphs_mask"].sum())
    assert ahead > 0 and backbone.word_tokens(said, "the") == [ahead]
    of_pictures = load(folders("hunyuan 1.5 i2v"), device="cpu", dtype="float32")
    conditions = of_pictures.prepare([request(CASES["hunyuan 1.5 i2v"], pictures)])
    assert of_pictures.word_tokens("the ball", "the") == [conditions.inputs["image_tokens"].shape[1]]


def test_refuses_words_where_none_are_read_and_those_it_does_not_reach(folders):
    with pytest.raises(KinemaError, match="reads no words"):
        load(folders("svd"), device="cpu", dtype="float32").word_tokens("a ball", "ball")
    backbone = load(folders("wan 2.1 t2v"), device="cpu", dtype="float32")
    far = "a red ball " * 200 + "jumps"
    assert len(backbone.word_tokens(far, "ball")) == 170  # of 511 words and the end
    with pytest.raises(KinemaError, match="'jumps' stands behind the end of what the model reads"):
        backbone.word_tokens(far, "jumps")
    with pytest.raises(KinemaError, match="words is empty"):
        backbone.word_tokens("a ball", " ")


@pytest.mark.parametrize(
    "words, tokens",
    [("ball", [1]), ("Balloons", [2, 3]), ("ball  balloons", [1, 2, 3]), ("a.b", [5]), ("球", [6]), ("!", [7])],
)
def test_whole_words_in_any_case(words, tokens):
    pieces = ["a ", "ball ", "ball", "oons ", "axb ", "a.b ", "红球滚", "!"]
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    spans = [(end - len(piece), end - (piece[-1] == " ")) for piece, end in zip(pieces, ends, strict=True)]
    assert spelled(words, Spelling("".join(pieces), spans)) == tokens
    frame = "say ball: "
    moved = [(0, 3), (4, 8), *((a + len(frame), b + len(frame)) for a, b in spans), (200, 210)]
    assert spelled(words, framed("".join(pieces), moved, len(frame), ahead=5)) == [7 + i for i in tokens]
