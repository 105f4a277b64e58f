"""Where the tasks run: in this process, in processes of this machine, or on a Ray cluster.

All of them take tasks and give outcomes as these are done, with a bounded number of tasks under way, and the same
numbers bit for bit. A task whose process dies does not end the others: it is tried once more alone, and then given up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.context import BaseContext
from typing import Any, Protocol

from kinema.core.errors import KinemaError
from kinema.evaluation.work import Outcome, Task, one_thread, score

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
DIED = "the process that scored it died twice, of too little memory or a crash in a library"


class Runner(Protocol):
    """Runs tasks somewhere."""

    def run(self, tasks: Iterable[Task], in_flight: int) -> Iterator[Outcome]:
        """The outcomes as they are done; at most `in_flight` tasks are under way."""
        ...

    def close(self) -> None:
        """Ends at once, whatever is under way."""
        ...


def runner(workers: int | str, tasks: int) -> tuple[Runner, int]:
    """The runner for `workers`, and how many tasks it is to have under way: 0 is this process, "ray" a Ray cluster.

    Raises: KinemaError when `workers` is something else, or Ray is not installed or not there.
    """
    if workers == "ray":
        ray = OnRay()
        return ray, 2 * ray.places
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 1024:
        raise KinemaError(f"workers is {workers!r}; use 0 to 1024, or 'ray'")
    if workers == 0:
        return Here(), 1
    count = max(1, min(workers, tasks))
    return Processes(count), 2 * count


def prepare(workers: int | str) -> None:
    """Lets the process that workers are copies of import what they need, while other things are done here."""
    if isinstance(workers, int) and workers > 0 and _context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        with _for_children():
            ensure_running()


def score_on_one_thread(task: Task) -> Outcome:
    """`score`, whatever number of threads the process has for other work."""
    with one_thread():
        return score(task)


class Here:
    """One task after the other in this process."""

    def run(self, tasks: Iterable[Task], in_flight: int) -> Iterator[Outcome]:
        for task in tasks:
            yield score_on_one_thread(task)

    def close(self) -> None:
        pass


class Processes:
    """Processes of this machine, each with one thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def run(self, tasks: Iterable[Task], in_flight: int) -> Iterator[Outcome]:
        left = iter(tasks)
        running: dict[Future[Outcome], Task] = {}
        while True:
            suspects = []  # one of these brought the pool down, and it cannot be told which
            for task in islice(left, in_flight - len(running)):
                try:
                    running[self._submit(task, self.count)] = task
                except BrokenProcessPool:
                    suspects.append(task)
                    break
            if not running and not suspects:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    suspects.append(task)
                else:
                    yield future.result()
            if suspects:
                suspects += running.values()
                running.clear()
                yield from self._alone(suspects)

    def _submit(self, task: Task, processes: int) -> Future[Outcome]:
        if self._pool is None:
            self._pool = _started(processes)
        return self._pool.submit(score, task)

    def _alone(self, tasks: list[Task]) -> Iterator[Outcome]:
        self.close()
        for task in tasks:
            try:
                yield self._submit(task, 1).result()
            except BrokenProcessPool:
                self.close()
                yield Outcome(kind=task.kind, name=task.name, failed=DIED)
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            processes = list((getattr(self._pool, "_processes", None) or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
            self._pool = None


def _started(count: int) -> ProcessPoolExecutor:
    """A pool whose processes run. Raises: KinemaError when they cannot be started."""
    pool = ProcessPoolExecutor(count, _context(), initializer=_begin)
    try:
        with _for_children():
            started = pool.submit(os.getpid)
        started.result()
    except BrokenProcessPool as error:
        raise KinemaError(
            "no process can be started; in a script call it under `if __name__ == '__main__':`, or use workers=0"
        ) from error
    return pool


def _context() -> BaseContext:
    """Processes are copies of one that has imported everything and done nothing; on Windows each imports anew."""
    import multiprocessing

    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kinema.evaluation.ready"])
    return context


@contextmanager
def _for_children() -> Iterator[None]:
    """What a process started here inherits: one thread for every library, and no ear for Ctrl-C, which is ours."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    can_mask = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if can_mask else set()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if can_mask:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin() -> None:
    """The first thing a process does: quiet, one thread, no ear for Ctrl-C, and an end when its parent is gone."""
    import multiprocessing
    import warnings

    import torch

    from kinema.core.optional import library

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREADS, "1"))  # for what is loaded later
    torch.set_num_threads(1)
    with suppress(KinemaError):  # not installed: then what is loaded later, and what inherited one thread, keeps to it
        library("threadpoolctl").threadpool_limits(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: Any) -> None:
    process.join()
    os._exit(1)


class OnRay:
    """Tasks of a Ray cluster: the one of RAY_ADDRESS, or one on this machine that ends with the evaluation.

    Clips and models are read by path, so every machine of the cluster has to see the same folders.
    """

    def __init__(self) -> None:
        from kinema.core.optional import library

        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray remarks on it
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray: Any = library("ray", "ray")
        self._ours = not self._ray.is_initialized()
        if self._ours:
            self._start()
        self.places = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._score = self._ray.remote(max_retries=0)(score_on_one_thread)

    def _start(self) -> None:
        import logging

        address = os.environ.get("RAY_ADDRESS")
        common = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address:
                self._ray.init(address, **common)
            else:
                self._ray.init(
                    "local", num_cpus=cores(), include_dashboard=False, _node_ip_address="127.0.0.1",
                    object_store_memory=256 * 2**20, **common,
                )  # fmt: skip
        except Exception as error:
            raise KinemaError(f"Ray cannot be reached at {address or 'this machine'}: {error}") from error

    def run(self, tasks: Iterable[Task], in_flight: int) -> Iterator[Outcome]:
        left = iter(tasks)
        running: dict[Any, Task] = {}
        while True:
            for task in islice(left, in_flight - len(running)):
                running[self._score.remote(task)] = task
            if not running:
                return
            done, _ = self._ray.wait(list(running), num_returns=1)
            yield self._outcome(done[0], running.pop(done[0]))

    def _outcome(self, reference: Any, task: Task) -> Outcome:
        """What a task gave; raises what it raised, and tries once more when its process died."""
        kinds = self._ray.exceptions
        for there in (reference, self._score.remote):
            try:
                done: Outcome = self._ray.get(there(task) if callable(there) else there)
                return done
            except kinds.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            except kinds.RayError:
                continue
        return Outcome(kind=task.kind, name=task.name, failed=DIED)

    def close(self) -> None:
        if self._ours:
            self._ray.shutdown()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
