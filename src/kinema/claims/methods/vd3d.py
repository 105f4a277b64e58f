"""VD3D: a camera that follows a path."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.camera_paths import NOTES, READERS, steered

CLAIM = Claim(
    name="vd3d",
    says="the camera follows a path more closely than words alone",
    paper="on RealEstate10K, in AC3D's own setting: translation error 0.421, rotation error 0.056",
    arms=(Arm(name="words"), Arm(name="vd3d", techniques=("vd3d",))),
    baseline="words",
    method="vd3d",
    main=Comparison(measure="turned_wrong", arm="vd3d", against="words", better="lower", share=-0.5),
    guards=(
        Comparison(measure="stands_wrong", arm="vd3d", against="words", better="lower", share=-0.4),
        Comparison(measure="t2v_alignment", arm="vd3d", against="words", slack=0.05),
    ),
    parts=(Comparison(measure="zooms_wrong", arm="vd3d", against="words", better="lower"),),
    cases=steered,
    measures=READERS,
    notes=NOTES,
    steps=20,
)
