"""Define the fuzz targets: their check functions and their seed inputs.

A target takes any bytes. It may refuse them with a CapsnetError; any other exception is a bug. Files are read by the
public functions, from a folder in memory.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torture.fuzz.runs import prepare_run, run_seeds, words
from torture.fuzz.target import Check, Target


def idx_seeds() -> list[bytes]:
    """Return IDX files; a first byte of 1 means that the rest is gzipped."""
    pixels = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24))
    labels = struct.pack(">4BI", 0, 0, 8, 1, 5) + bytes(5)
    lying = struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 2) + bytes(9)
    zipped = gzip.compress(pixels, mtime=0)
    return [bytes([kind]) + body for body in (pixels, labels, lying, zipped) for kind in (0, 1)]


def prepare_idx(folder: Path) -> Check:
    """Prepare a check that reads a file with `read_idx` as images and as labels."""
    from capsnet._support.errors import CapsnetError
    from capsnet.data.idx import read_idx

    path = folder / "file"

    def check(data: bytes) -> None:
        body = data[1:]
        path.write_bytes(gzip.compress(body, 1, mtime=0) if data[:1] == b"\1" else body)
        for dimensions in (1, 3):
            with suppress(CapsnetError):
                array = read_idx(path, dimensions)
                assert array.ndim == dimensions
                assert 0 < array.size <= max(len(data), 64)

    return check


def image_seeds() -> list[bytes]:
    """Return a small picture in every supported format, and in unusual variants."""
    from PIL import Image

    grey = Image.linear_gradient("L").resize((5, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("PNG", grey, {}),
        ("PNG", grey.convert("RGBA"), {"exif": exif}),
        ("PNG", grey.convert("P"), {"transparency": 0}),
        ("PNG", grey.convert("I;16"), {}),
        ("JPEG", grey, {"quality": 30}),
        ("GIF", grey.convert("P"), {}),
        ("BMP", grey.convert("RGB"), {}),
        ("BMP", grey.convert("1"), {}),
        ("TIFF", grey, {}),
        ("TIFF", grey.convert("CMYK"), {"compression": "tiff_lzw"}),
        ("TIFF", grey.convert("F"), {}),
        ("WEBP", grey.convert("RGB"), {"lossless": True}),
        ("PPM", grey.convert("RGB"), {}),
        ("PPM", grey.convert("1"), {}),
    ]
    seeds = []
    for kind, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds.append(buffer.getvalue())
    return [
        *seeds,
        b"P2 2 2 255 0 9 99 255 ",
        b"P3 2 2 9 1 2 3 4 5 6 7 8 9 1 2 3 ",
        b"Pf 2 2 -1.0 " + bytes(16),
    ]


def prepare_image(folder: Path) -> Check:
    """Prepare `check` or `read_image`, in grey or colour, by the input's length."""
    from capsnet._support.errors import CapsnetError
    from capsnet.data.images import check as check_header
    from capsnet.data.images import read_image

    path = folder / "file"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        channels = 1 + 2 * (len(data) % 2)
        with suppress(CapsnetError):
            if len(data) % 8 == 0:
                info = check_header(path)
                assert min(info.width, info.height) >= 2
            else:
                image = read_image(path, (channels, 6, 7))
                assert image.shape == (channels, 6, 7)

    return check


def config_seeds() -> list[bytes]:
    """Return a config.json of each architecture, and malformed ones."""
    from capsnet.models import MODELS, CNNConfig
    from capsnet.training.config import TrainConfig

    training = asdict(TrainConfig())
    small = asdict(CNNConfig(stages=CNNConfig().stages[:1], hidden=()))
    about: list[dict[str, Any]] = [
        {"architecture": name, "model": asdict(MODELS.get(name).config_class()), "training": training}
        for name in ("capsnet", "cnn")
    ]
    about += [
        {"architecture": "cnn", "model": small},
        {"architecture": "capsnet", "model": {"decoder": None, "class_names": ["a"]}},
        {"architecture": "cnn", "model": {"classes": 2}, "classes": ["a", "b"], "standardize": True},
        {"architecture": "capsnet", "model": {"image_shape": [1, 10**9, 10**9], "num_classes": 10**9}},
        {"architecture": "capsnet", "model": {}, "training": {"seed": 10**18, "learning_rate": 1e308}},
    ]
    return [json.dumps(values, separators=(",", ":")).encode() for values in about]


def prepare_config(folder: Path) -> Check:
    """Prepare a check that reads config.json, without building the model."""
    from capsnet._support.errors import CapsnetError
    from capsnet._support.validation import MAX_PARAMETERS
    from capsnet.models import MODELS, SavedModel
    from capsnet.training.run import Run

    path = folder / "config.json"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(CapsnetError):
            saved = SavedModel.open(folder)
            config = saved.config(MODELS.get(saved.architecture).config_class)
            assert 0 < config.parameter_count() <= MAX_PARAMETERS
        with suppress(CapsnetError):
            training = Run.reopen(folder).training()
            assert training.seed < 2**44

    return check


def field_names() -> tuple[str, ...]:
    """Return the words of config.json."""
    from capsnet.models import CapsNetConfig, CNNConfig
    from capsnet.models.cnn import Stage
    from capsnet.training.config import TrainConfig

    kinds = (TrainConfig, CapsNetConfig, CNNConfig, Stage)
    names = {name for kind in kinds for name in kind.__dataclass_fields__}
    values = {"architecture", "capsnet", "cnn", "training", "one-cycle", "bf16", "last", "max", "sigmoid"}
    numbers = ("1e400", "NaN", "-1", "1e9", "null", "true", "[[", "{", "99999999999999999999", r"\\ud800")
    return (*(f'"{name}"' for name in sorted(names | values)), *numbers)


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    about_run = "a run's saved state, weights, result and metrics"
    found = (
        Target("idx", "IDX files", idx_seeds, prepare_idx, longest=256),
        Target("image", "image files", image_seeds, prepare_image, longest=1024),
        Target("config", "config.json of models and runs", config_seeds, prepare_config, field_names, 2048),
        Target("run", about_run, run_seeds, prepare_run, words, 10_000),
    )
    return {target.name: target for target in found}
