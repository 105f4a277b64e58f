"""What each of two processes does in `test_parallel.py`: `torchrun --nproc-per-node 2 two_processes.py FOLDER`.

FOLDER holds `jobs.json` and the models; the first process leaves what came out beside them.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from kinema.backbones.load import load
from kinema.cli import process, run
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.request import Request


class Looks(Technique):
    name = "looks"

    def attend(self, step, site, q, k, v, positions, next):
        return next(q, k, v, positions)


def keep(path, step, x):
    np.save(path, x.numpy())  # the last one stays


def refused(do, *args, **named):
    try:
        do(*args, **named)
    except KinemaError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    jobs, rank = json.loads((folder / "jobs.json").read_text()), process()[0]
    said = {"others": refused(load, jobs["others"], device="cpu", context_parallel="ulysses")}
    for name, job in jobs["sampled"].items():
        backbone = load(job["model"], device="cpu", context_parallel="ulysses")
        path = folder / f"{name}.{rank}.npy"
        sample(backbone, Request(**job["request"]), on_step=partial(keep, path))
        said[name] = {
            "other requests": refused(sample, backbone, Request(**job["request"] | {"seed": rank})),
            "no seed": refused(sample, backbone, Request(**job["request"] | {"seed": None})),
            "odd size": refused(sample, backbone, Request(**job["request"] | {"height": 32, "width": 32})),
            "looks": refused(sample, backbone, Request(**job["request"]), [Looks()]),
        }
        with backbone.tapped(False):  # as while a run is open
            said[name]["second run"] = refused(sample, backbone, Request(**job["request"]))
    (folder / f"said.{rank}.json").write_text(json.dumps(said))
    sys.exit(run(jobs["command"]))  # the last, because it says goodbye to the other process


main(Path(sys.argv[1]))
