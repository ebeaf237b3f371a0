"""Run independent trainings in this process, or through joblib in several processes or on a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import torch

from capsnet._support.errors import CapsnetError
from capsnet.experiments.progress import Watch
from capsnet.experiments.trainings import StoppedExperiment
from capsnet.training.loop import Progress
from capsnet.training.run import Run

#: Backends, and the package that each needs.
BACKENDS = {"loky": "joblib", "dask": "distributed", "ray": "ray"}

T = TypeVar("T")
R = TypeVar("R")


def now() -> float:
    """Return the wall-clock time, which the processes of a cluster share."""
    return time.time()  # noqa: TID251  (it decides only which trainings begin)


@dataclass(frozen=True)
class Workers:
    """The place where trainings run, and how many run at the same time."""

    jobs: int | None = 1
    """Trainings at the same time; None: one per core, or as the cluster decides."""
    backend: str = "loky"
    """loky: processes of this machine. dask or ray: a running cluster ($DASK_SCHEDULER_ADDRESS, $RAY_ADDRESS)."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise CapsnetError(f"--jobs {self.jobs}: at least 1")
        if self.backend not in BACKENDS:
            raise CapsnetError(f"--backend {self.backend}: choose one of {', '.join(BACKENDS)}")
        if find_spec(BACKENDS[self.backend]) is None:
            raise CapsnetError(
                f"--backend {self.backend}: it is not installed; pip install 'capsnet[cluster]'"
            )

    @property
    def is_this_process(self) -> bool:
        """Return whether trainings run one after the other in this process."""
        return self.jobs == 1 and self.backend == "loky"


@dataclass(frozen=True)
class Task(Generic[T]):
    """A piece of work and its name."""

    label: str
    of: T
    latest: float | None = None
    """The task is left out if it cannot begin before this time (of `now`)."""

    def is_late(self) -> bool:
        """Return whether it is too late to begin."""
        return self.latest is not None and now() > self.latest


def each(
    function: Callable[[T, Progress | None], R],
    tasks: Sequence[Task[T]],
    workers: Workers,
    work: Path,
    watch: Watch,
    resume: bool = True,
) -> Iterator[tuple[T, R]]:
    """Yield each task with the function's result as they come; leave out late tasks.

    Args:
        function: called with a task's `of` and the training's progress. In other processes the progress is None, and
            the function is pickled with everything that it holds.
        tasks: tasks, in the order in which they begin.
        workers: place and number of processes.
        work: folder of the trainings, for the message of an interruption.
        watch: receiver of progress reports.
        resume: whether the command goes on from earlier trainings, for the message of an interruption.

    Raises:
        StoppedExperiment: by a signal. Trainings in processes of this machine have saved their state.
        CapsnetError: raised by the function; no cluster answers; a worker process was killed.
    """
    if not workers.is_this_process:
        yield from _shared_out(function, tasks, workers, work, watch, resume)
        return
    for number, task in enumerate(tasks, start=1):
        if not task.is_late():
            with watch.training(task.label, number, len(tasks)) as progress:
                result = function(task.of, progress)
            yield task.of, result


def _shared_out(
    function: Callable[[T, Progress | None], R],
    tasks: Sequence[Task[T]],
    workers: Workers,
    work: Path,
    watch: Watch,
    resume: bool,
) -> Iterator[tuple[T, R]]:
    from joblib import Parallel, cpu_count, delayed, parallel_config  # noqa: TID251  (it reads no files here)

    is_local = workers.backend == "loky"
    jobs = workers.jobs or (cpu_count() if is_local else -1)
    call = _Call(
        function, os.getpid() if is_local else None, max(1, cpu_count() // jobs) if is_local else None
    )
    done = 0
    with _cluster(workers.backend) as options, parallel_config(workers.backend, **options):
        parallel = Parallel(
            jobs,
            batch_size=1,
            pre_dispatch=workers.jobs or "n_jobs",
            return_as="list" if workers.backend == "ray" else "generator_unordered",
        )
        with _asked_to_stop(is_local) as asked:
            begun = takewhile(lambda _: not asked, enumerate(tasks))
            try:
                for outcome in parallel(delayed(call)(place, task) for place, task in begun):
                    if outcome is not None:
                        place, result = outcome
                        done += 1
                        with watch.training(tasks[place].label, done, len(tasks)):
                            pass
                        yield tasks[place].of, result
            except (Exception, KeyboardInterrupt) as error:
                if not asked:
                    if killed := _killed(error):
                        raise killed from error
                    raise
            if asked:
                raise StoppedExperiment(asked[0], Run(work), resume)


class _Call(Generic[T, R]):
    """Call the function in a worker process."""

    def __init__(
        self, function: Callable[[T, Progress | None], R], parent: int | None, threads: int | None
    ) -> None:
        self.function, self.parent, self.threads = function, parent, threads

    def __call__(self, place: int, task: Task[T]) -> tuple[int, R] | None:
        """Return the task's position and result; None if it was late or stopped."""
        if self.parent is not None:
            _end_with(self.parent)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _TURN:  # of the threads of one process, since PyTorch's random numbers are the process's
            if _stopped or task.is_late():
                return None
            try:
                return place, self.function(task.of, None)
            except StoppedExperiment as stopped:
                _stopped.append(stopped.number)
                return None


_TURN = threading.Lock()
#: The signal that this process received, if any.
_stopped: list[int] = []
_watched: set[int] = set()


def _end_with(parent: int) -> None:
    """Save the training and end this process, soon after its parent has ended."""
    if parent in _watched:
        return
    _watched.add(parent)

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)  # a training saves its state; anything else ends here
        with _TURN:
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _asked_to_stop(is_local: bool) -> Iterator[list[int]]:
    """Record the first SIGTERM or Ctrl-C, and pass it on to the worker processes.

    Workers on this machine save their trainings. A second signal ends this process at once.
    """
    from multiprocessing import active_children

    asked: list[int] = []
    others = set(active_children())

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        restore()
        if not is_local:
            raise KeyboardInterrupt
        for process in set(active_children()) - others:
            process.terminate()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone may handle signals
        yield asked
        return
    try:
        yield asked
    finally:
        restore()


@contextmanager
def _cluster(backend: str) -> Iterator[dict[str, Any]]:
    """Connect to the cluster; yield joblib's options for it.

    Raises:
        CapsnetError: there is no cluster.
    """
    with ExitStack() as at_the_end:
        options: dict[str, Any] = {}
        try:
            if backend == "dask":
                options["client"] = _dask(at_the_end)
            elif backend == "ray":
                _ray()
            else:
                at_the_end.callback(_end_processes)
        except (
            OSError,
            ValueError,
        ) as error:  # errors of Dask and Ray, such as time-outs
            reason = " ".join(str(error).split())[:200]
            raise CapsnetError(f"--backend {backend}: no cluster answers ({reason})") from error
        yield options


def _end_processes() -> None:
    from joblib.externals.loky import get_reusable_executor  # noqa: TID251

    get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _dask(at_the_end: ExitStack) -> Any:
    import dask
    from distributed import Client, default_client

    address = dask.config.get("scheduler-address", None)
    if address is not None:
        return at_the_end.enter_context(Client(address))
    try:
        return default_client()
    except ValueError:
        raise ValueError("start one and set DASK_SCHEDULER_ADDRESS") from None


def _ray() -> None:
    import ray
    from ray.util.joblib import register_ray

    register_ray()
    if not ray.is_initialized():
        ray.init(address="auto", logging_level="ERROR")


def _killed(error: BaseException) -> CapsnetError | None:
    """Return the error of a worker process that was killed; None for other errors."""
    if type(error).__name__ not in ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker"):
        return None
    return CapsnetError(
        "a worker process was killed, perhaps because memory ran out; finished runs are kept. Repeat the command to "
        "resume, perhaps with fewer --jobs"
    )
