"""One run of the loop: its techniques, its conditions, its state, and how hooks are called."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core import checks
from kinema.core.attention import Taps, current_taps
from kinema.core.blend import Blend, blended
from kinema.core.chunks import Chunk
from kinema.core.errors import KinemaError
from kinema.core.path import Path, RectifiedFlow
from kinema.core.technique import Step, Technique
from kinema.core.windows import Window

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone, Conditions
    from kinema.core.tokens import Tokens
    from kinema.request import Request


class State:
    """What techniques keep during a run, by object identity: two equal techniques do not share."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}

    def __getitem__(self, technique: Technique) -> Any:
        return self._held[id(technique)]

    def __setitem__(self, technique: Technique, value: Any) -> None:
        self._held[id(technique)] = value


class Run:
    """Everything one call of `sample` knows. Opened once; nothing in it outlives the call."""

    def __init__(
        self,
        backbone: Backbone,
        requests: Sequence[Request],
        techniques: Sequence[Technique],
        chunk: Chunk | None = None,
        carried: Sequence[Mapping[str, Tensor]] = (),
        before: Tensor | None = None,
        rehearsed: bool = False,
    ) -> None:
        """chunk, carried, before: of a longer video, which part this is, what each technique was handed by the one
        ahead of it, and the last frames (B, n, H, W, 3) uint8 of the video so far. rehearsed: it is only opened, to
        find what cannot be done, so that what takes long and cannot be refused may be left out."""
        self.backbone = backbone
        self.requests = tuple(requests)
        self.techniques = tuple(techniques)
        self.owner = checks.owner_of(self.techniques)
        self._dropped = self.owner.dropped()
        self._text_of: dict[str, dict[str, Tensor]] = {}  # branch of the guidance -> what it reads for the prompt
        self._parts: dict[Window, Conditions] = {}  # the conditions of parts of the clip
        self.path: Path = RectifiedFlow()
        self.state = State()
        self.cacher = next((t for t in self.techniques if t.overrides("cache")), None)
        self.cached: Backbone = backbone  # the same model, keeping what the cacher asked for
        self.called: Backbone = backbone  # the same, keeping what it made of the texts
        self.tapping = [t for t in self.techniques if any(t.overrides(hook) for hook in Taps.HOOKS)]
        if not self.requests:
            raise KinemaError("there is no request; give one or more")
        checks.refuse_windows(self.techniques)
        checks.refuse_unsupported(backbone, self.techniques)
        checks.refuse_blocks(backbone, self.tapping)
        self.chunk = Chunk(request=self.requests[0]) if chunk is None else chunk
        self.before = before
        self.rehearsed = rehearsed
        self.carried = State()
        for t, handed in zip(self.techniques, carried or [{}] * len(self.techniques), strict=True):
            self.carried[t] = handed
        self.conditions: Conditions = prepared(backbone, self.requests, self.techniques)
        self.generators = [seeded(r.seed) for r in self.requests]
        self.solver = backbone.solver(self.conditions)
        self.schedule = list(self.solver.steps(self))
        checks.refuse_idle(self.techniques, self.schedule)
        self._aside: Run | None = None  # this run as the guidance of a companion sees it, with a state of its own
        if self.conditions.companion is not None:
            self._aside = copy.copy(self)
            self._aside.state = State()

    @classmethod
    @contextmanager
    def open(
        cls,
        backbone: Backbone,
        request: Request | Sequence[Request],
        techniques: Sequence[Technique],
        chunk: Chunk | None = None,
        carried: Sequence[Mapping[str, Tensor]] = (),
        before: Tensor | None = None,
        rehearsed: bool = False,
    ) -> Iterator[Run]:
        """Checks everything that can fail, lets techniques start, and puts the model back as it was at the end."""
        requests = request if isinstance(request, Sequence) else (request,)
        run = cls(backbone, requests, techniques, chunk, carried, before, rehearsed)
        for t in run.techniques:
            t.start(run)
        if run._aside is not None:
            run.owner.start(run._aside)
        run._check_started()
        with ExitStack() as stack:
            stack.enter_context(backbone.tapped(bool(run.tapping)))
            if all(t.alike for t in run.tapping):
                run.called = stack.enter_context(backbone.keeping_texts())
            if run.cacher is not None:
                run.cached = stack.enter_context(run.called.cached(run, run.cacher))
            yield run

    @property
    def steps(self) -> int:
        return len(self.schedule)

    def noise(self) -> Tensor:
        """Starting latents (B, C, T, H, W), one seed per sample."""
        return self.backbone.noise(self.conditions, self.generators)

    def read_texts(self, texts: Sequence[str | Blend]) -> None:
        """Lets latent frames read these prompts too, for a technique that overrides `context`; called at `start`.

        They are the same for all requests of a batch; none at all leaves everything at the request's own.
        """
        self.conditions.more_texts = self.encoded(texts)

    def encoded(self, texts: Sequence[str | Blend]) -> list[dict[str, Tensor]]:
        """What the network reads of texts, each (B, ...); called at `start`."""
        blends = [text if isinstance(text, Blend) else Blend((text,), (1.0,)) for text in texts]
        read = {prompt: self._encoded(prompt, self.conditions) for blend in blends for prompt in blend.prompts}
        return [blended([read[p] for p in blend.prompts], blend.weights) for blend in blends]

    def read_instead(self, branch: str, prompt: str) -> None:
        """Lets a branch of the guidance read another prompt, with or without the text; for its owner, at `start`."""
        conditions = None if "text" in self._dropped[branch] else self.conditions
        self._text_of[branch] = self._encoded(prompt, conditions)

    def reads_prompt(self, branch: str) -> bool:
        """Whether a branch of the guidance reads the request's own prompt."""
        return "text" not in self._dropped[branch] and branch not in self._text_of

    def _encoded(self, prompt: str, conditions: Conditions | None) -> dict[str, Tensor]:
        return self.backbone.encode_texts([prompt] * len(self.requests), conditions)

    def beside(self, step: Step) -> list[Tokens]:
        """What techniques put beside the clip in this step, in list order."""
        found = [t.tokens(step) for t in self.techniques if t.overrides("tokens") and t.active(step)]
        return [tokens for tokens in found if tokens is not None and tokens.frames > 0]

    def _check_started(self) -> None:
        """Raises: KinemaError for what techniques asked for at `start`, or left out there, and cannot work."""
        for t in self.techniques:
            if t.overrides("context") and self.conditions.more_texts is None:
                raise KinemaError(f"{t.name} lets frames read other texts and names none; call run.read_texts at start")
            acting = [step for step in self.schedule if t.active(step)]
            guided = (self.owner.needs(step) for step in acting if self.owner.active(step))
            if t.works_on and not any(set(t.works_on) <= set(branches) for branches in guided):
                both = " and ".join(repr(branch) for branch in t.works_on)
                raise KinemaError(f"{t.name} needs guidance with the branches {both}, and there is none in its window")
            if t.overrides("tokens"):
                self.backbone.check_tokens(self.beside(acting[0]), self.conditions)
        parting = in_parts(self.backbone, self.techniques)
        if parting:
            whole = int(self.conditions.shape[2])
            always = [t for t in parting if t.block_range is None and all(t.active(step) for step in self.schedule)]
            self.backbone.check_length(min([whole, *(t.sees(self) for t in always)]))

    def chain(self, hook: str, x: Tensor, step: Step | None = None) -> Tensor:
        """Passes x through one hook of every technique that acts now, in list order."""
        for t in self.techniques:
            if t.overrides(hook) and (step is None or t.active(step)):
                x = t.answered(hook, getattr(t, hook)(self if step is None else step, x), x.shape)
        return x

    def velocity(self, step: Step, x: Tensor, branch: str) -> Tensor:
        """The model's velocity for one branch of the guidance; techniques nest around it, the first outermost."""

        def called(step: Step, x: Tensor) -> Tensor:
            if "time" in self._dropped.get(branch, ()):
                return self._frame_by_frame(step, x, branch)
            return self._ask(step, x, [branch], self._conditions_of(branch, step))[branch]

        call: Callable[[Step, Tensor], Tensor] = called
        for t in reversed(self.techniques):
            if t.overrides("velocity") and t.active(step):
                call = _around(t, branch, call)
        return call(step, x)

    def rests(self, step: Step) -> bool:
        """Whether the model is not asked in this step, so that nothing has to be found out ahead of it."""
        resting = any(t.overrides("rest") and t.active(step) and t.rest(step) for t in self.techniques)
        return resting or (self.owner.active(step) and not self.owner.needs(step))

    def _conditions_of(self, branch: str, step: Step) -> Conditions:
        """The conditions of a branch: the request's own, those of a part of its clip, or with another text."""
        found, window = self.conditions, step.window
        if window is not None:
            if window not in self._parts:
                self._parts[window] = self.backbone.part(found, window)
            found = self._parts[window]
        text: Mapping[str, Tensor] | None = self._text_of.get(branch)
        if text is None and "text" not in self._dropped.get(branch, ()):
            text = step.text
        return found if text is None else replace(found, texts={False: dict(text), True: dict(text)})

    def branches(self, step: Step, x: Tensor) -> dict[str, Tensor]:
        """The velocity of every branch the guidance needs: in one call, unless they are looked at or read apart."""
        needed = self.owner.needs(step)
        looked_at = any(not t.alike for t in self.tapping)
        looked_at |= any(t.overrides("velocity") and t.active(step) for t in self.techniques)
        if looked_at or self._text_of or len(needed) < 2 or not self.backbone.joint_branches:
            return {branch: self.velocity(step, x, branch) for branch in needed}
        joint = [branch for branch in needed if "time" not in self._dropped[branch]]
        found = self._ask(step, x, joint, self.conditions)
        return {branch: found[branch] if branch in found else self.velocity(step, x, branch) for branch in needed}

    def _frame_by_frame(self, step: Step, x: Tensor, branch: str) -> Tensor:
        """What the model says of each latent frame as of a clip of its own: what it knows of pictures."""
        size, begin = self.backbone.patch[0], 0 if step.window is None else step.window.first
        parts = []
        for first in range(0, x.shape[2], size):
            alone = replace(step, window=Window(begin + first, begin + first + size))
            part = x[:, :, first : first + size]
            parts.append(self._ask(alone, part, [branch], self._conditions_of(branch, alone))[branch])
        return torch.cat(parts, dim=2)

    def _ask(self, step: Step, x: Tensor, branches: Sequence[str], conditions: Conditions) -> dict[str, Tensor]:
        """What the model says in these branches; what it says of a companion is kept there."""
        seen, companion = replace(step, branch="+".join(branches)), conditions.companion
        if companion is not None:
            companion.answers.clear()
        token = current_taps.set(Taps(seen, self.tapping, self.beside(seen)) if self.tapping else None)
        try:
            dropped = [self._dropped[branch] for branch in branches]
            found = self._model(seen).velocities(x, step.told, conditions, dropped)
        finally:
            current_taps.reset(token)
        if companion is not None:
            companion.keep(branches)
        return dict(zip(branches, found, strict=True))

    def _model(self, step: Step) -> Backbone:
        """What is called in a step: the model, or while the cacher acts the one that keeps what it asked for."""
        return self.cached.at(step) if self.cacher is not None and self.cacher.active(step) else self.called

    def _guide(self, step: Step, x: Tensor, branches: Mapping[str, Tensor]) -> Tensor:
        """The velocity at x. Outside its window the owner rests; one that needs no branch stands still: v = 0."""
        if not branches:
            return torch.zeros_like(x)
        if not self.owner.active(step):
            return branches["cond"]
        return self.owner.answered("guide", self.owner.guide(replace(step, x=x), **branches), x.shape)

    def guided(self, step: Step, x: Tensor) -> Tensor:
        """Velocity after guidance and after edits of the clean estimate; a companion's is guided, too."""
        if self.rests(step):
            found = {}
        else:
            found = self.branches(step, x) if self.owner.active(step) else {"cond": self.velocity(step, x, "cond")}
        v = self._guide(step, x, found)
        companion = self.conditions.companion
        if companion is not None:
            aside = replace(step, run=self._aside, of=companion.name)
            companion.v = self._guide(aside, companion.x, companion.taken(list(found)))
        editors = [t for t in self.techniques if t.overrides("clean") and t.active(step)]
        if not editors:
            return v
        x0 = self.path.clean(x, v, step.t)
        for t in editors:
            x0 = t.answered("clean", t.clean(replace(step, x=x), x0), x.shape)
        return self.path.velocity_to(x0, x, step.t)

    def hold(self, x: Tensor) -> Tensor:
        """Puts back the latent frames that are given and clean, so that they stay what they are."""
        known, frames = self.conditions.known, self.conditions.known_frames
        return x if known is None or frames is None else torch.where(frames, known.to(x.dtype), x)


def prepared(backbone: Backbone, requests: Sequence[Request], techniques: Sequence[Technique]) -> Conditions:
    """What a batch is made under; `Run` checks the length of a clip that is seen in parts when these are known."""
    return (backbone.of_any_length() if in_parts(backbone, techniques) else backbone).prepare(requests)


def in_parts(backbone: Backbone, techniques: Sequence[Technique]) -> list[Technique]:
    """The techniques that let attention over time see parts of a clip that may be longer than the model's places."""
    return [t for t in techniques if t.overrides("sees") and (t.windowed or backbone.longer_calls)]


def seeded(seed: int | None) -> torch.Generator:
    """Random numbers of one sample; without a seed they start somewhere new."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(seed)


def _around(
    technique: Technique, branch: str, inner: Callable[[Step, Tensor], Tensor]
) -> Callable[[Step, Tensor], Tensor]:
    """A model call with the hook `velocity` of `technique` around it."""

    def call(step: Step, x: Tensor) -> Tensor:
        def next(x: Tensor, window: Window | None = None, text: Mapping[str, Tensor] | None = None) -> Tensor:
            inside = replace(
                step, window=step.window if window is None else window, text=step.text if text is None else text
            )
            return inner(inside, x)

        return technique.answered("velocity", technique.velocity(step, x, branch, next), x.shape)

    return call
