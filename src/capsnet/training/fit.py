"""Train from Python: `capsnet.train(model, dataset, epochs=3)`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Dataset
from capsnet.inference.evaluation import Evaluation
from capsnet.models.base import Classifier
from capsnet.training.config import TrainConfig
from capsnet.training.holding_out import hold_out
from capsnet.training.loop import Progress
from capsnet.training.loop import train as train_run
from capsnet.training.progress import Bar
from capsnet.training.run import Run


def train(
    model: Classifier,
    dataset: Dataset,
    *,
    out: Path | str | None = None,
    device: str = "auto",
    progress: Progress | bool | None = None,
    **options: Any,
) -> Evaluation:
    """Train a model on a data set and measure it on the test set.

    The model is trained in place and left in evaluation mode. The model of the last step is measured; the test set
    never chooses a model.

    Args:
        model: untrained, or to be trained further.
        dataset: `capsnet.load_dataset(name)` or `Dataset.from_arrays(images, labels)`.
        out: a new folder for the run (weights, metrics, result), as `capsnet train --out`. None: no files are kept.
        device: "auto", "cpu", "cuda" or "mps".
        progress: True shows a progress bar, also in notebooks; or an object that is called with metrics.
        options: fields of `TrainConfig`: epochs, steps, batch_size, learning_rate, schedule, shift, seed, …; by
            default what the architecture proposes.

    Returns:
        The error on the test set, with its interval.

    Raises:
        CapsnetError: an option is wrong, the model does not fit the data set, or the folder is in use.
        NotFinite: a loss or a gradient is NaN or infinite.

    >>> model = capsnet.CapsNet()  # doctest: +SKIP
    >>> capsnet.train(model, capsnet.load_dataset("mnist5k"), epochs=3)  # doctest: +SKIP
    """
    takes = (tuple(model.config.image_shape), model.config.num_classes)
    has = (tuple(dataset.image_shape), len(dataset.class_names))
    if takes != has:
        raise CapsnetError(
            f"the model takes images of {takes[0]} in {takes[1]} classes, and {dataset.name} has {has[0]} in {has[1]}; "
            "build it with CapsNetConfig.for_dataset(dataset)"
        )
    proposed = type(model.config).training_for(dataset)
    config = TrainConfig(**{"data": dataset.name, "evaluate_every": 0, **proposed, **options})
    with ExitStack() as stack:
        watch = stack.enter_context(Bar()) if progress is True else progress or None
        folder = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory())) / "run"
        run = stack.enter_context(Run.create(folder, model, config))
        dataset = hold_out(dataset, config)
        evaluation = train_run(
            model, dataset, config, run, device=device, progress=watch, confidence=out is not None
        )
        model.eval()
    return evaluation
