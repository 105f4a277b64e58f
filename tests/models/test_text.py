"""The tokenizer and the encoder of the small models."""

import pytest
import torch
from transformers import AutoTokenizer

from kinema.models.text import build_text_encoder, build_tokenizer, encode_text, tokenize

CAPTIONS = ["A red ball rolls to the left, then bounces.", "the camera pans left; a red ball bounces"] * 2


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(CAPTIONS)


def test_words_are_single_tokens_and_come_back(tokenizer):
    ids = tokenizer("A RED ball  bounces")["input_ids"]
    assert len(ids) == 5 and ids[-1] == 1  # four words and the end
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red ball bounces"


def test_unknown_words_are_spelled_with_pieces(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("naïve zebra-like")["input_ids"])
    assert "<unk>" not in pieces and "".join(p.removeprefix("##") for p in pieces[:-1]) == "naivezebra-like"


def test_ids_of_pad_and_end_are_those_of_umt5(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("")["input_ids"] == [1]


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 48
    for text in [*CAPTIONS, "an unseen giraffe, somewhere"]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_no_captions_are_refused():
    with pytest.raises(ValueError, match="no word occurs"):
        build_tokenizer([])


def test_embeddings_are_those_of_the_wan_pipeline(tokenizer):
    from diffusers import WanPipeline

    encoder = build_text_encoder(len(tokenizer), num_layers=1).eval()
    pipeline = WanPipeline(tokenizer=tokenizer, text_encoder=encoder, vae=None, scheduler=None, transformer=None)
    prompts = ["a red ball", ""]
    with torch.no_grad():
        theirs = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=48, device=torch.device("cpu"))
        ours = encode_text(encoder, *tokenize(tokenizer, prompts))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[1, 1:], torch.zeros_like(ours[1, 1:]))


def test_weights_come_from_the_seed_and_the_global_state_stays(tokenizer):
    before = torch.get_rng_state()
    a, b, c = (build_text_encoder(100, num_layers=1, seed=s).shared.weight for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())
