"""Which part of the world scenes are drawn from: curricula, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kinema.world.vocabulary import ACTIONS, CAMERAS, COLOURS, GROUNDS, KINDS, MATERIALS, SIZES, SKIES

PRIMITIVES = ("ball", "cube", "cylinder", "cone", "ring")
ROLLERS = ("ball", "cylinder", "ring")


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The part of the world that scenes are drawn from."""

    kinds: tuple[str, ...] = PRIMITIVES
    colours: tuple[str, ...] = tuple(COLOURS)
    materials: tuple[str, ...] = ("matte",)
    sizes: tuple[str, ...] = tuple(SIZES)
    grounds: tuple[str, ...] = GROUNDS
    skies: tuple[str, ...] = SKIES
    actions: tuple[str, ...] = ("roll", "slide", "bounce", "jump", "grow", "shrink", "fall")
    rollers: tuple[str, ...] = ROLLERS  # kinds that roll; the others slide
    cameras: tuple[str, ...] = CAMERAS
    still_probability: float = 0.4  # share of clips whose camera does not move, 0..1
    object_weights: tuple[float, ...] = (1.0,)  # weights of 1, 2, 3 ... objects
    event_weights: tuple[float, ...] = (0.65, 0.35)  # weights of 1, 2, 3 ... events in a row
    uneven: float = 1.0  # longest share of time of events in a row over the shortest, at most; 1 is equal shares
    leg_weights: tuple[float, ...] = ()  # weights of 1, 2 ... camera legs; empty: a moving camera has a named move
    static_probability: float = 0.0  # share of the clips in which nothing happens, 0..1; of those with legs, if any
    amounts: tuple[float, float] = (1.0, 1.0)  # least and most of an event's amount, times its usual size
    num_frames: int = 25
    height: int = 128  # pixels
    width: int = 128  # pixels
    fps: float = 8.0

    def __post_init__(self) -> None:
        tables = {
            "kinds": (self.kinds, KINDS),
            "colours": (self.colours, tuple(COLOURS)),
            "materials": (self.materials, MATERIALS),
            "sizes": (self.sizes, tuple(SIZES)),
            "grounds": (self.grounds, GROUNDS),
            "skies": (self.skies, SKIES),
            "actions": (self.actions, ACTIONS),
            "cameras": (self.cameras, CAMERAS),
        }
        for name, (words, known) in tables.items():
            unknown = [word for word in words if word not in known]
            if unknown or not words:
                raise ValueError(f"{name} has {unknown or 'nothing'}; use some of {', '.join(known)}")
        if self.num_frames < 1 or self.fps <= 0 or min(self.height, self.width) < 8:
            raise ValueError(
                f"num_frames {self.num_frames}, fps {self.fps}, size {self.height}x{self.width}: "
                "use at least 1 frame, a positive fps and at least 8 pixels a side"
            )

    @property
    def max_objects(self) -> int:
        return len(self.object_weights)

    @property
    def duration(self) -> float:
        """Time of the last frame, seconds."""
        return (self.num_frames - 1) / self.fps


FIRST = Curriculum(
    rollers=("ball", "ring"),  # a rolling cylinder seen from its end is a disc, and easily taken for a ball
    # A dolly looks much like a zoom, a rise like a tilt: they wait for a longer training.
    cameras=tuple(move for move in CAMERAS if move.split()[0] not in ("dolly", "rise")),
)
CURRICULA: dict[str, Curriculum] = {
    "first": FIRST,
    "pairs": replace(FIRST, object_weights=(0.7, 0.3)),
    # Cameras that move without a word, half of them over scenes that do not, beside still cameras over scenes that do:
    # the mixture that keeps a camera adapter from freezing what it films (arXiv 2411.18673).
    "cameras": replace(
        FIRST,
        cameras=CAMERAS,
        still_probability=0.35,
        event_weights=(1.0,),
        leg_weights=(0.5, 0.5),
        static_probability=0.5,
    ),
    # Several events of unequal lengths, so that when they happen says more than how many there are.
    "events": replace(FIRST, still_probability=0.9, event_weights=(0.1, 0.45, 0.3, 0.15), uneven=5.0),
    # One or two of them, as many as the judge tells: what event times are learned on.
    "timed": replace(FIRST, event_weights=(0.25, 0.75), uneven=5.0),
    # The same words with more and less motion, before a still camera, so that one that does not move them all is told
    # apart by a number alone. Nothing falls: how high it hangs at first says all; and water flows by itself.
    "paces": replace(
        FIRST,
        grounds=tuple(ground for ground in GROUNDS if ground != "water"),
        cameras=("still",),
        actions=("roll", "slide", "bounce", "jump", "grow", "shrink"),
        event_weights=(1.0,),
        static_probability=0.06,
        amounts=(0.0, 1.4),
    ),
    "full": Curriculum(
        kinds=KINDS,
        materials=MATERIALS,
        actions=ACTIONS,
        object_weights=(0.5, 0.35, 0.15),
        event_weights=(0.45, 0.35, 0.13, 0.07),
    ),
}


def get_curriculum(curriculum: Curriculum | str) -> Curriculum:
    """A curriculum by name, or the one given."""
    if isinstance(curriculum, Curriculum):
        return curriculum
    if curriculum not in CURRICULA:
        raise ValueError(f"curriculum is {curriculum!r}; use one of {', '.join(CURRICULA)}")
    return CURRICULA[curriculum]
