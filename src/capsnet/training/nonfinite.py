"""Log steps with a NaN or infinite loss or gradient, then skip them or stop."""

from __future__ import annotations

from collections.abc import Sequence

from capsnet._support.errors import NotFinite
from capsnet.training.batches import BatchSchedule
from capsnet.training.config import TrainConfig, learning_rate
from capsnet.training.run import Run
from capsnet.training.step import NonfiniteStep

#: Stop after this many consecutive skipped steps.
PATIENCE = 20

NOT_FINITE = {"loss": "the loss is not finite", "gradients": "the gradients are not finite"}


class NonfinitePolicy:
    """Policy for steps with a non-finite loss or gradient.

    Args:
        config: its `on_nonfinite` is "stop" or "skip".
        schedule: the batches of the training.
        run: where such steps are logged; None in a process that does not write.
    """

    def __init__(self, config: TrainConfig, schedule: BatchSchedule, run: Run | None) -> None:
        self._config, self._schedule, self._run = config, schedule, run
        self._in_a_row = 0

    def resume(self, run: Run, done: int) -> None:
        """Restore the count of consecutive skipped steps, `done` steps into the run.

        Every rank must do this, or the ranks would not stop at the same step.
        """
        skipped = {line["step"] for line in run.nonfinite()}
        self._in_a_row = 0
        while done - self._in_a_row in skipped:
            self._in_a_row += 1

    def apply(self, first: int, done: int, nonfinite: Sequence[NonfiniteStep]) -> str:
        """Apply the policy to the steps first … done − 1, and log the non-finite ones.

        Args:
            first, done: the range of the steps, counted from 0.
            nonfinite: the steps in this range with a non-finite loss or gradient.

        Returns:
            A message about skipped steps; empty if there are none.

        Raises:
            NotFinite: the policy is to stop, or too many consecutive steps were skipped.
        """
        what = {first + step.number: step.what for step in nonfinite}
        for step in range(first, done):
            if step not in what:
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            rate = learning_rate(self._config, step, self._schedule.steps)
            self._log(step, what[step], rate)
            where = f"{NOT_FINITE[what[step]]} in step {step + 1}, at learning rate {rate:.2g}"
            if self._config.on_nonfinite == "stop":
                raise NotFinite(where)
            if self._in_a_row >= PATIENCE:
                raise NotFinite(f"{where}, and {PATIENCE} steps in a row were skipped")
        if not what:
            return ""
        numbers = ", ".join(str(step + 1) for step in what)
        return f"skipped step {numbers}: {NOT_FINITE[nonfinite[-1].what]}; see nonfinite.jsonl"

    def _log(self, step: int, what: str, rate: float) -> None:
        if self._run is None:
            return
        epoch = self._schedule.epoch_of(step)
        start = step % self._schedule.steps_per_epoch * self._schedule.batch_size
        order, _ = self._schedule.epoch(epoch)
        self._run.append_nonfinite(
            {
                "step": step + 1,
                "what": what,
                "learning_rate": rate,
                "epoch": epoch,
                "seed": self._schedule.seed,
                "epoch_seed": self._schedule.epoch_seed(epoch),
                "indices": order[start : start + self._schedule.batch_size].tolist(),
            }
        )
