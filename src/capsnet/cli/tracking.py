"""`capsnet train --log tensorboard`: send metrics to a tracker, through Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet.distributed import accelerator

if TYPE_CHECKING:
    from capsnet.data import Dataset
    from capsnet.inference.evaluation import Evaluation
    from capsnet.models import Classifier
    from capsnet.training.loop import Progress
    from capsnet.training.run import Run

#: The project's name in trackers that group runs.
PROJECT = "capsnet"
#: Trackers that take a name for the run, and the argument that takes it.
RUN_NAME = {"wandb": "name", "mlflow": "run_name", "trackio": "name"}
#: Test images in the picture of reconstructions.
EXAMPLES = 8


def check_trackers(names: Sequence[str]) -> None:
    """Raise if a tracker is unknown or not installed.

    Raises:
        CapsnetError: with the package to install.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise CapsnetError(
                f"--log {shown(name)}: choose one of {', '.join(known)}{did_you_mean(name, known)}"
            )
        if name not in available:
            raise CapsnetError(f"--log {name} needs {name}: pip install {name}")


@contextmanager
def tracked(
    names: Sequence[str],
    progress: Progress | None,
    run: Run,
    model: Classifier,
    dataset: Dataset,
    device: str,
) -> Iterator[Progress | None]:
    """Yield a `Progress` that passes everything on, and sends it to the trackers.

    TensorBoard's files are in the run's folder, under log/. The others write where they are set up to.

    Args:
        names: of trackers that Accelerate knows.
        progress: is called first. None, in a process that does not write: nothing is sent.
        run: its folder names the run, and its configuration is sent.
        model, dataset: for the picture of reconstructions.
        device: as for the training.

    Raises:
        CapsnetError: a tracker cannot start, for example because it is not logged in.
    """
    if not names or progress is None:
        yield progress
        return
    started: list[Any] = []
    for name in names:
        options = {RUN_NAME[name]: run.folder.name} if name in RUN_NAME else {}
        try:
            sender = accelerator(device, log_with=name, project_dir=run.folder / "log")
            sender.init_trackers(PROJECT, _flat(run.saved().values, run.saved().training), {name: options})
        except Exception as error:  # each tracker has errors of its own
            reason = shown(str(error).strip().partition("\n")[0])[:200]
            raise CapsnetError(f"--log {name} cannot start: {reason}; see its documentation") from error
        started += sender.trackers
    both = _Tracked(started, progress, model, dataset, run.folder)
    try:
        yield both
    finally:
        for tracker in started:
            both.attempt(tracker, tracker.finish)


class _Tracked:
    """Implements `Progress`. A tracker that fails is left out from then on; the training goes on."""

    def __init__(
        self, trackers: list[Any], progress: Progress, model: Classifier, dataset: Dataset, folder: Path
    ) -> None:
        self._trackers, self._progress = trackers, progress
        self._model, self._dataset, self._folder = model, dataset, folder
        self._failed: set[str] = set()

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Send losses, learning rate and images/s."""
        self._progress.logged(step, steps, values)
        self._log({f"train/{name}": value for name, value in values.items()}, step)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Send the test error, and a picture of reconstructions."""
        self._progress.evaluated(step, evaluation)
        values = {"test/error": evaluation.error}
        if isfinite(evaluation.balanced_accuracy):
            values["test/balanced_accuracy"] = evaluation.balanced_accuracy
        self._log(values, step)
        if (picture := _reconstructions(self._model, self._dataset)) is not None:
            for tracker in self._trackers:
                self.attempt(tracker, partial(_send, tracker, picture, step, self._folder))

    def noticed(self, message: str) -> None:
        """Pass it on."""
        self._progress.noticed(message)

    def attempt(self, tracker: Any, act: Callable[[], object]) -> None:
        """Do something with a tracker, unless it has failed before."""
        if tracker.name in self._failed:
            return
        try:
            act()
        except Exception as error:  # a lost connection must not end the training
            self._failed.add(tracker.name)
            reason = shown(str(error).strip().partition("\n")[0])[:200]
            self._progress.noticed(f"{tracker.name} failed and gets no more data: {reason}")

    def _log(self, values: dict[str, float], step: int) -> None:
        for tracker in self._trackers:
            self.attempt(tracker, partial(tracker.log, values, step=step))


def _flat(*sections: Any) -> dict[str, Any]:
    """Return the values that trackers take; others as text."""
    merged = {name: value for section in sections for name, value in section.items()}
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in merged.items()
    }


def _reconstructions(model: Classifier, dataset: Dataset) -> Any:
    """Return test images above their reconstructions, bytes (height, width, 3); None without a decoder."""
    import numpy as np
    import torch

    from capsnet.inference.evaluation import batch_of
    from capsnet.models.protocols import decodes
    from capsnet.report.style import mosaic

    if not decodes(model):
        return None
    device = next(iter(model.parameters())).device
    rows = range(min(EXAMPLES, len(dataset.test)))
    images = batch_of(dataset.test.to(device), rows, device).images
    was_training = model.training  # type: ignore[attr-defined]
    with torch.no_grad():
        model.eval()  # type: ignore[attr-defined]
        drawn = model.decode(model.class_poses(images))
        model.train(was_training)  # type: ignore[attr-defined]
    canvas, _, _ = mosaic(torch.stack([images, drawn]))
    colour = canvas if canvas.ndim == 3 else np.repeat(canvas[..., None], 3, axis=2)
    return (255 * colour).round().astype(np.uint8)


def _send(tracker: Any, picture: Any, step: int, folder: Path) -> None:
    if tracker.name == "tensorboard":
        tracker.log_images({"reconstructions": picture[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "mlflow":  # takes files
        from PIL import Image

        path = folder / f"reconstructions-{step}.png"
        try:
            Image.fromarray(picture).save(path)
            tracker.log_artifact(str(path))
        finally:
            path.unlink(missing_ok=True)
    elif tracker.name == "trackio":  # Accelerate sends it numbers only
        import trackio

        tracker.log({"reconstructions": trackio.Image(picture)}, step=step)
    elif hasattr(tracker, "log_images"):
        tracker.log_images({"reconstructions": [picture]}, step=step)
