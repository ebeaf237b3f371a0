import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capsnet import CapsNet, CapsNetConfig
from capsnet.data import Dataset, load
from capsnet.inference.export import Scores, _difference, export_onnx, export_program
from capsnet.inference.quantised import export_int8
from capsnet.models import Classifier
from strategies import examples, images_for, models


def test_scores_that_are_nan_differ() -> None:
    model = CapsNet(CapsNetConfig(image_shape=(1, 20, 20), num_classes=4, stem_channels=8, primary_types=2))
    difference = _difference(lambda images: torch.full((len(images), 4), float("nan")), Scores(model))
    assert not difference <= 1


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


def test_a_saved_program_gives_the_same_scores_at_any_batch_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CapsNet(CapsNetConfig(image_shape=(1, 20, 20), num_classes=4, stem_channels=8, primary_types=2))
    assert export_program(model, tmp_path / "model.pt2") < 1e-5
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 7):
        images = torch.rand(count, 1, 20, 20)
        torch.testing.assert_close(loaded(images), model.scores(images), rtol=1e-5, atol=1e-5)


def test_8_bits_answer_as_float32_does_and_say_what_changed(tmp_path: Path) -> None:
    digits = load("mnist5k")
    images = digits.test.images[:, :, 4:24, 4:24]
    small = Dataset.from_arrays(images.numpy(), digits.test.labels.numpy())
    torch.manual_seed(0)
    model = CapsNet(CapsNetConfig.for_dataset(small, stem_channels=16, primary_types=4, decoder=None))
    found = export_int8(model, tmp_path / "int8.onnx", small)
    assert found.int8.size < 0.6 * found.float32.size
    assert f"({len(small.test)} images)" in str(found)
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    some = small.test.images[:50] / 255
    (scores,) = session.run(None, {"images": some.numpy()})
    exact = model.scores(some).detach().numpy()
    assert 0 < np.abs(scores - exact).max() < 0.05 * exact.max()


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
