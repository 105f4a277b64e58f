"""How the world's words are said: synonym tables that the caption grammar writes with and the parser reads with.

In each table the first entries are what the grammar uses; `ALSO` adds what people may say and the parser should
understand. Phrases of actions are pairs (third person, -ing form).
"""

from __future__ import annotations

# Nouns, the usual one first.
NOUNS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "sphere"),
    "cube": ("cube", "block"),
    "cylinder": ("cylinder",),
    "cone": ("cone",),
    "ring": ("ring", "hoop"),
    "figure": ("figure", "person"),
    "picture": ("picture",),
    "letter": ("letter",),
}
NOUNS_ALSO: dict[str, tuple[str, ...]] = {
    "ball": ("balls", "spheres", "globe", "orb"),
    "cube": ("cubes", "blocks", "box", "boxes", "dice", "die"),
    "cylinder": ("cylinders", "barrel", "drum", "can", "tube"),
    "cone": ("cones", "pyramid"),
    "ring": ("rings", "hoops", "torus", "wheel", "donut", "doughnut"),
    "figure": ("figures", "man", "woman", "child", "girl", "boy", "someone", "human"),
    "picture": ("pictures", "image", "billboard", "poster"),
    "letter": ("letters",),
}
COLOURS_ALSO: dict[str, tuple[str, ...]] = {
    "red": ("scarlet", "crimson"),
    "orange": (),
    "yellow": ("golden", "lemon"),
    "green": ("emerald",),
    "blue": ("navy", "azure"),
    "purple": ("violet", "lilac"),
    "pink": ("rosy",),
    "white": (),
    "black": (),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little"),
    "medium": ("medium-sized",),
    "large": ("large", "big"),
}
SIZES_ALSO: dict[str, tuple[str, ...]] = {
    "small": ("tiny", "mini"),
    "medium": ("medium", "middle-sized"),
    "large": ("huge", "giant", "great"),
}
MATERIAL_WORDS: dict[str, tuple[str, ...]] = {
    "matte": ("matte",),
    "shiny": ("shiny", "glossy"),
    "striped": ("striped",),
    "checked": ("checked", "checkered"),
}
# Places, with their preposition.
GROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "on grass", "on a lawn", "in the grass"),
    "sand": ("on the sand", "on sand", "on a sandy beach", "in the sand"),
    "snow": ("on the snow", "on snow", "in the snow"),
    "stone": ("on stone", "on the stone floor", "on stone ground"),
    "wood": ("on wood", "on the wooden floor", "on a wooden floor"),
    "water": ("on the water", "on water", "on a lake"),
}
GROUND_ROOTS: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "grassy", "lawn", "meadow"),
    "sand": ("sand", "sandy", "beach", "desert", "dune", "dunes"),
    "snow": ("snow", "snowy"),
    "stone": ("stone", "stones", "stony", "rock", "rocky", "pavement", "concrete", "cobblestones"),
    "wood": ("wood", "wooden", "planks", "parquet", "boards"),
    "water": ("water", "lake", "sea", "ocean", "pond"),
}
SKY_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("by day", "in daylight", "during the day", "in the daytime"),
    "sunset": ("at sunset", "at dusk", "in the evening light"),
    "night": ("at night", "by night", "under a night sky", "in the dark"),
}
SKY_ROOTS: dict[str, tuple[str, ...]] = {
    "day": ("day", "daylight", "daytime", "noon", "midday", "sunny", "sunshine"),
    "sunset": ("sunset", "dusk", "evening", "sundown", "twilight"),
    "night": ("night", "dark", "darkness", "moonlight", "midnight", "starry"),
}
DIRECTION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("to the left", "left"),
    "right": ("to the right", "right"),
    "towards": ("towards the camera", "towards us", "closer"),
    "away": ("away", "away from the camera", "into the distance"),
}
ACTION_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "roll": (("rolls", "rolling"),),
    "slide": (("slides", "sliding"), ("glides", "gliding")),
    "bounce": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down")),
    "jump": (("jumps", "jumping"), ("hops", "hopping"), ("jumps up", "jumping up")),
    "spin": (("spins", "spinning"), ("spins around", "spinning around"), ("rotates", "rotating")),
    "fall": (("falls", "falling"), ("drops", "dropping"), ("falls down", "falling down")),
    "stop": (("stops", "stopping"), ("comes to a stop", "coming to a stop")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "change colour": (("turns", "turning"), ("changes to", "changing to"), ("becomes", "becoming")),
    "appear": (("appears", "appearing"), ("fades in", "fading in")),
    "disappear": (("disappears", "disappearing"), ("vanishes", "vanishing")),
    "circle": (("circles", "circling"), ("goes around", "going around")),
    "push": (("pushes", "pushing"), ("bumps into", "bumping into")),
    "walk": (("walks", "walking"),),
    "wave": (("waves", "waving"), ("waves a hand", "waving a hand")),
}
# What the parser also takes for each action: regular expressions of whole words.
ACTIONS_ALSO: dict[str, tuple[str, ...]] = {
    "roll": ("roll", "rolled", "tumbles?", "tumbling"),
    "slide": ("slid", "slide", "glide", "skids?", "skidding"),
    "bounce": ("bounce", "bounced"),
    "jump": ("jump", "jumped", "hop", "hopped", "leaps?", "leaping"),
    "spin": ("spin", "spun", "rotate", "rotated", "twirls?", "twirling", "turn(?:s|ing)? (?:around|round)"),
    "fall": ("fall", "fell", "drop", "dropped", "plummets?", "plummeting"),
    "stop": ("stop", "stopped", "halts?", "comes to rest"),
    "grow": (
        "grow",
        "grew",
        "(?:gets?|getting|becomes?|becoming) (?:bigger|larger)",
        "expands?",
        "expanding",
        "swells?",
    ),
    "shrink": ("shrink", "shrank", "(?:gets?|getting|becomes?|becoming) (?:smaller|tiny)", "contracts?"),
    "change colour": (),
    "appear": ("appear", "appeared", "shows? up", "fade in"),
    "disappear": ("disappear", "disappeared", "vanish", "fad(?:es?|ing) (?:out|away)"),
    "circle": ("circle", "circled", "go(?:es|ing)? round", "orbits?", "orbiting"),
    "push": ("push", "pushed", "runs? into", "running into", "hits?", "hitting", "knocks?", "collides? with"),
    "walk": ("walk", "walked", "strolls?", "strolling"),
    "wave": ("wave", "waved"),
}
# Words for a movement that does not say how: things that roll do, others slide.
MOVES = (
    "comes?",
    "coming",
    "moves?",
    "moving",
    "goes",
    "going",
    "travels?",
    "travelling",
    "drifts?",
    "drifting",
    "shifts?",
)
# Camera verbs: third person, -ing form, and what follows.
CAMERA_PHRASES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pan left": (("pans", "panning", "left"), ("pans", "panning", "to the left")),
    "pan right": (("pans", "panning", "right"), ("pans", "panning", "to the right")),
    "tilt up": (("tilts", "tilting", "up"),),
    "tilt down": (("tilts", "tilting", "down"),),
    "zoom in": (("zooms", "zooming", "in"),),
    "zoom out": (("zooms", "zooming", "out"),),
    "dolly in": (("dollies", "dollying", "in"), ("moves", "moving", "in")),
    "dolly out": (("dollies", "dollying", "out"), ("moves", "moving", "back")),
    "orbit left": (("orbits", "orbiting", "left"), ("orbits", "orbiting", "to the left")),
    "orbit right": (("orbits", "orbiting", "right"), ("orbits", "orbiting", "to the right")),
    "rise": (("rises", "rising", ""), ("goes", "going", "up")),
}
STILL_PHRASES = ("the camera stays still", "the camera does not move", "the camera is static")
