"""One training loop, for every model, data set, device and number of processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from capsnet._support.environment import environment
from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet.data.dataset import Dataset, Source
from capsnet.distributed import connected
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.models.base import Classifier
from capsnet.training.batches import Plan, augmented
from capsnet.training.config import TrainConfig, learning_rate
from capsnet.training.determinism import deterministic
from capsnet.training.nonfinite import BrokenSteps
from capsnet.training.run import Run
from capsnet.training.step import Stepper

#: Steps between two lines of metrics.
LOG_EVERY = 10


class Interrupted(Exception):
    """The process was asked to end, by the signal `number`; the state is saved."""

    def __init__(self, number: int, run: Run) -> None:
        super().__init__(f"interrupted; continue with: capsnet train --resume {run.folder}")
        self.number = number


class Enough(Exception):
    """Raised by a `Progress` in `logged` to end a training that has come far enough; it passes through `train`.

    The run is not finished then: that is for whoever raised it.
    """

    seconds: float = 0.0
    """Of training, without saves and evaluations, over all sessions of the run; `train` notes it here."""


class Progress(Protocol):
    """Who watches a training. The command line draws bars from it."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """A line of metrics: loss and its parts, images_per_second."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The test set was looked at."""

    def noticed(self, message: str) -> None:
        """Something that whoever trains should know: steps left out, a damaged save."""


class Silent:
    """Nobody watches."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Nothing."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Nothing."""

    def noticed(self, message: str) -> None:
        """Nothing."""


def train(
    model: Classifier,
    dataset: Dataset,
    config: TrainConfig,
    run: Run,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Train a model and leave a finished run behind. The model that counts is the last step's.

    Args:
        model: freshly built, PyTorch seeded with config.seed first; when resuming too, since the run may have
            ended before its first save (`capsnet.models.build_model`).
        dataset: training examples; its test set is only looked at, never chosen by.
        config: how to train.
        run: an open run folder.
        device: "auto" takes what Accelerate finds; or "cpu", "cuda", "mps".
        resume: continue from the run's last completed save, if there is one.
        progress: who watches.

    Returns:
        The last step's model on the whole test set.

    Raises:
        NotFinite: by the policy `config.on_nonfinite`; the last good state is kept.
        CannotWrite: the disk is full, or the folder is not writable; the last good state is kept.
        CapsnetError: the saved states are damaged, or of another model; `config.deterministic`, and an operation
            has no deterministic form on the device.
        ConnectionLost: another process of the same training has ended; the last good state is kept.
        Enough: by `progress`.
        Interrupted: SIGTERM or Ctrl-C, in one of the processes or all; the state is saved.
    """
    advice = f"continue with: capsnet train --resume {shown(run.folder)}"
    with deterministic(config.deterministic), connected(advice):
        return _train(model, dataset, config, run, device, resume, progress or Silent())


def _train(
    model: Classifier,
    dataset: Dataset,
    config: TrainConfig,
    run: Run,
    device: str,
    resume: bool,
    progress: Progress,
) -> Evaluation:
    source = augmented(dataset.train, config)
    plan = Plan.of(config, source)
    stepper = Stepper(model, source, config, plan.batch_size, device)
    judge = BrokenSteps(config, plan, run if stepper.is_main else None)
    test = dataset.test.to(stepper.device)
    position = _restore(stepper, run, progress) if resume else {"step": 0, "seconds": 0.0}
    judge.take_up(run, int(position["step"]))
    watch = _Stopwatch(position["seconds"])
    saved_at, saved_step, logged_step = time.monotonic(), int(position["step"]), int(position["step"])
    try:
        with _requests_to_stop() as requests:
            for step, indices, uniforms in plan.batches(saved_step, stepper.device):
                rate = learning_rate(config, step, plan.steps)
                stepper.step(indices, uniforms, rate)
                done = step + 1
                must_stop = _asked_to_stop(stepper, requests, done)
                must_look = must_stop or (config.on_nonfinite == "stop" and stepper.is_known_broken())
                at_log = done % LOG_EVERY == 0 or done == plan.steps or must_look
                if at_log:
                    losses, broken = stepper.look()  # waits for the device, so the lap below is a true time
                    speed = (done - logged_step) * plan.batch_size / watch.lap()
                    if left_out := judge.judge(logged_step, done, broken):
                        progress.noticed(left_out)
                    logged_step = done
                    values = {**losses, "learning_rate": rate, "images_per_second": speed}
                    if losses and stepper.is_main:
                        run.append_metrics({"step": done, **values})
                        with watch.paused():  # whoever watches may look at the test set
                            progress.logged(done, plan.steps, values)
                with watch.paused():
                    if _at_evaluation(config, plan, done):
                        _look_at_test(model, test, run, done, stepper.is_main, progress)
                    due = time.monotonic() - saved_at >= config.save_seconds and done < plan.steps
                    if must_stop or (at_log and due):
                        if stepper.is_main:
                            run.save_state(stepper.state(), {"step": done, "seconds": watch.seconds})
                        saved_at, saved_step = time.monotonic(), done
                if must_stop:
                    raise Interrupted(must_stop, run)
        stepper.check_weights()
        evaluation = _look_at_test(model, test, run, plan.steps, stepper.is_main, progress)
    except NotFinite as error:
        kept = f"the state of step {saved_step} is kept" if saved_step else "nothing was saved before"
        past = f", or go past it with --resume {run.folder} --on-nonfinite skip"
        raise NotFinite(
            f"{run.folder}: {error}; {kept}; train again with a smaller --learning-rate"
            f"{past if config.on_nonfinite == 'stop' else ''}"
        ) from error
    if stepper.is_main:
        about = {
            **evaluation.summary(),
            "data": dataset.name,
            "provenance": dataset.provenance,
            "class_names": list(dataset.class_names),
            "architecture": model.architecture,
            "parameters": model.parameter_count(),
            "seed": config.seed,
            "steps": plan.steps,
            "steps_left_out": len(run.nonfinite()),
            "epochs": plan.steps / plan.steps_per_epoch,
            "seconds": watch.seconds,
            "device": stepper.device.type,
            "processes": stepper.processes,
            "environment": environment(),
        }
        run.finish(model, about)
    return evaluation


def _restore(stepper: Stepper, run: Run, progress: Progress) -> dict[str, float]:
    saved = run.load_state()
    if saved is not None:
        stepper.load_state(saved.tensors)
        if saved.notice:
            progress.noticed(
                f"{saved.notice}; going on from the save before it, step {saved.position['step']}"
            )
    position = saved.position if saved is not None else {"step": 0, "seconds": 0.0}
    first, last = -stepper.agreed(-int(position["step"])), stepper.agreed(int(position["step"]))
    if first != last:  # as disks do that are shared by name only, or late
        raise CapsnetError(
            f"{shown(run.folder)}: the processes found different saves, of steps {first} to {last}; "
            "put it on a disk that all machines share"
        )
    if stepper.is_main:
        run.forget_lines_after(int(position["step"]))
    return position


def _asked_to_stop(stepper: Stepper, requests: list[int], done: int) -> int:
    """The signal that one of the processes got, or 0: all of them stop after the same step.

    Those of a GPU do not wait for it in every step, but at each line of metrics.
    """
    if stepper.device.type == "cpu" or stepper.processes == 1 or done % LOG_EVERY == 0:
        return stepper.agreed(requests[0] if requests else 0)
    return 0


def _at_evaluation(config: TrainConfig, plan: Plan, done: int) -> bool:
    every = config.evaluate_every * plan.steps_per_epoch
    return bool(every) and done % every == 0 and done < plan.steps


def _look_at_test(
    model: Classifier, test: Source, run: Run, step: int, is_main: bool, progress: Progress
) -> Evaluation:
    evaluation = evaluate(model, test)
    if is_main:
        run.append_metrics({"step": step, **evaluation.summary()})
        progress.evaluated(step, evaluation)
    return evaluation


class _Stopwatch:
    """Seconds of training, without saves and evaluations; by a clock that nobody can set."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lap = 0.0
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, more than 0."""
        self._count()
        lap, self._lap = self._lap, 0.0
        return max(lap, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._count()
        try:
            yield
        except Enough as enough:
            enough.seconds = self.seconds
            raise
        self._since = time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._lap += now - self._since
        self._since = now


@contextmanager
def _requests_to_stop() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are noted instead of obeyed, so that the step ends and the state is saved."""
    requests: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        requests.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
