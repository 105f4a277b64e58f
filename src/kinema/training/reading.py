"""Before it sees a clip, the text encoder of stage 2 learns to read: which kind, colour and ground, which event comes
first and which last.

A video model asks its text one token at a time and sees no word order, so the encoder must write order into the
tokens, and the denoising loss hardly teaches it: after 250,000 clips a linear reader of `mini`'s features told the
first of two events from the second no better than by chance, and after 300 steps of this on captions alone always.
Captions cost nothing, so this takes two minutes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinema.models.text import encode_text
from kinema.world.spec import SceneSpec


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How long the text encoder reads captions, and how."""

    steps: int = 0  # 0 leaves the encoder as it is
    batch_size: int = 64  # captions
    lr: float = 3e-3  # of AdamW, falling to 3% in a straight line
    warmup_steps: int = 30
    keep: float = 0.0  # weight of staying near the features it began with, for an encoder a model already reads

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.lr <= 0 or self.keep < 0:
            raise ValueError("steps and keep of reading must be 0 or more, batch_size 1 or more, lr above 0")


def labels(scene: SceneSpec) -> dict[str, str]:
    """What a short caption says of a scene whatever its words: the answers of the readers."""
    first = scene.objects[0]
    events = [event.label for event in scene.events] or ["nothing"]
    return {
        "kind": first.kind,
        "colour": first.colour,
        "ground": scene.ground,
        "first event": events[0],
        "last event": events[-1],
        "events": str(len(scene.events)),
    }


class Readers(nn.Module):
    """A linear reader for each question, on the mean of the tokens."""

    def __init__(self, width: int, answers: dict[str, list[str]]) -> None:
        super().__init__()
        self.answers = answers
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in answers.items()})

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Logits (B, answers) by question, for tokens (B, P, D) and their mask (B, P)."""
        mean = self.norm(tokens.sum(1) / mask.sum(1, keepdim=True))
        return {name: head(mean) for name, head in self.heads.items()}

    def targets(self, scenes: Sequence[SceneSpec]) -> dict[str, Tensor]:
        """Indices (B,) by question."""
        told = [labels(scene) for scene in scenes]
        return {name: torch.tensor([words.index(t[name]) for t in told]) for name, words in self.answers.items()}


def learn_to_read(
    encoder: nn.Module,
    scenes: Sequence[SceneSpec],
    captions: Callable[[Sequence[SceneSpec], torch.Generator], tuple[Tensor, Tensor]],
    settings: ReadingSettings,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> float:
    """Trains `encoder` in place on captions of `scenes`; gives the share of answers right at the end, 0..1.

    captions: draws token ids and mask, (B, P) each, for scenes. Nothing happens with `settings.steps` of 0.
    """
    if settings.steps == 0:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    device = next(encoder.parameters()).device
    told = [labels(scene) for scene in scenes]
    answers = {name: sorted({t[name] for t in told}) for name in told[0]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config: Any = encoder.config
        readers = Readers(int(config.d_model), answers).to(device)
    before = copy.deepcopy(encoder).requires_grad_(False).eval() if settings.keep else None
    groups = [
        {"params": list(encoder.parameters()), "lr": settings.lr},
        {"params": list(readers.parameters()), "lr": 3 * settings.lr},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda k: min(1.0, (k + 1) / max(1, settings.warmup_steps)) * max(0.03, 1 - k / settings.steps),
    )
    encoder.train()
    right = 0.0
    for step in range(settings.steps):
        chosen = torch.randint(len(scenes), (settings.batch_size,), generator=generator).tolist()
        batch = [scenes[i] for i in chosen]
        ids, mask = (part.to(device) for part in captions(batch, generator))
        tokens = encode_text(encoder, ids, mask)
        logits = readers(tokens, mask)
        targets = {name: t.to(device) for name, t in readers.targets(batch).items()}
        loss = torch.stack([nn.functional.cross_entropy(logits[name], targets[name]) for name in answers]).sum()
        if before is not None:
            was = encode_text(before, ids, mask)
            loss = loss + settings.keep * (tokens - was).square().sum() / was.square().sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        share = torch.stack([(logits[n].argmax(1) == targets[n]).float().mean() for n in answers]).mean().item()
        right = share if step == 0 else 0.98 * right + 0.02 * share
        if (step + 1) % 100 == 0:
            say(f"reading captions: step {step + 1} of {settings.steps}, {right:.1%} of the answers right")
    return right
