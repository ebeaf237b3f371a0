"""One training loop, for every model, data set, device and number of processes.

All chance is drawn ahead, per epoch, from (seed, epoch): the order of the examples and the numbers their
augmentation takes. So a step depends only on the state and its own number, however the batch is split over
processes, and a resumed run repeats what the uninterrupted one would have done.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor

from capsnet.augment import Shift
from capsnet.config import TrainConfig, learning_rate
from capsnet.data.dataset import Dataset, Examples, Source
from capsnet.errors import CapsnetError
from capsnet.evaluation import Evaluation, evaluate
from capsnet.models.base import Classifier
from capsnet.provenance import environment
from capsnet.runs import Run
from capsnet.stepping import NotFinite, Stepper

#: Steps between two lines of metrics.
LOG_EVERY = 10


class Interrupted(Exception):
    """The process was asked to end, by the signal `number`; the state is saved."""

    def __init__(self, number: int, run: Run) -> None:
        super().__init__(f"interrupted; continue with: capsnet train --resume {run.folder}")
        self.number = number


class Progress(Protocol):
    """Who watches a training. The command line draws bars from it."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """A line of metrics: loss and its parts, images_per_second."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The test set was looked at."""


class Silent:
    """Nobody watches."""

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Nothing."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Plan:
    """How many steps, and which examples with which chance in each."""

    seed: int
    examples: int
    draws: int
    batch_size: int
    steps: int

    @classmethod
    def of(cls, config: TrainConfig, source: Source) -> Plan:
        """The plan of a training: whole batches only; a data set smaller than a batch is one batch."""
        batch_size = min(config.batch_size, len(source))
        steps = config.steps or config.epochs * (len(source) // batch_size)
        return cls(config.seed, len(source), source.draws, batch_size, steps)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.examples // self.batch_size

    def epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Order of the examples (examples,) and their uniform numbers (examples, draws) in one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(self.examples, generator=generator)
        return order, torch.rand(self.examples, self.draws, generator=generator)

    def batches(self, first_step: int, device: torch.device) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, indices, uniforms) of every step from `first_step` on."""
        epoch, order, uniforms = -1, torch.empty(0), torch.empty(0)
        for step in range(first_step, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order, uniforms = (drawn.to(device) for drawn in self.epoch(epoch))
            start = step % self.steps_per_epoch * self.batch_size
            rows = slice(start, start + self.batch_size)
            yield step, order[rows], uniforms[rows]


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
        CapsnetError: the loss is no longer finite; the saved state is damaged or of another model.
        Interrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    progress = progress or Silent()
    source = _with_shifts(dataset.train, config)
    plan = Plan.of(config, source)
    stepper = Stepper(model, source, config, plan.batch_size, device)
    test = dataset.test.to(stepper.device)
    position = _restore(stepper, run) if resume else {"step": 0, "seconds": 0.0}
    watch = _Stopwatch(position["seconds"])
    saved_at, saved_step, logged_step = time.monotonic(), int(position["step"]), int(position["step"])
    try:
        with _requests_to_stop() as requests:
            for step, indices, uniforms in plan.batches(saved_step, stepper.device):
                rate = learning_rate(config, step, plan.steps)
                stepper.step(indices, uniforms, rate)
                done = step + 1
                must_stop = bool(requests)
                at_log = done % LOG_EVERY == 0 or done == plan.steps or must_stop
                if at_log:
                    losses = stepper.take_losses()  # waits for the device, so the lap below is a true time
                    speed = (done - logged_step) * plan.batch_size / watch.lap()
                    logged_step = done
                    values = {**losses, "learning_rate": rate, "images_per_second": speed}
                    if stepper.is_main:
                        run.append_metrics({"step": done, **values})
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
                    raise Interrupted(requests[0], run)
    except NotFinite as error:
        kept = f"the state of step {saved_step} is kept" if saved_step else "nothing was saved before"
        raise CapsnetError(
            f"{run.folder}: {error} near step {step + 1}, at learning rate {rate:.2g}; {kept}; "
            "train again with a smaller --learning-rate"
        ) from error
    evaluation = _look_at_test(model, test, run, plan.steps, stepper.is_main, progress)
    if stepper.is_main:
        about = {
            **evaluation.summary(),
            "data": dataset.name,
            "provenance": dataset.provenance,
            "classes": list(dataset.classes),
            "architecture": model.architecture,
            "parameters": model.parameter_count(),
            "seed": config.seed,
            "steps": plan.steps,
            "epochs": plan.steps / plan.steps_per_epoch,
            "seconds": watch.seconds,
            "device": stepper.device.type,
            "processes": stepper.processes,
            "environment": environment(),
        }
        run.finish(model, about)
    return evaluation


def _with_shifts(source: Source, config: TrainConfig) -> Source:
    """The paper's shifts for plain images; a source that augments in its own way is left as it is."""
    if isinstance(source, Examples) and source.augment is None and config.shift:
        return replace(source, augment=Shift(config.shift))
    return source


def _restore(stepper: Stepper, run: Run) -> dict[str, float]:
    saved = run.load_state()
    position: dict[str, float] = {"step": 0, "seconds": 0.0}
    if saved is not None:
        tensors, position = saved
        stepper.load_state(tensors)
    if stepper.is_main:
        run.forget_metrics_after(int(position["step"]))
    return position


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
    """Seconds of training, without saves and evaluations."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._lap_seconds = seconds
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        self._count()
        lap, self._lap_seconds = self.seconds - self._lap_seconds, self.seconds
        return lap

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._count()
        yield
        self._since = time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
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
