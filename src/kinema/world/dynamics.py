"""The numbers and closed forms of the world's physics, shared by the sampler (what fits) and the simulator.

The world is a little slow: gravity is 6.5 m/s^2, so that a hop lasts ten frames at 8 fps and can be seen.
"""

from __future__ import annotations

import math

GRAVITY = 6.5  # m/s^2
RESTITUTION = 0.8  # speed after over speed before, in "bounce"
THUD = 0.38  # the same for things that are dropped
PUSH_RESTITUTION = 0.6  # between two objects
JUMP_HEIGHT = 1.25  # metres, highest hop
BOUNCE_HEIGHT = 1.15  # metres, highest bounce
FALL_TOP = (
    1.95  # metres: a falling thing starts with its bottom here, less 0.75 of its half extent, to be in the picture
)
SIDE_TRAVEL = 2.1  # metres that "left" and "right" cover at most, about half of the picture
DEPTH_TRAVEL = 3.6  # metres that "towards" and "away" cover at most
SIDE_SPEED, DEPTH_SPEED = 1.8, 2.8  # m/s, mean over an event, at most
RAMP = 0.12  # part of a travel in which it gains, and at the end loses, its speed
TURN = 0.2  # part of a travel in which wheels first turn into its direction, if they must
GROW, SHRINK = 1.8, 0.5  # size at the end over size at the start
SPIN_RATE = 0.55  # turns a second
PUSH_CONTACT = 0.4  # part of a push after which the two touch
STOP_SECONDS = 1.2  # longest time that a stop takes

# Volume of each kind with half extent 1, in cubic metres (density is the same for all).
VOLUME = {
    "ball": 4 / 3 * math.pi,
    "cube": 8.0,
    "cylinder": 2 * math.pi * 0.8**2,
    "cone": 2 / 3 * math.pi * 0.95**2,
    "ring": 2 * math.pi**2 * 0.72 * 0.28**2,
    "figure": 2.0,
    "picture": 1.0,
    "letter": 1.0,
}
DIRECTION_VECTORS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "towards": (0.0, -1.0), "away": (0.0, 1.0)}


def direction_vector(direction: str, azimuth: float) -> tuple[float, float]:
    """Unit vector on the ground of a direction as the first camera sees it.

    Raises:
        ValueError: when the direction is unknown.
    """
    if direction not in DIRECTION_VECTORS:
        raise ValueError(f"direction is {direction!r}; use one of {', '.join(DIRECTION_VECTORS)}")
    right, depth = DIRECTION_VECTORS[direction]
    c, s = math.cos(azimuth), math.sin(azimuth)
    return right * c - depth * s, right * s + depth * c


def travel_distance(duration: float, direction: str) -> float:
    """Metres that a directed event covers."""
    if direction in ("left", "right"):
        return min(SIDE_TRAVEL, SIDE_SPEED * duration)
    return min(DEPTH_TRAVEL, DEPTH_SPEED * duration)


def fall_height(half_extent: float, duration: float) -> float:
    """How high the bottom of a falling thing starts, metres; less when it would not land within the event."""
    return min(FALL_TOP - 0.75 * half_extent, 0.5 * GRAVITY * (0.95 * duration) ** 2)


def bounce_flights(duration: float, amount: float = 1.0) -> list[tuple[float, float]]:
    """Take-off speed (m/s) and flight time (s) of each hop of a bounce that ends when its event ends.

    n hops with speeds v, e v, e^2 v ... last 2 v / g * (1 - e^n) / (1 - e); n is the smallest number from 2 on
    that keeps the first hop within `amount` times BOUNCE_HEIGHT.
    """
    highest = amount * BOUNCE_HEIGHT
    for n in range(2, 100):
        speed = duration * GRAVITY / 2 * (1 - RESTITUTION) / (1 - RESTITUTION**n)
        if speed**2 / (2 * GRAVITY) <= highest or RESTITUTION**n < 0.01:
            break
    speed = min(speed, math.sqrt(2 * GRAVITY * highest))
    return [(speed * RESTITUTION**k, 2 * speed * RESTITUTION**k / GRAVITY) for k in range(n)]
