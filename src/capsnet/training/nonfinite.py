"""What is done about steps whose loss or gradients are no numbers: written down, then left out or the end."""

from __future__ import annotations

from collections.abc import Sequence

from capsnet._support.errors import NotFinite
from capsnet.training.batches import Plan
from capsnet.training.config import TrainConfig, learning_rate
from capsnet.training.run import Run
from capsnet.training.step import BrokenStep

#: So many steps in a row that had to be left out are no accident any more.
PATIENCE = 20

NOT_FINITE = {"loss": "the loss is not finite", "gradients": "the gradients are not finite"}


class BrokenSteps:
    """Judges the broken steps of a training by its policy.

    Args:
        config: with the policy, `on_nonfinite`.
        plan: whose batches they are.
        run: where they are written down; None in a process that writes nothing.
    """

    def __init__(self, config: TrainConfig, plan: Plan, run: Run | None) -> None:
        self._config, self._plan, self._run = config, plan, run
        self._in_a_row = 0

    def take_up(self, run: Run, done: int) -> None:
        """Count on in a training that is resumed after `done` steps, as if it had not been interrupted.

        Every process must do this, or they would not end together.
        """
        left_out = {line["step"] for line in run.nonfinite()}
        self._in_a_row = 0
        while done - self._in_a_row in left_out:
            self._in_a_row += 1

    def judge(self, first: int, done: int, broken: Sequence[BrokenStep]) -> str:
        """Look at the steps from number `first` (from 0) up to `done` of them all.

        Returns:
            What was left out, in words; nothing if every step was sound.

        Raises:
            NotFinite: the policy is to stop, or too many were left out in a row.
        """
        what = {first + step.number: step.what for step in broken}
        for step in range(first, done):
            if step not in what:
                self._in_a_row = 0
                continue
            self._in_a_row += 1
            rate = learning_rate(self._config, step, self._plan.steps)
            self._write_down(step, what[step], rate)
            where = f"{NOT_FINITE[what[step]]} in step {step + 1}, at learning rate {rate:.2g}"
            if self._config.on_nonfinite == "stop":
                raise NotFinite(where)
            if self._in_a_row >= PATIENCE:
                raise NotFinite(f"{where}, and {PATIENCE} steps in a row had to be left out")
        if not what:
            return ""
        numbers = ", ".join(str(step + 1) for step in what)
        return f"left out step {numbers}: {NOT_FINITE[broken[-1].what]}; see nonfinite.jsonl"

    def _write_down(self, step: int, what: str, rate: float) -> None:
        if self._run is None:
            return
        epoch = self._plan.epoch_of(step)
        start = step % self._plan.steps_per_epoch * self._plan.batch_size
        order, _ = self._plan.epoch(epoch)
        self._run.append_nonfinite(
            {
                "step": step + 1,
                "what": what,
                "learning_rate": rate,
                "epoch": epoch,
                "seed": self._plan.seed,
                "epoch_seed": self._plan.epoch_seed(epoch),
                "indices": order[start : start + self._plan.batch_size].tolist(),
            }
        )
