"""The word of the prompt that shows least is made to show more, before a step is taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.flow import smoothed, soft_min_max
from kinema.layers.frames import FrameTokens, frame_tokens
from kinema.layers.logits import logits

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

# Words that name nothing to be seen.
STOP_WORDS = frozenset(("a", "an", "the", "this", "that", "these", "those", "it", "its", "they", "them", "their"))
STOP_WORDS |= frozenset(
    ("is", "are", "was", "were", "be", "has", "have", "and", "or", "then", "there", "while", "which")
)
STOP_WORDS |= frozenset(("as", "at", "by", "for", "from", "in", "into", "of", "on", "onto", "to", "with", "who"))
CELLS = 8  # rows and columns of the grid on which the influence of words is compared, at most


class _Enough(Exception):
    """All that is wanted of a call of the network has been seen."""


@dataclass
class Reading:
    """What a run is asked about, and what a call in progress has shown of it."""

    blocks: tuple[int, ...]  # in which text reaches the video
    prompts: list[list[int]]  # by sample: the tokens of all words of its prompt
    words: list[list[list[int]]]  # by sample and word: which of `prompts` they are
    plan: dict[int, float]  # step in which to go on until the loss is below this
    on: bool = False
    flows: dict[int, Tensor] = field(default_factory=dict)  # block -> (B, T, rows, columns, tokens)


@technique(
    "vico",
    paper="arXiv:2407.06182",
    base="VideoCrafter2, AnimateDiff, ZeroScope",
    neutral=dict(lr=0.0),
)
@dataclass(frozen=True, kw_only=True)
class Vico(Technique):
    """x <- x - lr t Adam(d/dx max_k (1 - a_k)), with a_k the most that word k flows into any place of the video.

    Attention is a graph: text reaches the tokens of the video by C, they reach each other by E = (A + 1) / 2, with A
    the mean map of all heads. A flow is as wide as the narrowest edge on the widest path, max_r min(E_ir, C_rk), here
    with a soft minimum and maximum of temperature tau. a_k is the share of word k in softmax(100 flow) over the words
    of the prompt, smoothed over places and frames.
    Paper: "Compositional Video Generation as Flow Equalization", 2024, arXiv:2407.06182. Departures: it takes its words
    by part of speech; here they are named, or all of the prompt but a short list of stop words. Tokens that spell no
    word of it take no part. The flow goes from the text of a block to the attention over frames of the same block of a
    UNet, as in the paper, and in transformers to the self-attention of the next block, on a coarse grid whose queries
    and keys are means of their cells. The first 25 of 50 steps, and those with several updates, are noise levels. lr
    falls with the noise level; it is the default of the authors' program, the paper names 1e-5.
    Shapes: x (B, C, T, H, W); E (B, n, n) for n cells; C and flow (B, n, P); a (B, words).
    Raises: KinemaError at start, for values out of range, fewer than two words, words that the prompt does not say, and
    beside caches, windows, and frames that read texts of their own.
    """

    noise_range: tuple[float, float] = (1.0, 0.618)
    words: tuple[str, ...] = ()  # that should show alike; none is all of the prompt but stop words
    lr: float = 1e-4  # latent units an update, at noise level 1; 0 changes nothing
    tau: float = 0.01  # of the soft minimum and maximum, in units of probability; more than 0
    levels: tuple[float, ...] = (1.0, 0.836, 0.695)  # noise levels, each of which begins with several updates ...
    targets: tuple[float, ...] = (
        0.95,
        0.5,
        0.2,
    )  # ... until the loss is below its target, 0..1; the last holds for all
    iterations: int = 10  # updates at these levels, at most
    blocks: int = 2  # blocks around the middle, or on the way up of a UNet, that are looked at

    def start(self, run: Run) -> None:
        if self.lr < 0 or self.tau <= 0 or self.iterations < 1 or self.blocks < 1:
            raise KinemaError(f"lr of {self.name} is 0 or more, tau above 0, iterations and blocks are 1 or more")
        if not self.levels or len(self.levels) != len(self.targets):
            raise KinemaError(
                f"{self.name} has {len(self.levels)} levels and {len(self.targets)} targets; give one each"
            )
        other = next((t.name for t in run.techniques if t is run.cacher or t.windowed or t.overrides("context")), None)
        if other is not None:
            raise KinemaError(
                f"{self.name} asks the model as it is about the whole clip and one prompt, and {other} shows it "
                "something else; use one of them"
            )
        found = [tokens_of(run, request.text, self.words) for request in run.requests]
        if any(len(words) < 2 for _, words in found):
            raise KinemaError(f"{self.name} weighs words against each other; name two words of the prompt, or more")
        plan: dict[int, float] = {}
        for level, target in zip(self.levels, self.targets, strict=True):
            first = next((step.index for step in run.schedule if step.t <= level + 1e-6 and self.active(step)), None)
            plan |= {} if first is None else {first: target}
        blocks = self._blocks(run.backbone.sites)
        run.state[self] = Reading(blocks, [every for every, _ in found], [words for _, words in found], plan)

    def _blocks(self, sites: Sequence[Site]) -> tuple[int, ...]:
        """Blocks whose text is followed: behind each there is attention among the tokens of the video."""
        first, last = self.block_range or (0, max(site.block for site in sites))
        read = {site.block for site in sites if site.kind in ("cross", "joint") and first <= site.block <= last}
        after = {site.block for site in sites if site.kind == "temporal"}
        after = after or {site.block - 1 for site in sites if site.kind in ("self", "joint") and site.block <= last}
        usable = sorted(read & after)
        if not usable:
            raise KinemaError(f"{self.name} follows text into attention behind it; use a wider block_range")
        usable = sorted({site.block for site in sites if site.up == 1} & set(usable)) or usable
        middle = usable[len(usable) // 2]
        return tuple(sorted(sorted(usable, key=lambda block: (abs(block - middle), block))[: self.blocks]))

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        reading: Reading = step.run.state[self]
        if self.lr == 0 or step.run.rests(step):
            return x
        several = step.index in reading.plan
        target = reading.plan.get(step.index, self.targets[-1])
        x = x.detach().clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=self.lr * step.t)
        above = torch.ones(len(x), dtype=torch.bool, device=x.device)  # samples that still move
        for _ in range(self.iterations if several else 1):
            with torch.enable_grad():
                shown = self._shown(step, x)
                if shown is None:
                    break
                loss = 1 - shown.amin(dim=1)
                above = above & (loss >= target)
                if not above.any():
                    break
                (x.grad,) = torch.autograd.grad(loss[above].sum(), x)
            before = x.detach().clone()
            adam.step()
            x.data = torch.where(above[:, None, None, None, None], x.detach(), before)  # momentum would move the others
        return step.run.hold(x.detach())

    def _shown(self, step: Step, x: Tensor) -> Tensor | None:
        """a, (B, words); samples with fewer words repeat their last. None: the network is not asked."""
        assert step.run is not None
        reading: Reading = step.run.state[self]
        reading.on, reading.flows = True, {}
        try:
            step.run.velocity(step, x, "cond")
        except _Enough:
            pass
        finally:
            reading.on = False
        if not reading.flows:
            return None
        flow = torch.stack([on_grid(flow) for flow in reading.flows.values()]).mean(dim=0)
        reading.flows = {}
        return shares_of_words(flow, reading)

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "cross", "joint", "temporal", "spatial")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        assert step.run is not None
        reading: Reading = step.run.state[self]
        last = max(reading.blocks)
        if not reading.on or (site.kind == "spatial" and site.block <= last):
            return next(q, k, v, positions)
        source = site.block if site.kind == "temporal" else site.block - 1
        if site.kind in ("self", "joint", "temporal") and source in reading.flows:
            tokens = whole(frame_tokens(step, site, q, k, positions), self.name)
            reading.flows[source] = through(tokens, reading.flows[source], q, k, positions, next, self.tau)
        if site.block > last and site.kind != "cross":
            raise _Enough
        if site.kind in ("cross", "joint") and site.block in reading.blocks:
            seen = probabilities(reading.prompts, q, k, v, positions, next)
            if positions is None:  # a UNet: frames in the batch
                rows, columns = step.run.conditions.shape[3:]
                while rows * columns > q.shape[2]:
                    rows, columns = -(-rows // 2), -(-columns // 2)
                flow = seen.mean(dim=1).reshape(len(reading.prompts), -1, rows, columns, seen.shape[-1])
            else:
                tokens = whole(frame_tokens(step, site, q, k, positions), self.name)
                flow = on_grid(tokens.video(seen).mean(dim=1))
            reading.flows[site.block] = flow
        return next(q, k, v, positions)


def words_in(text: str) -> list[str]:
    """The words of a text, each once, in order."""
    return list(dict.fromkeys(word.lower() for word in re.findall(r"\w+(?:['’-]\w+)*", text)))


def tokens_of(run: Run, text: str, words: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The tokens of all words of a prompt, and for each word that is asked for which of these it is.

    Raises: KinemaError for words asked for that the prompt does not say.
    """
    read = {}
    for word in words_in(text):
        try:
            read[word] = run.backbone.word_tokens(text, word)
        except KinemaError:  # behind the end of what the model reads, or its tokenizer parts words elsewhere
            continue
    asked = [run.backbone.word_tokens(text, word) for word in words]
    asked = asked or [tokens for word, tokens in read.items() if word not in STOP_WORDS]
    every = sorted({token for tokens in [*read.values(), *asked] for token in tokens})
    return every, [[every.index(token) for token in tokens] for tokens in asked]


def probabilities(
    prompts: Sequence[Sequence[int]], q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
) -> Tensor:
    """How much each query looks at each token of its sample's prompt, (B, N, Lq, tokens); 0 for prompts with fewer.

    What attention gives for values that are 1 at a token: with the model's masks, and what techniques do inside.
    """
    found = []
    count, width = max(map(len, prompts)), v.shape[-1]
    for columns in (range(first, min(first + width, count)) for first in range(0, count, width)):
        marks = v.new_zeros(len(prompts), len(v) // len(prompts), *v.shape[1:])
        for sample, tokens in enumerate(prompts):
            for i, column in enumerate(columns):
                if column < len(tokens):
                    key = tokens[column : column + 1]
                    marks[sample, :, :, key if positions is None else positions.text_keys(key), i] = 1
        found.append(next(q, k, marks.flatten(0, 1), positions)[..., : len(columns)])
    return torch.cat(found, dim=-1).float()


def through(
    tokens: FrameTokens, flow: Tensor, q: Tensor, k: Tensor, positions: Positions | None, next: Attention, tau: float
) -> Tensor:
    """A flow (B, T, rows, columns, P) after attention among the tokens of the video."""
    if tokens.in_batch:  # over frames, at each place
        maps = logits(next, q, k, positions).softmax(-1, dtype=torch.float32).mean(dim=1)
        places = flow.permute(0, 2, 3, 1, 4).flatten(0, 2)
        found = soft_min_max(_with_skip(maps), places, tau)
        return found.reshape(len(flow), *flow.shape[2:4], *found.shape[1:]).permute(0, 3, 1, 2, 4)
    turned = (on_grid(tokens.video(u)).flatten(2, 4) for u in next.turn(q, k, positions))
    of_q, of_k = turned  # (B, N, cells, D)
    maps = (of_q @ of_k.mT / q.shape[-1] ** 0.5).softmax(-1, dtype=torch.float32).mean(dim=1)
    found = soft_min_max(_with_skip(maps), flow.flatten(1, 3), tau)
    return found.reshape(flow.shape)


def _with_skip(maps: Tensor) -> Tensor:
    """E = (A + 1) / 2: a token also keeps what it is."""
    return (maps + torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)) / 2


def on_grid(u: Tensor) -> Tensor:
    """Means of (..., rows, columns, D) over the cells of a grid of at most CELLS by CELLS."""
    rows, columns = u.shape[-3:-1]
    if max(rows, columns) <= CELLS:
        return u
    pictures = u.flatten(0, -4).permute(0, 3, 1, 2)
    pooled = torch.nn.functional.adaptive_avg_pool2d(pictures, (min(rows, CELLS), min(columns, CELLS)))
    return pooled.permute(0, 2, 3, 1).reshape(*u.shape[:-3], *pooled.shape[2:], u.shape[-1])


def whole(tokens: FrameTokens, name: str) -> FrameTokens:
    """Raises: KinemaError where only some of the tokens are passed."""
    if tokens.first is None:
        raise KinemaError(f"{name} was given a part of the tokens; put it first in the list of techniques")
    return tokens


def shares_of_words(flow: Tensor, reading: Reading) -> Tensor:
    """a, (B, words), from a flow (B, T, rows, columns, P): a word's most, of all places, among those of its prompt."""
    most = max(map(len, reading.words))
    found = []
    for sample, tokens, words in zip(flow, reading.prompts, reading.words, strict=True):
        share = (100 * sample[..., : len(tokens)]).softmax(dim=-1)  # (T, rows, columns, tokens)
        each = torch.stack([share[..., word].sum(dim=-1) for word in words])
        shown = smoothed(each).flatten(1).amax(dim=1)
        found.append(torch.cat([shown, shown[-1:].expand(most - len(words))]))
    return torch.stack(found)
