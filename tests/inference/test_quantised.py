"""The 8-bit export."""

from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime.quantization
import pytest
import torch

from capsnet.inference.quantised import export_int8
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
