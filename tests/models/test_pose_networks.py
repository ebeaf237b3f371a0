"""Matrix capsules and variational Bayes capsules: capsules with activations of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from capsnet import CapsnetError, load_model
from capsnet.data.dataset import Batch
from capsnet.functional import spread_loss
from capsnet.inference.evaluation import evaluate
from capsnet.inference.export import export_onnx
from capsnet.layers import ConvCapsules, PooledCapsules
from capsnet.models.matrix_capsules import MatrixCapsulesConfig
from capsnet.models.pose_network import PoseNetworkConfig
from capsnet.models.variational_bayes import VariationalBayesCapsules, VariationalBayesConfig
from capsnet.routing import Windows
from capsnet.training.config import TrainConfig
from capsnet.training.loop import Interrupted, train
from capsnet.training.run import Run
from oracles import arrays, assert_close
from stripes import DATA, StopAt, resume

SIZES: dict[str, Any] = {
    "image_shape": (1, 18, 18),
    "num_classes": 3,
    "stem_channels": 8,
    "primary_types": 4,
    "conv_types": (4,),
    "conv_strides": (2,),
    "pose_side": 2,
    "routing_iterations": 2,
}
SMALL: dict[str, PoseNetworkConfig] = {
    "matrix-capsules": MatrixCapsulesConfig(**SIZES),
    "variational-bayes": VariationalBayesConfig(**SIZES),
    "one layer": VariationalBayesConfig.single(**SIZES | {"conv_types": (), "conv_strides": ()}),
}


def test_published_networks_have_the_published_numbers_of_parameters() -> None:
    norb: dict[str, Any] = {"image_shape": (2, 32, 32), "num_classes": 5}
    counts = [
        config(**norb).parameter_count() for config in (MatrixCapsulesConfig, MatrixCapsulesConfig.small)
    ]
    assert [round(count, -4) for count in counts] == [320_000, 70_000]  # the paper: 310K and 68K
    assert VariationalBayesConfig(**norb).grids == [(32, 32), (14, 14), (14, 14), (6, 6), (4, 4)]


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_and_onnx_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SMALL[name].build().eval()  # in training, batch norm hides β of variational Bayes
    images = torch.rand(6, 1, 18, 18)
    model.loss(Batch(images, torch.arange(6)[:, None] % 3, images[:, None]))["loss"].backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    assert export_onnx(model, tmp_path / "model.onnx") < 1e-5


@pytest.mark.parametrize("name", ["matrix-capsules", "variational-bayes"])
def test_a_run_learns_and_resumes_with_the_same_bits(name: str, tmp_path: Path) -> None:
    config = TrainConfig(data="stripes", epochs=12, batch_size=16, save_seconds=0, learning_rate=0.01)
    folders = tmp_path / "whole", tmp_path / "resumed"
    torch.manual_seed(config.seed)
    model = SMALL[name].build()
    with Run.create(folders[0], model, config) as run:
        evaluation = train(model, DATA, config, run, device="cpu")
    assert evaluation.error < 0.2
    assert torch.equal(evaluate(load_model(folders[0]), DATA.test).scores, evaluation.scores)
    torch.manual_seed(config.seed)
    model = SMALL[name].build()
    with Run.create(folders[1], model, config) as run, pytest.raises(Interrupted):
        train(model, DATA, config, run, device="cpu", progress=StopAt(10))
    resume(folders[1])
    whole, resumed = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert whole == resumed


def test_margin_and_temperature_rise_during_training() -> None:
    model = SMALL["matrix-capsules"].build()
    routing = model.class_capsules.routing
    assert (float(model.margin), float(routing.warmth)) == pytest.approx((0.9, 1.0))  # as after training
    seen = []
    for share in (0.0, 0.1, 0.5, 1.0):
        model.set_progress(share)
        seen.append((float(model.margin), float(routing.warmth)))
    assert seen == [pytest.approx(pair) for pair in ((0.2, 0.1), (0.27, 0.55), (0.55, 1.0), (0.9, 1.0))]


def test_a_model_that_was_stopped_early_scores_as_it_does_when_loaded(tmp_path: Path) -> None:
    model = SMALL["matrix-capsules"].build().eval()
    images = DATA.test.batch(torch.arange(4)).images
    model.set_progress(0.0)  # the least warmth
    cold = model.scores(images)
    model.save_pretrained(tmp_path / "model")
    assert torch.equal(cold, load_model(tmp_path / "model").scores(images))
    assert not torch.equal(cold, model.train().scores(images)), "in training it acts"


def test_spread_loss_is_the_papers() -> None:
    activations = torch.tensor([[0.5, 0.4, 0.1], [0.9, 0.2, 0.0]])
    targets = torch.tensor([[1, 0, 0], [1, 0, 0]])
    expected = ((0.5 - 0.1) ** 2 + (0.5 - 0.4) ** 2) / 2  # the second image is 0.5 ahead of all others
    assert float(spread_loss(activations, targets, 0.5)) == pytest.approx(expected)


@pytest.mark.misuse
def test_spread_loss_refuses_class_numbers() -> None:
    with pytest.raises(ValueError, match="one_hot"):
        spread_loss(torch.rand(2, 3), torch.tensor([0, 0]))


@pytest.mark.parametrize("name", ["matrix-capsules", "variational-bayes"])
def test_all_windows_share_out_a_child_and_single_windows_do_not(name: str) -> None:
    torch.manual_seed(0)
    config = replace(SMALL[name], conv_strides=(1,))
    model = config.build().eval()
    poses, activations = torch.randn(2, 4, 7, 7, 2, 2), torch.rand(2, 4, 7, 7)
    layer = model.conv_capsules[0]
    every = layer(poses, activations)
    layer.normalise = "window"
    single = layer(poses, activations)
    assert every.poses.shape == single.poses.shape == (2, 4, 5, 5, 2, 2)
    assert not torch.allclose(every.poses, single.poses, atol=1e-3)


def test_class_capsules_see_where_their_children_are() -> None:
    torch.manual_seed(0)
    layer = PooledCapsules(2, 2, 3, 2, routing="em")
    poses, activations = torch.randn(1, 2, 4, 4, 2, 2), torch.rand(1, 2, 4, 4)
    moved = layer(poses.roll(1, dims=3), activations.roll(1, dims=3))
    assert not torch.allclose(layer(poses, activations).poses, moved.poses, atol=1e-3)


def test_sizes_that_do_not_fit_are_refused_in_one_line() -> None:
    for changes, message in (
        ({"conv_kernel": 8}, "the window of layer 3 is 8×8 and its map is 7×7"),
        ({"conv_types": (4, 4)}, "2 conv_types and 1 conv_strides"),
        ({"first_margin": 0.95}, "first_margin is 0.95"),
    ):
        with pytest.raises(CapsnetError, match=message):
            MatrixCapsulesConfig(**SIZES | changes)
    with pytest.raises(CapsnetError, match="use normalise='window'"):
        ConvCapsules(2, 4, 2, 4, kernel=3, routing="self-attention", normalise="all")
    with pytest.raises(ValueError, match="3 × 3"):
        Windows(2, 2, 3)


def authors_state() -> dict[str, Any]:
    a = arrays("variational_bayes.npz")
    return {name.removeprefix("state."): x for name, x in a.items() if name.startswith("state.")}


def test_a_model_from_the_authors_arrays_has_their_stages_and_gradients() -> None:
    a, state = arrays("variational_bayes.npz"), authors_state()
    model = VariationalBayesCapsules.from_authors(state, image_size=a["input"].shape[-1])
    found = model.stages(a["input"])
    names = [name.split(".")[1] for name in a if name.startswith("step.") and name.endswith(".poses")]
    for name, stage in zip(names, found, strict=True):
        expected = a[f"step.{name}.poses"]
        assert_close(stage.poses.permute(0, 1, 4, 5, 2, 3) if expected.ndim == 6 else stage.poses, expected)
        assert_close(stage.activations, a[f"step.{name}.activations"])
    assert_close(model(a["input"]), a["output"])
    model(a["input"]).square().sum().backward()
    assert_close(model.conv.weight.grad, a["grad.Conv_1.weight"])
    assert_close(model.primary.conv.weight.grad, a["grad.PrimaryCaps.weight"])
    assert_close(model.class_capsules.routing.beta_u.grad, a["grad.ClassRouting.beta_u"].flatten())


def test_authors_arrays_that_do_not_fit_are_refused_in_one_line() -> None:
    state = authors_state()
    with pytest.raises(CapsnetError, match="no 'BN_1"):
        VariationalBayesCapsules.from_authors({k: v for k, v in state.items() if k != "BN_1.running_var"})
    with pytest.raises(CapsnetError, match=r"'BN_1.bias' has shape \(3,\); expected \(8,\)"):
        VariationalBayesCapsules.from_authors({**state, "BN_1.bias": torch.zeros(3)})
    with pytest.raises(CapsnetError, match="choose another image_size"):
        VariationalBayesCapsules.from_authors(state, image_size=48)


@pytest.mark.parametrize("name", SMALL)
def test_the_routing_of_the_class_capsules_ends_with_the_scores(name: str) -> None:
    torch.manual_seed(0)
    model, images = SMALL[name].build().eval(), torch.rand(2, 1, 18, 18)
    trace = model.class_routing(images)
    assert len(trace.couplings) == 2
    torch.testing.assert_close(trace.couplings.sum(-1), torch.ones(trace.couplings.shape[:3]))
    torch.testing.assert_close(trace.activations[-1], model.scores(images))
    assert len(model.class_routing(images, 5).activations) == 5


def test_one_image_is_too_few_for_batch_norms() -> None:
    model = VariationalBayesCapsules(SMALL["variational-bayes"])
    one = DATA.test.batch(torch.zeros(1, dtype=torch.long))
    with pytest.raises(CapsnetError, match="at least 2 images"):
        model.loss(one)
    assert model.eval().loss(one)["loss"].isfinite()
