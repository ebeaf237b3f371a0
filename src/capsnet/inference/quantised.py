"""Export a trained model to ONNX with 8-bit convolutions, and measure what that changes."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from capsnet._support.files import refuse_place, write_bytes
from capsnet.data.dataset import Batch, Dataset, Source
from capsnet.inference.evaluation import Evaluation
from capsnet.inference.export import Scores, check_installed, scores_to_onnx
from capsnet.models.base import Classifier

#: Training images that the ranges of the activations are taken from.
CALIBRATION = 256
#: Test images that both models classify, and single images that both are timed on.
TESTED, TIMED = 1000, 50


@dataclass(frozen=True)
class Side:
    """One of the two models: errors among `n` test images, milliseconds for one image, size in bytes."""

    errors: int
    milliseconds: float
    size: int


@dataclass(frozen=True)
class Comparison:
    """The model in float32 and with 8 bits, on the same test images and in the same run."""

    n: int
    float32: Side
    int8: Side

    def __str__(self) -> str:
        def change(name: str, before: str, after: str) -> str:
            return f"{name} {before} → {after}"

        old, new = self.float32, self.int8
        return "; ".join(
            (
                change("test error", f"{old.errors / self.n:.2%}", f"{new.errors / self.n:.2%}")
                + f" ({self.n:,} images)",
                change("one image", f"{old.milliseconds:.2f} ms", f"{new.milliseconds:.2f} ms"),
                change("size", f"{old.size / 1e6:.1f} MB", f"{new.size / 1e6:.1f} MB"),
            )
        )


def export_int8(model: Classifier, path: Path, dataset: Dataset) -> Comparison:
    """Write a model as ONNX with 8-bit convolutions and fully connected layers. Routing stays in float32.

    The ranges of the activations are those of training images (static quantisation).

    Args:
        model: is moved to the CPU and put into evaluation mode.
        path: the file to write; its folder must exist.
        dataset: training images for the ranges, test images for the comparison.

    Raises:
        CapsnetError: ONNX is not installed, or the file cannot be written.
    """
    check_installed()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    refuse_place(path)
    train, test = _spread(dataset.train, CALIBRATION), _spread(dataset.test, TESTED)
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(scores_to_onnx(Scores(model).cpu().eval()), exact)
        with _without_warnings():  # it advises to do what the export has done
            quantize_static(
                exact,
                small,
                _Reader(train.images),
                op_types_to_quantize=["Conv", "Gemm"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        compared = _compare(exact, small, test)
        write_bytes(path, small.read_bytes())
    return compared


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


class _Reader:
    """Batches for ONNX Runtime's calibration."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter(images.split(32))  # type: ignore[no-untyped-call]

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.numpy()}


def _spread(source: Source, count: int) -> Batch:
    """Return up to `count` examples, spread over the set."""
    at = torch.linspace(0, len(source) - 1, min(count, len(source))).long()
    uniforms = torch.rand(len(at), source.draws, generator=torch.Generator().manual_seed(0))
    return source.to("cpu").batch(at, uniforms)


def _compare(exact: Path, small: Path, test: Batch) -> Comparison:
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (exact, small)
    ]
    times: list[list[float]] = [[], []]
    one = test.images[:1].numpy()
    for _ in range(TIMED):  # in turn, so that other load affects both
        for spent, session in zip(times, sessions, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": one})
            spent.append(1e3 * (time.perf_counter() - start))
    errors = []
    for session in sessions:
        parts = test.images.split(100)  # type: ignore[no-untyped-call]
        scores = [torch.from_numpy(session.run(None, {"images": part.numpy()})[0]) for part in parts]
        errors.append(Evaluation(torch.cat(scores), test.labels).errors)
    sides = [
        Side(wrong, median(spent), file.stat().st_size)
        for wrong, spent, file in zip(errors, times, (exact, small), strict=True)
    ]
    return Comparison(len(test.labels), *sides)
