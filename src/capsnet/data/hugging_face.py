"""Load a data set of Hugging Face `datasets`: from the hub, a folder of files, or `save_to_disk`.

    hf:ylecun/mnist
    hf:cifar100?label=fine_label
    hf:my-folder?image=scan&label=finding&train=day1&test=day2

After "?" come options: `image` and `label` name the columns, `train`, `test` and `val` the splits, and `config` names
the data set's configuration.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet.data.dataset import Dataset
from capsnet.data.folder import MAX_BYTES
from capsnet.data.images import Encoded, check, read_image
from capsnet.data.npz_images import from_parts

OPTIONS = ("image", "label", "config", "train", "test", "val")
#: Usual names of the splits, the first that is there.
SPLITS = {"train": ("train",), "test": ("test",), "val": ("validation", "valid", "val", "dev")}
#: Usual names of the column of labels, the first that is there.
LABELS = ("label", "labels", "fine_label", "class", "category", "target")


def load_hugging_face(address: str, image_size: int | None = None, download: bool = True) -> Dataset:
    """Load images and labels of a data set into memory; its splits are kept.

    Without a test split its validation split is tested on; without both a fifth is held out. Images are decoded by
    `capsnet.data.images`, with the same limits as those of folders.

    Args:
        address: what follows "hf:".
        image_size: height and width to resize to. None: the size of the first image.
        download: whether the hub may be asked.

    Raises:
        CapsnetError: `datasets` is not installed, the data set does not exist or cannot be fetched, a column or split
            is missing, or an image is damaged.
    """
    place, _, query = address.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise CapsnetError(
                f"hf:{shown(place)}: there is no option {shown(name)!r}; after ? come {', '.join(OPTIONS)}"
                f"{did_you_mean(name, OPTIONS)}"
            )
    found = _open(place, options.get("config"), download)
    splits = _splits(found, options, place)
    train = found[splits["train"]]
    image, label = _image_column(train, options, place), _label_column(train, options, place)
    shape = _shape(found, splits, image, place, image_size)
    parts = {
        part: (
            _pixels(found[name], image, shape, f"hf:{place}, split {name}"),
            _labels(found[name], label, place),
        )
        for part, name in splits.items()
    }
    about = f" (split {splits['test']} for testing)" if splits.get("test", "test") != "test" else ""
    return from_parts(f"hf:{shown(address)}", parts, _class_names(train, label), about)


def _open(place: str, config: str | None, download: bool) -> Any:
    """Return the data set's splits by name."""
    try:
        import datasets
    except ImportError as error:
        raise CapsnetError(
            f"hf:{shown(place)} needs {error.name}: pip install 'capsnet[datasets]'"
        ) from error
    folder = Path(place).expanduser()
    if not folder.exists() and not download:
        raise CapsnetError(f"hf:{shown(place)} is not a folder here")
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its retries is a warning
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
        else:
            found = datasets.load_dataset(str(folder) if folder.exists() else place, config)
    except Exception as error:  # of many kinds: no connection, no such data set, a damaged file
        reason = shown(str(error).strip().partition("\n")[0])[:200]
        raise CapsnetError(
            f"hf:{shown(place)} cannot be loaded ({type(error).__name__}: {reason}); check the name, the files and the "
            "network"
        ) from error
    return found if isinstance(found, dict) else {"train": found}


def _splits(found: Any, options: dict[str, str], place: str) -> dict[str, str]:
    """Return which split is trained on, tested on and calibrated with."""
    splits = {}
    for part, usual in SPLITS.items():
        names = (options[part],) if part in options else usual
        if (name := next((name for name in names if name in found), None)) is not None:
            splits[part] = name
        elif part in options or part == "train":
            raise CapsnetError(
                f"hf:{shown(place)} has no split {shown(names[0])!r}; it has {', '.join(map(shown, found))}; "
                f"choose one with ?{part}=NAME"
            )
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    return splits


def _image_column(split: Any, options: dict[str, str], place: str) -> str:
    import datasets

    columns = [name for name, feature in split.features.items() if isinstance(feature, datasets.Image)]
    wanted = options.get("image", columns[0] if len(columns) == 1 else "")
    if wanted in columns:
        return str(wanted)
    problem = f"column {shown(wanted)!r} has no images" if wanted else "which column has the images?"
    raise CapsnetError(
        f"hf:{shown(place)}: {problem} The columns are {', '.join(map(shown, split.features))}, and images are in "
        f"{', '.join(map(shown, columns)) or 'none of them'}; name one with ?image=COLUMN"
    )


def _label_column(split: Any, options: dict[str, str], place: str) -> str:
    import datasets

    classes = [name for name, feature in split.features.items() if isinstance(feature, datasets.ClassLabel)]
    wanted = options.get("label")
    if wanted is None:
        wanted = next(
            (name for name in LABELS if name in split.features), classes[0] if len(classes) == 1 else None
        )
    if wanted in split.features:
        return str(wanted)
    raise CapsnetError(
        f"hf:{shown(place)}: which column has the labels? The columns are {', '.join(map(shown, split.features))}; "
        "name one with ?label=COLUMN"
    )


def _encoded(split: Any, image: str, place: str) -> Any:
    """Yield the images' files, not decoded."""
    import datasets

    files = split.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    for number, row in enumerate(files):
        value = row[image]
        if value is None:
            raise CapsnetError(f"{shown(place)}: row {number} has no image; remove it")
        name = f"{place}, row {number}"
        yield Encoded(value["bytes"], name) if value["bytes"] is not None else Path(value["path"])


def _shape(
    found: Any, splits: dict[str, str], image: str, place: str, image_size: int | None
) -> tuple[int, int, int]:
    """Return (channels, height, width): in colour if any image is, of the first image's size."""
    first, colour, count = None, False, 0
    for name in splits.values():
        for file in _encoded(found[name], image, f"hf:{place}, split {name}"):
            about = check(file)
            first, colour, count = first or about, colour or about.colour, count + 1
    if first is None:
        raise CapsnetError(f"hf:{shown(place)} has no images")
    height, width = (first.height, first.width) if image_size is None else (image_size, image_size)
    channels = 3 if colour else 1
    if count * channels * height * width > MAX_BYTES:
        raise CapsnetError(
            f"hf:{shown(place)}: {count:,} images of {width}×{height} pixels need more than {MAX_BYTES // 2**30} GiB; "
            "give a smaller --image-size"
        )
    return channels, height, width


def _pixels(split: Any, image: str, shape: tuple[int, int, int], place: str) -> torch.Tensor:
    return torch.stack([read_image(file, shape) for file in _encoded(split, image, place)])


def _labels(split: Any, label: str, place: str) -> NDArray[Any]:
    """Return names or numbers (n,), or 0 and 1 for each class (n, classes)."""
    values = split.select_columns([label])[:][label]
    if any(value is None for value in values):
        raise CapsnetError(f"hf:{shown(place)}: row {list(values).index(None)} has no label; remove it")
    names = _class_names_of(split.features[label])
    if _is_list(split.features[label]):
        if names is None:
            raise CapsnetError(f"hf:{shown(place)}: the lists in column {shown(label)!r} have no class names")
        flags = np.zeros((len(values), len(names)), np.int64)
        for row, numbers in zip(flags, values, strict=True):
            row[list(numbers)] = 1
        return flags
    if names is not None:
        if any(number < 0 for number in values):  # the hub's mark for "unknown"
            raise CapsnetError(f"hf:{shown(place)}: images without a label (-1); choose another split")
        return np.asarray([names[number] for number in values])
    return np.asarray(values)


def _class_names(split: Any, label: str) -> tuple[str, ...] | None:
    return _class_names_of(split.features[label])


def _is_list(feature: Any) -> bool:
    return hasattr(feature, "feature")


def _class_names_of(feature: Any) -> tuple[str, ...] | None:
    names = getattr(feature.feature if _is_list(feature) else feature, "names", None)
    return None if names is None else tuple(str(name) for name in names)
