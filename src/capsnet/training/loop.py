"""The training loop, for every model, data set, device and number of processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Protocol

from capsnet._support.environment import environment
from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet.data.dataset import Dataset, Source
from capsnet.data.multi_label import MultiLabel
from capsnet.distributed import connected
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.inference.saved_confidence import Confidence
from capsnet.models.base import Classifier
from capsnet.models.protocols import decodes
from capsnet.training.batches import BatchSchedule, augmented, check_class_weights
from capsnet.training.config import Stop, TrainConfig, learning_rate
from capsnet.training.determinism import deterministic
from capsnet.training.holding_out import hold_out
from capsnet.training.nonfinite import NonfinitePolicy
from capsnet.training.run import Run
from capsnet.training.step import Stepper

#: Steps between two calls of `Stepper.drop_denormals`.
DROP_EVERY = 100
#: Steps between two lines of metrics.
LOG_EVERY = 10


class Interrupted(Exception):
    """The training was interrupted by the signal `number`. A checkpoint was written."""

    def __init__(self, number: int, run: Run) -> None:
        super().__init__(f"interrupted; resume with: capsnet train --resume {run.folder}")
        self.number = number


class StopTraining(Exception):
    """Raise this in a `Progress` to stop a training early. It passes through `train`, and the run is not finished."""


class Progress(Protocol):
    """Receives the progress of a training. The command line shows a progress bar."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Receive a line of metrics: loss and its parts, images_per_second."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Receive an evaluation on the test set."""

    def noticed(self, message: str) -> None:
        """Receive a warning for the user: skipped steps, a damaged checkpoint."""


class Silent:
    """A `Progress` that shows nothing."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Do nothing."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Do nothing."""

    def noticed(self, message: str) -> None:
        """Do nothing."""


def train(
    model: Classifier,
    dataset: Dataset,
    config: TrainConfig,
    run: Run,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
    confidence: bool = False,
) -> Evaluation:
    """Train a model in a run folder and finish the run.

    The model of the last step is evaluated and saved; the test set never chooses a model, unless `stop` says so.

    Args:
        model: a new model, built after seeding PyTorch with config.seed (`capsnet.models.build_model`). This also
            applies to resuming, since the run may have stopped before its first checkpoint.
        dataset: training and test examples.
        config: training options.
        run: an open run folder.
        device: "auto" (the device that Accelerate finds), "cpu", "cuda" or "mps".
        resume: continue from the newest checkpoint, if there is one.
        progress: is called during training.
        stop: stop at this error on the test set. None: at the last step.
        confidence: also write confidence.json, before the run counts as finished; see
            `capsnet.inference.saved_confidence`.

    Returns:
        The evaluation of the last step's model on the whole test set.

    Raises:
        NotFinite: by the policy `config.on_nonfinite`. The last good checkpoint is kept.
        CannotWrite: the disk is full, or the folder is not writable. The last good checkpoint is kept.
        CapsnetError: the checkpoints are damaged or of another model; or `config.deterministic` is set and an operation
            has no deterministic form on the device.
        ConnectionLost: another process of the same training has ended. The last good checkpoint is kept.
        StopTraining: raised by `progress`.
        Interrupted: SIGTERM or Ctrl-C, in one process or in all. A checkpoint was written.
    """
    if isinstance(dataset.train, MultiLabel) and decodes(model):
        raise CapsnetError(
            f"{dataset.name}: an image may show any number of classes, and a decoder must know what belongs to which; "
            "train without one: --no-reconstruction"
        )
    check_class_weights(config, dataset)
    dataset = hold_out(dataset, config)
    advice = f"resume with: capsnet train --resume {shown(run.folder)}"
    with deterministic(config.deterministic), connected(advice):
        return _train(model, dataset, config, run, device, resume, progress or Silent(), stop, confidence)


def _train(
    model: Classifier,
    dataset: Dataset,
    config: TrainConfig,
    run: Run,
    device: str,
    resume: bool,
    progress: Progress,
    stop: Stop | None,
    confidence: bool,
) -> Evaluation:
    source = augmented(dataset.train, config)
    schedule = BatchSchedule.of(config, source)
    stepper = Stepper(model, source, config, schedule.batch_size, device, schedule.steps)
    policy = NonfinitePolicy(config, schedule, run if stepper.is_main else None)
    test = dataset.test.to(stepper.device)
    look_at = partial(_look_at_test, test, run if stepper.is_main else None, progress)
    position = _restore(stepper, run, progress) if resume else {"step": 0, "seconds": 0.0}
    policy.resume(run, int(position["step"]))
    watch = _Stopwatch(position["seconds"])
    evaluation, saved_at = None, time.monotonic()
    saved_step = logged_step = done = int(position["step"])
    try:
        with _requests_to_stop() as requests:
            for step, indices, uniforms in schedule.batches(saved_step, stepper.device):
                rate = learning_rate(config, step, schedule.steps)
                model.set_progress(step / schedule.steps)
                stepper.step(indices, uniforms, rate)
                done = step + 1
                if done % DROP_EVERY == 0:
                    stepper.drop_denormals()
                must_stop = _asked_to_stop(stepper, requests, done)
                at_log = done % LOG_EVERY == 0 or done == schedule.steps or bool(must_stop)
                at_log |= config.on_nonfinite == "stop" and stepper.is_known_nonfinite()
                if at_log:
                    losses, nonfinite = stepper.results()  # a device sync, so the lap below is the true time
                    speed = (done - logged_step) * schedule.batch_size / watch.lap()
                    values = {**losses, "learning_rate": rate, "images_per_second": speed}
                    if skipped := policy.apply(logged_step, done, nonfinite):
                        progress.noticed(skipped)
                    logged_step = done
                    if losses and stepper.is_main:
                        run.append_metrics({"step": done, **values})
                        with watch.paused():  # a tracker may be slow
                            progress.logged(done, schedule.steps, values)
                with watch.paused():
                    looks = _at_evaluation(config, schedule, done, stop)
                    evaluation = look_at(stepper.result, done) if looks else None
                    due = time.monotonic() - saved_at >= config.save_seconds and done < schedule.steps
                    if must_stop or (at_log and due):
                        if stepper.is_main:
                            run.save_checkpoint(stepper.state(), {"step": done, "seconds": watch.seconds})
                        saved_at, saved_step = time.monotonic(), done
                if stop and evaluation and evaluation.error <= stop.error:
                    break
                if must_stop:
                    raise Interrupted(must_stop, run)
        stepper.check_weights()
        stepper.finish()
        evaluation = evaluation or look_at(model, done)
    except NotFinite as error:
        raise _with_advice(error, run, saved_step, config) from error
    if stepper.is_main:
        run.finish(
            model,
            {
                **evaluation.summary(),
                "data": dataset.name,
                "provenance": dataset.provenance,
                "class_names": list(dataset.class_names),
                "architecture": model.architecture,
                "parameters": model.parameter_count(),
                "seed": config.seed,
                "steps": done,
                "steps_left_out": len(run.nonfinite()),
                "epochs": done / schedule.steps_per_epoch,
                "seconds": watch.seconds,
                "device": stepper.device.type,
                "processes": stepper.processes,
                "environment": environment(),
            },
            Confidence.fit(model.eval(), dataset.train, dataset.validation) if confidence else None,
        )
    return evaluation


def _with_advice(error: NotFinite, run: Run, saved_step: int, config: TrainConfig) -> NotFinite:
    kept = f"the checkpoint of step {saved_step} is kept" if saved_step else "there is no checkpoint yet"
    past = f", or skip such steps with --resume {run.folder} --on-nonfinite skip"
    return NotFinite(
        f"{run.folder}: {error}; {kept}; train again with a smaller --learning-rate"
        f"{past if config.on_nonfinite == 'stop' else ''}"
    )


def _restore(stepper: Stepper, run: Run, progress: Progress) -> dict[str, float]:
    saved = run.load_checkpoint()
    if saved is not None:
        stepper.load_state(saved.tensors)
        if saved.notice:
            progress.noticed(
                f"{saved.notice}; resuming from the checkpoint before it, step {saved.position['step']}"
            )
    position = saved.position if saved is not None else {"step": 0, "seconds": 0.0}
    first, last = -stepper.maximum(-int(position["step"])), stepper.maximum(int(position["step"]))
    if first != last:  # for example an unshared or lagging network disk
        raise CapsnetError(
            f"{shown(run.folder)}: the processes found different checkpoints, of steps {first} to {last}; "
            "put it on a disk that all machines share"
        )
    if stepper.is_main:
        run.forget_lines_after(int(position["step"]))
    return position


def _asked_to_stop(stepper: Stepper, requests: list[int], done: int) -> int:
    """Return the signal that any process received, or 0.

    All processes get the same answer, so they stop after the same step. Several GPUs are only asked when metrics are
    logged, since this forces a device sync.
    """
    if stepper.device.type == "cpu" or stepper.processes == 1 or done % LOG_EVERY == 0:
        return stepper.maximum(requests[0] if requests else 0)
    return 0


def _at_evaluation(config: TrainConfig, schedule: BatchSchedule, done: int, stop: Stop | None) -> bool:
    every = config.evaluate_every * schedule.steps_per_epoch
    asked = (every and done % every == 0) or (stop and done % stop.every == 0)
    return bool(asked) and done < schedule.steps


def _look_at_test(
    test: Source, run: Run | None, progress: Progress, model: Classifier, step: int
) -> Evaluation:
    evaluation = evaluate(model, test)
    if run is not None:
        run.append_metrics({"step": step, **evaluation.summary()})
        progress.evaluated(step, evaluation)
    return evaluation


class _Stopwatch:
    """Training time in seconds, without checkpoints and evaluations.

    Uses a monotonic clock, so changes of the system time have no effect.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lap = 0.0
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap, more than 0."""
        self._count()
        lap, self._lap = self._lap, 0.0
        return max(lap, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._count()
        yield
        self._since = time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._lap += now - self._since
        self._since = now


@contextmanager
def _requests_to_stop() -> Iterator[list[int]]:
    """Record SIGTERM and Ctrl-C, so that the step ends and a checkpoint is written."""
    requests: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        requests.append(number)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # only the main thread can handle signals
        yield requests
        return
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
