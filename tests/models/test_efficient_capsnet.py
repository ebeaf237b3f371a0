from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from capsnet import CapsnetError, load_model
from capsnet.data.dataset import Batch, Dataset, Examples
from capsnet.inference.evaluation import evaluate
from capsnet.inference.export import export_onnx
from capsnet.models.capsnet import lengths_of
from capsnet.models.efficient_capsnet import EfficientCapsNet, EfficientCapsNetConfig
from capsnet.training.config import TrainConfig
from capsnet.training.loop import Interrupted, train
from capsnet.training.run import Run
from oracles import arrays, assert_close
from stripes import DATA, StopAt, resume

SELF_ATTENTION = ("self_attention_weights.npz", "self_attention_smallnorb.npz.xz")
SMALL = EfficientCapsNetConfig(
    image_shape=(1, 18, 18), num_classes=3, channels=(4, 8), kernels=(5, 3), strides=(1, 2), primary_dim=4
)
CONFIG = TrainConfig(data="stripes", epochs=5, batch_size=16, save_seconds=0, learning_rate=0.01, average=0.1)


def data_of(shape: tuple[int, int, int], classes: int) -> Dataset:
    images = torch.zeros(2, *shape, dtype=torch.uint8)
    examples = Examples(images, torch.arange(2))
    return Dataset("made up", examples, examples, tuple(map(str, range(classes))), shape, "")


@pytest.mark.parametrize(
    ("shape", "classes", "grid", "parameters"),
    [((1, 28, 28), 10, (9, 9), 161_824), ((1, 36, 36), 10, (6, 6), None), ((2, 48, 48), 5, (8, 8), None)],
)
def test_the_size_of_the_images_chooses_the_authors_network(
    shape: tuple[int, int, int], classes: int, grid: tuple[int, int], parameters: int | None
) -> None:
    config = EfficientCapsNetConfig.for_dataset(data_of(shape, classes))
    assert (config.grid, config.in_caps) == (grid, 16)
    assert parameters in (None, config.parameter_count())


@pytest.mark.parametrize("changes", [{}, {"decoder": (8,)}, {"normalization": "instance", "leak": 0.3}])
def test_every_parameter_learns_and_onnx_gives_the_same_scores(changes: dict, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = replace(SMALL, **changes).build()
    images = torch.rand(6, 1, 18, 18)
    model.loss(Batch(images, torch.arange(6)[:, None] % 3, images[:, None]))["loss"].backward()
    for name, parameter in model.named_parameters():
        if ".bias" not in name or "convolutions" not in name:  # instance norm removes a shift of its channel
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert export_onnx(model.eval(), tmp_path / "model.onnx") < 1e-5


def test_the_run_keeps_the_average_of_the_weights_and_resumes_with_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(CONFIG.seed)
    model = EfficientCapsNet(SMALL)
    with Run.create(tmp_path / "whole", model, CONFIG) as run:
        evaluation = train(model, DATA, CONFIG, run, device="cpu")
    assert evaluation.error < 0.3
    saved = load_model(tmp_path / "whole")
    assert torch.equal(evaluate(saved, DATA.test).scores, evaluation.scores)
    torch.manual_seed(CONFIG.seed)
    model = EfficientCapsNet(SMALL)
    with Run.create(tmp_path / "last", model, replace(CONFIG, average=0.0)) as run:
        train(model, DATA, replace(CONFIG, average=0.0), run, device="cpu")
    assert not torch.equal(saved.class_capsules.weight, model.class_capsules.weight)
    torch.manual_seed(CONFIG.seed)
    model = EfficientCapsNet(SMALL)
    with Run.create(tmp_path / "resumed", model, CONFIG) as run, pytest.raises(Interrupted):
        train(model, DATA, CONFIG, run, device="cpu", progress=StopAt(10))
    resume(tmp_path / "resumed")
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed


def test_sizes_that_do_not_fit_are_refused_in_one_line() -> None:
    for changes, message in (
        ({"kernels": (5, 3, 3)}, "4 channels, 3 kernels and 4 strides"),
        ({"primary_dim": 9}, "128 channels"),
        ({"image_shape": (1, 9, 9)}, "9×9 image is too small"),
    ):
        with pytest.raises(CapsnetError, match=message):
            EfficientCapsNetConfig(**changes)


def test_a_model_from_the_authors_weights_has_their_capsules_and_errors() -> None:
    weights, seen = (arrays(name) for name in SELF_ATTENTION)
    model = EfficientCapsNet.from_authors(weights)
    images = (seen["images"].float() - seen["mean"].float().view(1, 2, 1, 1)) / seen["std"].float().view(
        1, 2, 1, 1
    )
    shrunk = F.interpolate(images, size=(64, 64), mode="bilinear", align_corners=False)
    prepared = shrunk[:, :, 8:56, 8:56].contiguous()
    with torch.no_grad():
        assert_close(model.primary(prepared[: len(seen["primary"])]), seen["primary"])
        capsules = torch.cat([model(part) for part in prepared.split(250)])
    assert_close(capsules, seen["capsules"])
    answers = [lengths_of(x).argmax(1) for x in (capsules, seen["capsules"])]
    assert (answers[0] != seen["labels"]).sum() == (answers[1] != seen["labels"]).sum()


def test_authors_arrays_that_do_not_fit_are_refused_in_one_line() -> None:
    weights = arrays(SELF_ATTENTION[0])
    with pytest.raises(CapsnetError, match=r"no 'digit_caps.b'"):
        EfficientCapsNet.from_authors({name: x for name, x in weights.items() if "caps.b" not in name})
    with pytest.raises(CapsnetError, match=r"'conv2d_5.bias' has shape \(3,\); expected \(64,\)"):
        EfficientCapsNet.from_authors({**weights, "CapsNet.conv2d_5.bias": torch.zeros(3)})
    with pytest.raises(CapsnetError, match="expected"):
        EfficientCapsNet.from_authors(weights, image_size=64)


def test_the_trace_ends_with_the_class_capsules() -> None:
    torch.manual_seed(0)
    model, images = SMALL.build().eval(), torch.rand(2, 1, 18, 18)
    trace = model.class_routing(images)
    torch.testing.assert_close(trace.outputs[-1], model(images))
