"""Imported once, by the process that all workers are copies of: what every clip needs, so that they begin at once."""

from contextlib import suppress

import av  # noqa: F401
import torch  # noqa: F401

from kinema.core.errors import KinemaError
from kinema.core.optional import library, opencv
from kinema.evaluation import work  # noqa: F401
from kinema.metrics.metric import metrics

for load in (metrics, opencv, lambda: library("scenedetect"), lambda: library("threadpoolctl")):
    with suppress(KinemaError):  # what is missing is told where it is used
        load()
