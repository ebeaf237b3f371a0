"""Measure on the test set whether routing matters, in the background.

`python -m capsnet.explorer.testset RUN` measures the whole test set and saves the results beside the model.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from capsnet._support.files import write_text
from capsnet.data.dataset import middle_batch
from capsnet.explain import coupling_entropy, dead_share
from capsnet.explorer.programs.compare import ABLATION, DEAD
from capsnet.explorer.schemas import TestRow, TestsetResponse
from capsnet.explorer.session import Session, open_session, places
from capsnet.explorer.worker import Worker
from capsnet.inference.evaluation import Evaluation

#: Images per step.
CHUNK = 20
#: Test images measured: enough for an interval of about ±0.5 % at an error of 1 %.
LIMIT = 1000
#: Saved results of `measure`, beside the model's weights.
FILE = "ablation.json"


@dataclass
class _Sums:
    """Collect values chunk by chunk, one entry per number of iterations."""

    scores: list[list[Tensor]] = field(default_factory=lambda: [[] for _ in ABLATION])
    own: list[Tensor] = field(default_factory=list)
    entropy: list[list[Tensor]] = field(default_factory=lambda: [[] for _ in ABLATION])
    labels: list[Tensor] = field(default_factory=list)
    control: list[Tensor] = field(default_factory=list)
    longest: Tensor | None = None


class Ablation:
    """Count test errors for each number of iterations in `ABLATION`.

    Args:
        session: the model and its data.
        limit: largest number of test images; see `capsnet.explorer.session.places`.
    """

    def __init__(self, session: Session, limit: int = LIMIT) -> None:
        self.session = session
        self._places = places(session.dataset, limit) if session.dataset else torch.arange(0)
        self.total = len(self._places)
        self.done = 0
        self._sums = _Sums()

    @torch.no_grad()
    def step(self, count: int = CHUNK) -> bool:
        """Measure the next images; return True while images are left."""
        session, sums = self.session, self._sums
        if self.done >= self.total:
            return False
        assert session.dataset is not None
        stop = min(self.done + count, self.total)
        batch = middle_batch(session.dataset.test, self._places[self.done : stop])
        # Iteration t does not depend on later iterations, so one trace holds the results of all of them.
        routing = session.model.class_routing(batch.images, max(ABLATION))
        within = session.iterations <= max(ABLATION)
        own = routing.scores[session.iterations - 1] if within else session.model.scores(batch.images)
        sums.own.append(own)
        entropy = coupling_entropy(routing)
        for index, iterations in enumerate(ABLATION):
            sums.scores[index].append(routing.scores[iterations - 1])
            sums.entropy[index].append(entropy[iterations - 1])
        if session.control is not None:
            sums.control.append(session.control.scores(batch.images))
        sums.labels.append(batch.labels)
        longest = routing.presence.amax(dim=0)
        sums.longest = longest if sums.longest is None else torch.maximum(sums.longest, longest)
        self.done = stop
        return self.done < self.total

    def progress(self) -> TestsetResponse:
        """Return the progress, without results."""
        dataset = self.session.dataset
        few = (
            f" Only {self.total:,} of {len(dataset.test):,} test images are used."
            if dataset and self.total < len(dataset.test)
            else ""
        )
        return TestsetResponse(
            source=self.session.provenance + few,
            done=self.done,
            total=self.total,
            rows=[],
            dead_children=None,
            control_error=None,
            control_interval=None,
        )

    def result(self) -> TestsetResponse:
        """Return the results if all images are measured, else the progress."""
        progress = self.progress()
        if self.done < self.total or self.total == 0:
            return progress
        sums = self._sums
        labels, own = torch.cat(sums.labels), torch.cat(sums.own)
        control = Evaluation(torch.cat(sums.control), labels) if sums.control else None
        assert sums.longest is not None
        rows = [
            _row(iterations, torch.cat(sums.scores[index]), own, labels, torch.cat(sums.entropy[index]))
            for index, iterations in enumerate(ABLATION)
        ]
        figures: dict[str, object] = {
            "rows": rows,
            "dead_children": dead_share(sums.longest[None, :, None], DEAD),
            "control_error": None if control is None else control.error,
            "control_interval": None if control is None else control.interval,
        }
        return progress.model_copy(update=figures)


def _row(iterations: int, lengths: Tensor, own: Tensor, labels: Tensor, entropy: Tensor) -> TestRow:
    evaluation = Evaluation(lengths, labels)
    top = lengths.topk(2, dim=1).values.mean(dim=0)
    return TestRow(
        iterations=iterations,
        errors=evaluation.errors,
        n=evaluation.n,
        error=evaluation.error,
        interval=evaluation.interval,
        changed=int((evaluation.predictions != Evaluation(own, labels).predictions).any(dim=1).sum()),
        winner=float(top[0]),
        runner_up=float(top[1]),
        entropy=float(entropy.mean()),
    )


class Measured(BaseModel):
    """Hold saved results and the hash of the weights they belong to."""

    weights_sha256: str
    figures: TestsetResponse


def read_measured(folder: Path) -> TestsetResponse | None:
    """Read the results that `measure` saved for these weights, or return None."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        kept = Measured.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # unreadable: measure again
    return kept.figures if kept.weights_sha256 == _weights_of(folder) else None


def _weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def measure(session: Session) -> TestsetResponse:
    """Measure the whole test set and save the results beside the model."""
    ablation = Ablation(session, limit=2**31)
    while ablation.step(count=50):
        pass
    result = ablation.result()
    kept = Measured(weights_sha256=_weights_of(session.saved.folder), figures=result)
    write_text(session.saved.folder / FILE, kept.model_dump_json(indent=2) + "\n")
    return result


def measured_or_measure(session: Session) -> TestsetResponse:
    """Return the saved results, or measure the first `LIMIT` test images now."""
    saved = read_measured(session.saved.folder)
    if saved is not None:
        return saved
    ablation = Ablation(session)
    while ablation.step():
        pass
    return ablation.result()


class Background:
    """Run an ablation in the background, starting at the first request."""

    def __init__(self, session: Session, worker: Worker) -> None:
        self._ablation = Ablation(session)
        self._measured = read_measured(session.saved.folder)
        self._worker = worker
        self._job: Future[TestsetResponse] | None = None

    def ask(self) -> TestsetResponse:
        """Return the results, or the progress while they are incomplete.

        Raises:
            Busy: the worker is closed.
        """
        if self._measured is not None:
            return self._measured
        if self._job is None:
            self._job = self._worker.submit(self._run)
        return self._job.result() if self._job.done() else self._ablation.progress()

    def _run(self) -> TestsetResponse:
        while self._ablation.step() and not self._worker.closed:
            pass
        return self._ablation.result()


if __name__ == "__main__":
    print(measure(open_session(sys.argv[1])).model_dump_json(indent=2))
