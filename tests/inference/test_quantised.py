"""The 8-bit export."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnxruntime.quantization
import pytest
import torch

from capsnet.data.multi_label import MultiLabel
from capsnet.inference.quantised import _compare, export_int8
from capsnet.models import CNNConfig
from capsnet.models.cnn import Stage
from stripes import DATA


def test_a_failed_export_leaves_logging_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", failing)
    torch.manual_seed(0)
    model = CNNConfig((1, 18, 18), 3, stages=(Stage(4, 3),), hidden=(8,)).build()
    for level in (logging.NOTSET, logging.ERROR):
        logging.disable(level)
        try:
            with pytest.raises(RuntimeError, match="no"):
                export_int8(model, tmp_path / "small.onnx", DATA)
            assert logging.root.manager.disable == level
        finally:
            logging.disable(logging.NOTSET)


def test_8_bits_count_errors_as_evaluate_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    present = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    test = MultiLabel(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), present).batch(torch.arange(4))

    class Session:
        def __init__(self, *_: object, **__: object) -> None: ...

        def run(self, _: object, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [present[: len(given["images"])].float().numpy()]

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    (tmp_path / "x").touch()
    compared = _compare(tmp_path / "x", tmp_path / "x", test)
    assert (compared.n, compared.float32.errors, compared.int8.errors) == (4, 0, 0)
