"""AC3D: a camera that follows a path, by less, and without what it costs."""

from kinema.claims.bench.claim import Arm, Claim, Comparison
from kinema.claims.camera_paths import NOTES, READERS, read_exactly, read_painted, steered

CLAIM = Claim(
    name="ac3d",
    says="as precise as conditioning everywhere with a third of the parameters, and clips as good and as lively",
    paper="translation error 0.358, rotation error 0.035; VD3D on the same model 0.421 and 0.056; FID 5.34 and 6.88",
    arms=(
        Arm(name="filmed exactly", own=read_exactly),
        Arm(name="painted anew", own=read_painted),
        Arm(name="words"),
        Arm(name="nothing"),
        Arm(name="vd3d", techniques=("vd3d",)),
        Arm(name="ac3d", techniques=("ac3d",)),
        Arm(name="path alone", techniques=("ac3d",)),
        Arm(name="guided more", techniques=("ac3d:guidance=2.0",)),
        Arm(name="guided apart", techniques=("ac3d:joint=false,guidance=4.5",)),  # the paper's formula
    ),
    baseline="words",
    method="ac3d",
    main=Comparison(measure="turned_wrong", arm="ac3d", against="words", better="lower", share=-0.5),
    guards=(
        Comparison(measure="stands_wrong", arm="ac3d", against="words", better="lower", share=-0.4),
        Comparison(measure="turned_wrong", arm="ac3d", against="vd3d", better="lower", share=0.1),
        Comparison(measure="stands_wrong", arm="ac3d", against="vd3d", better="lower", share=0.1),
        Comparison(measure="t2v_alignment", arm="ac3d", against="words", slack=0.02),
        Comparison(measure="camera_motion_residual", arm="ac3d", against="words", better="higher", share=0.1),
    ),
    parts=(
        Comparison(measure="turned_wrong", arm="ac3d", against="path alone", better="lower"),
        Comparison(measure="stands_wrong", arm="ac3d", against="path alone", better="lower"),
        Comparison(measure="turned_wrong", arm="ac3d", against="guided more", better="lower"),
        Comparison(measure="t2v_alignment", arm="ac3d", against="guided more", slack=0.02),
        Comparison(measure="turned_wrong", arm="ac3d", against="guided apart", better="lower", share=0.1),
        Comparison(measure="t2v_alignment", arm="ac3d", against="guided apart", slack=0.02),
        Comparison(measure="turned_wrong", arm="ac3d", against="nothing", better="lower"),
        Comparison(measure="stands_wrong", arm="ac3d", against="nothing", better="lower"),
        Comparison(measure="zooms_wrong", arm="ac3d", against="words", better="lower"),
        Comparison(measure="dynamic_degree", arm="ac3d", against="words", better="higher", share=0.1),
    ),
    cases=steered,
    measures=READERS,
    notes=NOTES,
    steps=20,
)
