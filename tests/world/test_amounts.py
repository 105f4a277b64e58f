"""How far an event goes, times its usual way."""

from dataclasses import replace

import pytest
import torch

from kinema.world.motion import simulate
from kinema.world.spec import EventSpec, ObjectSpec, SceneSpec

BALL = ObjectSpec(kind="ball", colour="red")


def scene(action, amount=1.0, **event):
    done = EventSpec(action=action, start=0.2, end=2.8, amount=amount, **event)
    return SceneSpec(seed=0, objects=(BALL,), events=(done,))


def state(spec):
    return simulate([spec])[0]


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.3])
def test_a_way_is_as_long_as_its_amount_says(amount):
    ways = [state(scene("roll", a, direction="left")).centre[0, :, 0, 0] for a in (1.0, amount)]
    assert torch.allclose(ways[1] - ways[1][0], amount * (ways[0] - ways[0][0]), atol=1e-5)
    sizes = [state(scene("grow", a)).size[0, :, 0] for a in (1.0, amount)]
    assert torch.allclose(sizes[1][-1] / sizes[1][0], (sizes[0][-1] / sizes[0][0]) ** amount, atol=1e-5)


def test_a_hop_is_as_high_as_its_amount_says():
    heights = [state(scene("jump", a)).centre[0, :, 0, 2] for a in (0.0, 0.25, 0.5, 1.0)]
    rises = [float(height.max() - height[0]) for height in heights]
    assert rises == pytest.approx([0, 0.25 * rises[3], 0.5 * rises[3], 1.25], rel=0.1)
    bounces = [float(state(scene("bounce", a)).centre[0, :, 0, 2].max()) for a in (0.1, 0.3, 0.6, 1.0)]
    assert bounces == sorted(bounces) and len({*bounces}) == 4


def test_what_has_no_amount_is_refused():
    for spec in (scene("disappear", 0.5), scene("roll", -0.1, direction="left"), scene("roll", 5.0, direction="left")):
        with pytest.raises(ValueError, match="has amount .*; use 0 to 4 for roll, .*, else 1"):
            simulate([spec])
    assert SceneSpec.from_dict(scene("jump", 0.3).to_dict()) == scene("jump", 0.3)
    older = scene("jump").to_dict()
    del older["events"][0]["amount"]
    assert SceneSpec.from_dict(older) == replace(scene("jump"))
