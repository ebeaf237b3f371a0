"""Files in, answers out: streaming, in order, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capsnet._support.errors import CapsnetError, shown
from capsnet.data.augmentation import Standardize
from capsnet.data.images import read_image
from capsnet.data.listing import files_in
from capsnet.distributed import Team, alone
from capsnet.models.base import Classifier, find_pretrained, read_model_config

#: Images at a time.
BATCH_SIZE = 128
#: Endings of files that are looked for in folders.
IMAGE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Answer:
    """What the model says about one file."""

    name: str
    """The path; line breaks and the like are escaped."""
    label: str | None
    score: float | None
    """Strength of that class, 0…1: for a capsule network the length of its capsule."""
    error: str | None = None
    """Why there is neither."""
    scores: dict[str, float] | None = None
    """Strength of every class, if it was asked for: several things may be there."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        optional = ("error", "scores")
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}


@dataclass(frozen=True)
class PredictOptions:
    """How files become what a model was trained on, and what is told of each."""

    standardize: bool = False
    """See `standardizes`."""
    invert: bool = False
    """Light and dark are turned round first."""
    all_scores: bool = False
    """Answers have the strength of every class."""


#: As they are, and one class each.
PLAIN = PredictOptions()


def class_names(model_name: str | Path, model: Classifier) -> tuple[str, ...]:
    """Names of a saved model's classes on one line each; numbers if it was saved without names.

    Raises:
        CapsnetError: config.json has names, and not as many as the model has classes.
    """
    folder = find_pretrained(model_name)
    names = read_model_config(folder).get("classes")
    if names is None:
        return tuple(str(number) for number in range(model.config.classes))
    if not isinstance(names, list) or len(names) != model.config.classes:
        raise CapsnetError(
            f"{folder / 'config.json'}: classes must name all {model.config.classes} classes of the model"
        )
    return tuple(shown(str(name)) for name in names)


def standardizes(model_name: str | Path) -> bool:
    """Whether a saved model was trained on standardised images, so that it has to be given such ones."""
    return read_model_config(find_pretrained(model_name)).get("standardize") is True


def looks_inverted(model_name: str | Path, model: Classifier, file: Path) -> bool:
    """Whether a model of MNIST's light digits on black is given an image that is mostly light.

    False where that cannot be told: the file is no image, or the model does not say what it was trained on.
    """
    training = read_model_config(find_pretrained(model_name)).get("training")
    data = training.get("data") if isinstance(training, dict) else None
    if not isinstance(data, str) or "nist" not in data or data.startswith(("folder:", "fashion")):
        return False
    try:
        return bool(read_image(file, model.config.image_shape).float().mean() > 127)
    except CapsnetError:  # told in its place, with its answer
        return False


def predict_files(
    model: Classifier,
    files: Iterable[Path],
    names: Sequence[str],
    batch_size: int = BATCH_SIZE,
    *,
    options: PredictOptions = PLAIN,
    keep_going: bool = False,
    team: Team | None = None,
) -> Iterator[Answer]:
    """Classify image files, one answer each, in order, in memory that does not grow with their number.

    Images are brought to the model's size as training images from folders are.

    Args:
        model: on the device that is to be used.
        files: see `image_files`.
        names: of the classes.
        batch_size: images at a time; in each process.
        options: what is done with the pixels, and how much is told.
        keep_going: a file that cannot be read gets an answer that says so.
        team: processes that share the work; all of them must make this call, and the first gets the answers.
            None: this process does it.

    Raises:
        CapsnetError: a file is no image, truncated, or too large, or has scores that are not finite; the answers
            before it have been given. Not if `keep_going`.
    """
    waiting = iter(files)
    batches = iter(lambda: list(islice(waiting, batch_size)), [])
    share = alone if team is None else team.map
    for answers in share(lambda batch: _classify(model, batch, names, options), batches):
        for answer in answers:
            if answer.error is not None and not keep_going:
                raise CapsnetError(answer.error)
            yield answer


def image_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files that are meant: folders are walked in sorted order, and their images taken.

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


def _classify(
    model: Classifier, batch: Sequence[Path], names: Sequence[str], options: PredictOptions
) -> list[Answer]:
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
        if images is not None and options.standardize:
            images = Standardize()(images)
        rows = iter(() if images is None else model.scores(images).cpu())
    answers = []
    for path, failure in zip(batch, errors, strict=True):
        if failure is not None:
            answers.append(Answer(shown(path), None, None, failure))
            continue
        row = next(rows)
        if not row.isfinite().all():
            why = (
                f"{shown(path)}: the model's scores are not finite; its weights are too large to compute with"
            )
            answers.append(Answer(shown(path), None, None, why))
            continue
        best = int(row.argmax())
        scores = dict(zip(names, row.tolist(), strict=True)) if options.all_scores else None
        answers.append(Answer(shown(path), names[best], float(row[best]), scores=scores))
    return answers
