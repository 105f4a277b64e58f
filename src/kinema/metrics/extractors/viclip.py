"""ViCLIP: clips and sentences in one space, as VBench compares them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.errors import KinemaError
from kinema.core.optional import library
from kinema.layers.pixels import device
from kinema.metrics.extractors.extractor import Extractor, extractor
from kinema.metrics.extractors.tensors import file_of, tensors

HEAD = 64  # numbers of an attention head
MERGES = 49152 - 256 - 2  # of CLIP's list that are used
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Block(nn.Module):
    """A block of CLIP's transformers: attention, then two layers with x sigmoid(1.702 x) between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD), batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        h = self.mlp["c_fc"](self.ln_2(x))
        out: Tensor = x + self.mlp["c_proj"](h * torch.sigmoid(1.702 * h))
        return out


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Vision(nn.Module):
    """All patches of all frames in one row, behind one class token."""

    def __init__(self, width: int, layers: int, patch: int, tokens: int, frames: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (1, patch, patch), (1, patch, patch), bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.proj = nn.Parameter(torch.zeros(width, out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, D)."""
        x = self.conv1(x).flatten(3).permute(0, 3, 2, 1)  # (B, patches, T, width)
        x = x + self.positional_embedding[1:, None] + self.temporal_positional_embedding[:, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([first, x.flatten(1, 2)], 1)))
        out: Tensor = self.ln_post(x[:, 0]) @ self.proj
        return out


class Text(nn.Module):
    """Each token sees those before it; the vector is that of the last token."""

    def __init__(self, width: int, layers: int, words: int, tokens: int, out: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.transformer = Transformer(width, layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, out))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, tokens) -> (B, D); the end of the text has the greatest number."""
        count = ids.shape[1]
        later = torch.full((count, count), float("-inf"), device=ids.device).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding, later)
        out: Tensor = self.ln_final(x)[torch.arange(len(x)), ids.argmax(1)] @ self.text_projection
        return out


class Net(nn.Module):
    """Both, with the sizes that the weights have."""

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        super().__init__()
        eyes, ears = "vision_encoder.", "text_encoder."
        width, _, _, patch, _ = stored[eyes + "conv1.weight"].shape
        tokens, frames = (
            len(stored[eyes + "positional_embedding"]),
            stored[eyes + "temporal_positional_embedding"].shape[1],
        )
        self.vision_encoder = Vision(
            width, _layers(stored, eyes), patch, tokens, frames, stored[eyes + "proj"].shape[1]
        )
        words, width = stored[ears + "token_embedding.weight"].shape
        tokens, out = len(stored[ears + "positional_embedding"]), stored[ears + "text_projection"].shape[1]
        self.text_encoder = Text(width, _layers(stored, ears), words, tokens, out)
        self.load_state_dict({key: value.float() for key, value in stored.items() if key.startswith((eyes, ears))})


def _layers(stored: Mapping[str, Tensor], tower: str) -> int:
    return len({key.split(".")[3] for key in stored if key.startswith(f"{tower}transformer.resblocks.")})


def prepared(frames: np.ndarray, edge: int) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, edge, edge): shorter side to `edge` bicubic, no low pass, middle, normalised."""
    height, width = frames.shape[1:3]
    short = min(height, width)
    size = tuple(int(edge * side / short) for side in (height, width))
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, size, mode="bicubic", align_corners=False).round().clamp(0, 255)
    top, left = (round((side - edge) / 2) for side in size)
    x = x[:, :, top : top + edge, left : left + edge] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (x - mean) / std


@extractor("viclip", gives=("clip", "text"), usual="OpenGVLab/ViCLIP-L-14-hf")
class ViClip(Extractor):
    """Clip and text embeddings of ViCLIP, of "InternVid" (Wang et al. 2023, arXiv 2307.06942), as in VBench.

    It looks at 8 frames, the middles of 8 equal parts; a shorter clip repeats its last frame. A sentence longer than 32
    tokens is cut. The model holds `model.safetensors`, in which weights have its authors' names, and CLIP's list of
    merges, `bpe_simple_vocab_16e6.txt.gz`. Vectors are not unit length.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        stored = tensors(self.name, model, "model.safetensors")
        try:
            self.network = Net(stored).to(device()).eval().requires_grad_(False)
        except (KeyError, ValueError, RuntimeError) as error:
            raise KinemaError(f"extractor {self.name}@{model}: model.safetensors holds no ViCLIP") from error
        self.tokenizer = tokenizer(str(file_of(self.name, model, "bpe_simple_vocab_16e6.txt.gz")))

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        from kinema.metrics.vbench.sampling import middles

        vision = self.network.vision_encoder
        chosen = frames[middles(len(frames), vision.temporal_positional_embedding.shape[1])]
        patches = round((len(vision.positional_embedding) - 1) ** 0.5)
        x = prepared(chosen, patches * vision.conv1.kernel_size[1]).to(device())
        with torch.inference_mode():
            vector: np.ndarray = vision(x.transpose(0, 1)[None])[0].cpu().numpy()
        return vector

    def text(self, prompt: str) -> np.ndarray:
        ears = self.network.text_encoder
        longest = len(ears.positional_embedding)
        ids = self.tokenizer(prompt, truncation=True, max_length=longest)["input_ids"]
        row = torch.zeros(1, longest, dtype=torch.long, device=device())
        row[0, : len(ids)] = torch.tensor(ids)
        with torch.inference_mode():
            vector: np.ndarray = ears(row)[0].cpu().numpy()
        return vector


def tokenizer(path: str) -> Any:
    """CLIP's tokenizer from its list of merges. Raises: KinemaError when the file is damaged."""
    kind = library("transformers").CLIPTokenizer
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            merges = [pair for line in islice(file, 1, 1 + MERGES) if len(pair := tuple(line.split())) == 2]
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise KinemaError(f"{path} is damaged; it has to be CLIP's list of merges") from error
    letters = list(library("transformers.convert_slow_tokenizer").bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return kind(vocab={word: i for i, word in enumerate(words)}, merges=merges)
