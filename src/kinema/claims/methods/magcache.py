"""MagCache: blocks left out where little changes are better than as few steps."""

from kinema.claims.bench.claim import Arm, Claim, Comparison

CLAIM = Claim(
    name="magcache",
    says="left-out blocks keep more of the full result than fewer steps in the same time",
    paper="2.10x to 2.68x as fast on four models, with higher PSNR than other caches",
    arms=(
        Arm(name="all steps"),
        Arm(name="magcache", techniques=("magcache",)),
        Arm(name="fewer steps", as_fast_as="magcache"),
    ),
    baseline="all steps",
    method="magcache",
    main=Comparison(measure="psnr", to="all steps", arm="magcache", against="fewer steps"),
    guards=(
        Comparison(measure="t2v_alignment", arm="magcache", against="all steps", slack=0.03),
        Comparison(measure="seconds", arm="magcache", against="all steps", share=-0.2),
    ),
    steps=20,  # for which the model's card has the ratios
    quick_steps=20,
)
