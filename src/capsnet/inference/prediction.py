"""Classify image files, streaming: in order and in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.images import read_image
from capsnet.data.listing import files_in
from capsnet.distributed import WorkerGroup
from capsnet.inference.saved_confidence import Confidence
from capsnet.models.base import Classifier

#: Images per batch.
BATCH_SIZE = 128
#: Endings of image files in folders.
IMAGE_ENDINGS = frozenset(
    [
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)


@dataclass(frozen=True)
class Prediction:
    """The model's prediction for one file."""

    name: str
    """The path; line breaks and other control characters are escaped."""
    label: str | None
    score: float | None
    """Score of that class, 0…1: the length of its capsule in a capsule network."""
    error: str | None = None
    """Why the file could not be classified."""
    scores: dict[str, float] | None = None
    """Score of every class, if `all_scores` is set: an image may show several classes."""
    probability: float | None = None
    """Calibrated probability of that class, if the model has a temperature."""
    typicality: float | None = None
    """Share, in per cent, of correct training images of that class that were drawn no better; near 0: unlike them."""
    refused: str | None = None
    """Why no class is given."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON output."""
        optional = ("error", "scores", "probability", "typicality", "refused")
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}


@dataclass(frozen=True)
class PredictOptions:
    """Preprocessing of the files, and what to report for each."""

    invert: bool = False
    """Invert light and dark first."""
    all_scores: bool = False
    """Report the score of every class."""
    confidence: Confidence | None = None
    """Adds probability and typicality to each prediction."""
    refuse_below: float | None = None
    """Give no class if its probability is below this. It needs a confidence that was measured at the end of training.

    Raises:
        CapsnetError: there is no such confidence.
    """

    def __post_init__(self) -> None:
        if self.refuse_below is not None and (self.confidence is None or self.confidence.temperature is None):
            raise CapsnetError(
                "refuse_below needs a probability, which this model does not give; train it with hold_out"
            )


#: Images as they are, one class each.
PLAIN = PredictOptions()


#: Names of data sets of light digits on black begin with one of these.
LIGHT_DIGITS = ("mnist", "multimnist", "affnist", "hf:ylecun/mnist")


def looks_inverted(trained_on: str | None, model: Classifier, file: Path) -> bool:
    """Return whether an image is mostly light, unlike the model's training images.

    Only for models trained on MNIST, whose digits are light on black. False if the file cannot be read, or if
    `trained_on`, the training data's name, is unknown.
    """
    if trained_on is None or not trained_on.startswith(LIGHT_DIGITS):
        return False
    try:
        return bool(read_image(file, model.config.image_shape).float().mean() > 127)
    except CapsnetError:  # reported later, with its prediction
        return False


def predict_files(
    model: Classifier,
    files: Iterable[Path],
    batch_size: int = BATCH_SIZE,
    *,
    options: PredictOptions = PLAIN,
    keep_going: bool = False,
    workers: WorkerGroup | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction per image file, in order, in constant memory.

    Images are resized to the model's size in the same way as training images from folders.

    Args:
        model: on the device to use.
        files: see `image_files`.
        batch_size: images per batch, in each process.
        options: preprocessing, and what to report.
        keep_going: report a file that cannot be read instead of raising.
        workers: processes that share the work; all of them must make this call, and rank 0 gets the predictions.
            None: this process does all of it.

    Raises:
        CapsnetError: a file is not an image, is truncated or too large, or its scores are not finite. All predictions
            before it were yielded. Never raised with `keep_going`.
    """
    waiting = iter(files)
    batches = iter(lambda: list(islice(waiting, batch_size)), [])
    share = map if workers is None else workers.map
    for predictions in share(lambda batch: _classify(model, batch, options), batches):
        for prediction in predictions:
            if prediction.error is not None and not keep_going:
                raise CapsnetError(prediction.error)
            yield prediction


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield image files; list folders recursively, in sorted order.

    Raises:
        CapsnetError: a folder has no images, or cannot be read.
    """
    for path in paths:
        if path.is_dir():
            empty = True
            for file in files_in(path, IMAGE_ENDINGS):
                empty = False
                yield file
            if empty:
                raise CapsnetError(
                    f"{shown(path)}: no images in this folder ({', '.join(sorted(IMAGE_ENDINGS))})"
                )
        else:
            yield path


def _classify(model: Classifier, batch: Sequence[Path], options: PredictOptions) -> list[Prediction]:
    names = model.class_names
    device = next(model.parameters()).device
    pixels: list[torch.Tensor] = []
    errors: list[str | None] = []
    for path in batch:
        try:
            pixels.append(read_image(path, model.config.image_shape))
            errors.append(None)
        except CapsnetError as error:
            errors.append(str(error))
    with torch.no_grad():
        images = torch.stack(pixels).to(device) / 255 if pixels else None
        if images is not None and options.invert:
            images = 1 - images
        answers = None if images is None else model.scores(images).cpu()
        sure = iter(_sure(model, images, answers, options.confidence))
        rows = iter(() if answers is None else answers)
    predictions = []
    for path, failure in zip(batch, errors, strict=True):
        if failure is not None:
            predictions.append(Prediction(shown(path), None, None, failure))
            continue
        row, (probability, typical) = next(rows), next(sure)
        if not row.isfinite().all():
            why = f"{shown(path)}: the model's scores are not finite; its weights are too large"
            predictions.append(Prediction(shown(path), None, None, why))
            continue
        best = int(row.argmax())
        scores = dict(zip(names, row.tolist(), strict=True)) if options.all_scores else None
        refused = None
        if (
            options.refuse_below is not None
            and probability is not None
            and probability < options.refuse_below
        ):
            refused = f"probability {probability:.3f} is below {options.refuse_below:g}"
        label = None if refused else names[best]
        predictions.append(
            Prediction(
                shown(path),
                label,
                float(row[best]),
                scores=scores,
                probability=probability,
                typicality=typical,
                refused=refused,
            )
        )
    return predictions


def _sure(
    model: Classifier, images: torch.Tensor | None, scores: torch.Tensor | None, confidence: Confidence | None
) -> list[tuple[float | None, float | None]]:
    """Return probability and typicality of each image's predicted class, None where unknown."""
    if images is None or scores is None:
        return []
    if confidence is None:
        return [(None, None)] * len(images)
    scores = scores.nan_to_num()  # a row that is not finite gives no class
    best = scores.argmax(dim=1)
    probabilities = confidence.probabilities(scores)
    typical = confidence.typicality(model, images, best)
    return [
        (
            None if probabilities is None else float(probabilities[row].max()),
            None if typical is None else float(typical[row]),
        )
        for row in range(len(images))
    ]
