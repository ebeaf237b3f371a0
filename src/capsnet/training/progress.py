"""A progress bar for Python: a widget in notebooks, a line in terminals."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from capsnet._support.errors import shown
from capsnet.inference.evaluation import Evaluation


class Bar:
    """A `Progress` that shows loss, images/s and remaining time. Use in a with statement.

    Args:
        judged: the images that evaluations measure: "test" or "held-out". None: evaluations are not shown.
    """

    def __init__(self, judged: str | None = "test") -> None:
        self._judged = judged
        self._bar: Any = None

    def __enter__(self) -> Self:
        from tqdm.auto import tqdm

        self._bar = tqdm(desc="train", unit="step")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Move the bar."""
        self._bar.total = steps
        self._bar.set_postfix_str(
            f"loss {values['loss']:.4f}, {values['images_per_second']:,.0f} images/s", refresh=False
        )
        self._bar.update(step - self._bar.n)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Write the error above the bar."""
        if self._judged is not None:
            title = evaluation.title.replace("test", self._judged)
            self._bar.write(f"step {step:,}   {title} {evaluation}")

    def noticed(self, message: str) -> None:
        """Write the message above the bar."""
        self._bar.write(f"note: {shown(message)}")
