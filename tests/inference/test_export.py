import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capsnet import CapsNet, CapsNetConfig
from capsnet.inference.export import export_onnx
from capsnet.models import Classifier
from strategies import examples, images_for, models


@pytest.mark.quick
@pytest.mark.parametrize("changes", [{}, {"routing_leaky": True, "routing_bias": True, "decoder": None}])
def test_onnx_runtime_gives_the_same_scores_at_any_batch_size(tmp_path: Path, changes: dict) -> None:
    torch.manual_seed(0)
    model = CapsNet(
        CapsNetConfig(image_shape=(1, 20, 20), num_classes=4, stem_channels=8, primary_types=2, **changes)
    )
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = torch.rand(5, 1, 20, 20)
    (scores,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(scores, model.scores(images).detach().numpy(), atol=1e-5)


def test_torch_export_gives_the_same_capsules() -> None:
    model = CapsNet(
        CapsNetConfig(image_shape=(1, 20, 20), num_classes=4, stem_channels=8, primary_types=2)
    ).eval()
    images = torch.rand(3, 1, 20, 20)
    program = torch.export.export(model, (images,))
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-5, atol=1e-6)


@examples(4)
@given(models(), st.integers(1, 5))
def test_exported_models_of_any_size_give_the_same_scores(model: Classifier, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        session = onnxruntime.InferenceSession(path)
    images = images_for(model, count, seed=1)
    (scores,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(scores, model.scores(images).detach().numpy(), atol=1e-4)
