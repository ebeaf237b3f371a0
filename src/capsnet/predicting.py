"""Files in, answers out: streaming, in order, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capsnet.data.files import shown
from capsnet.data.images import read_image
from capsnet.data.walking import files_in
from capsnet.errors import CapsnetError
from capsnet.models.base import Classifier, find_pretrained, read_model_config

#: Endings of files that are looked for in folders.
IMAGE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Answer:
    """What the model says about one file."""

    name: str
    """The path; line breaks and the like are escaped."""
    label: str
    score: float
    """Strength of that class, 0…1: for a capsule network the length of its capsule."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def class_names(model_name: str | Path, model: Classifier) -> tuple[str, ...]:
    """Names of a saved model's classes; numbers if it was saved without names.

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
    return tuple(str(name) for name in names)


def predict_files(
    model: Classifier, paths: Iterable[Path], names: Sequence[str], batch_size: int = 128
) -> Iterator[Answer]:
    """Classify image files, one answer each, in order. Folders are walked in sorted order.

    Images are brought to the model's size as training images from folders are.

    Raises:
        CapsnetError: a file is no image, truncated, or too large; the answers before it have been given.
    """
    device = next(model.parameters()).device
    files = _files(paths)
    while batch := list(islice(files, batch_size)):
        pixels: list[torch.Tensor] = []
        error: CapsnetError | None = None
        for path in batch:
            try:
                pixels.append(read_image(path, model.config.image_shape))
            except CapsnetError as found:
                error = found
                break
        if pixels:
            with torch.no_grad():
                scores = model.scores(torch.stack(pixels).to(device) / 255)
            for path, row in zip(batch, scores.cpu(), strict=False):
                best = int(row.argmax())
                yield Answer(shown(path), names[best], float(row[best]))
        if error is not None:
            raise error


def _files(paths: Iterable[Path]) -> Iterator[Path]:
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
