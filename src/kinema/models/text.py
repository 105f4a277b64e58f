"""The text side of a small video model: a word tokenizer and a UMT5 encoder, both in transformers' own formats.

Wan reads its prompt with UMT5 (Chung et al., "UniMax: Fairer and more Effective Language Sampling for
Large-Scale Multilingual Pretraining", 2023, arXiv:2304.09151). A model of a small world needs the same
interface, not the same size: a few hundred words and a three-layer encoder. `encode_text` is what
`diffusers.WanPipeline.encode_prompt` does with them, so training and sampling see the same tokens.
"""

from __future__ import annotations

import html
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1 and 2, as in UMT5
# What English words end in: an unseen form of a known word becomes stem + ending, "rolled" -> "roll" "##ed".
ENDINGS = ("s", "es", "ed", "ing", "er", "est", "ly", "y", "ward", "wards", "ness", "ish")
MAX_TOKENS = 48  # tokens of a prompt, the end token included


def build_tokenizer(
    captions: Iterable[str], *, min_count: int = 2, max_tokens: int = MAX_TOKENS
) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are those of `captions`: lower case, accents and punctuation split off.

    A word seen at least `min_count` times is one token. Any other word is cut into the longest known pieces
    (WordPiece; Schuster and Nakajima, "Japanese and Korean voice search", 2012), down to single letters, so
    that only characters outside printable ASCII become the unknown token. Ids: pad 0, end 1, unknown 2, then
    single characters and endings, then words, the most frequent first, ties in alphabetical order.

    Raises: ValueError when there is no word in the captions.
    """
    normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)))
    words = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    if not words:
        raise ValueError(f"no word occurs {min_count} times in the captions; give more captions or lower min_count")
    characters = string.ascii_lowercase + string.digits
    pieces = [*characters, *string.punctuation, *("##" + c for c in characters), *("##" + e for e in ENDINGS)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([PAD, EOS, UNKNOWN, *pieces, *words]))}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=64))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    fast: Any = PreTrainedTokenizerFast  # transformers is not fully typed
    built: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
    return built


def build_text_encoder(
    vocab_size: int,
    *,
    d_model: int = 128,
    d_ff: int = 256,
    num_layers: int = 3,
    num_heads: int = 4,
    seed: int = 0,
) -> UMT5EncoderModel:
    """A fresh UMT5 encoder, about 0.5M parameters at the default sizes, without dropout.

    The weights come from `seed` alone; the global random state is left as it was. Two heads of the first two layers
    begin by looking at the words just before and just after: order is then in reach from the first step.
    Raises: ValueError when `d_model` is no multiple of `num_heads`.
    """
    if d_model % num_heads:
        raise ValueError(f"d_model is {d_model}; use a multiple of num_heads, {num_heads}")
    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=d_model,
        d_kv=d_model // num_heads,
        d_ff=d_ff,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout_rate=0.0,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=MAX_TOKENS,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: UMT5EncoderModel = UMT5EncoderModel(config)
    look_around(encoder)
    return encoder


@torch.no_grad()
def look_around(encoder: Any, bias: float = 3.0) -> None:
    """Adds `bias` to the scores of the 1 to 4 tokens before (head 0) and after (head 1), in the first two layers.

    T5's buckets of distances: the first half of the table is for keys at or before the query, the other for later ones.
    """
    for block in encoder.encoder.block[:2]:
        table = block.layer[0].SelfAttention.relative_attention_bias.weight  # (buckets, heads)
        half = table.shape[0] // 2
        table[1:5, 0] += bias
        if table.shape[1] > 1:
            table[half + 1 : half + 5, 1] += bias


def tokenize(tokenizer: Any, prompts: Sequence[str], max_tokens: int | None = None) -> tuple[Tensor, Tensor]:
    """Token ids and mask of prompts, each (B, P) int64, cut or padded to `max_tokens` (default: the tokenizer's)."""
    found = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=max_tokens or tokenizer.model_max_length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return found.input_ids, found.attention_mask


def clean_prompt(text: str) -> str:
    """Repairs broken characters and HTML entities and folds white space, as Wan's authors do."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def encode_prompts(tokenizer: Any, encoder: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Embeddings (B, P, D) of prompts, P the smaller of `length` and the tokenizer's own; see `encode_text`."""
    ids, mask = tokenize(tokenizer, [clean_prompt(p) for p in prompts], min(length, tokenizer.model_max_length))
    return encode_text(encoder, ids.to(encoder.device), mask.to(encoder.device))


def encode_text(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Embeddings (B, P, D) of token ids (B, P), zero where `mask` (B, P) is 0.

    The same numbers as `diffusers.WanPipeline._get_t5_prompt_embeds`, in one multiplication and with gradients.
    """
    hidden: Tensor = encoder(ids, mask).last_hidden_state
    return hidden * mask[..., None].to(hidden.dtype)
