import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from capsnet import CapsnetError, train
from capsnet.data.dataset import Batch
from capsnet.inference.export import export_onnx
from capsnet.models.inverted_attention import InvertedAttentionCapsules, InvertedAttentionConfig
from capsnet.routing.windows import Windows
from oracles import arrays, assert_close
from stripes import DATA

SMALL = InvertedAttentionConfig(
    image_shape=(1, 18, 18),
    num_classes=3,
    backbone="simple",
    backbone_channels=8,
    primary_types=4,
    pose_side=2,
    conv_types=(4,),
    conv_strides=(2,),
)


def authors_state() -> dict[str, Any]:
    a = arrays("inverted_attention.npz")
    return {name.removeprefix("model.state."): x for name, x in a.items() if name.startswith("model.state.")}


def mix_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather windows as the authors' code does: stacked on the last axis, then viewed as if they were not."""

    def mixed(self: Windows, children: Tensor) -> Tensor:
        pose = children.shape[4:]
        views = children.flatten(4).unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        stacked = views.permute(0, 1, 5, 6, 4, 2, 3).contiguous()
        batch, types, k, _, dim, high, wide = stacked.shape
        found = stacked.view(batch, types, k, k, high, wide, dim).permute(0, 4, 5, 2, 3, 1, 6)
        return found.reshape(batch * high * wide, -1, *pose)

    monkeypatch.setattr(Windows, "gather", mixed)


@pytest.mark.parametrize("order", ["sequential", "concurrent"])
def test_a_model_from_the_authors_arrays_has_their_scores(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix_windows(monkeypatch)
    a, size = arrays("inverted_attention.npz"), arrays("inverted_attention.npz")["model.input"].shape[-1]
    for iterations in (1, 2, 3):
        model = InvertedAttentionCapsules.from_authors(
            authors_state(), image_size=size, order=order, routing_iterations=iterations
        )
        assert_close(model(a["model.input"]), a[f"model.{order}.r{iterations}"])


def test_a_model_from_the_authors_arrays_has_their_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    mix_windows(monkeypatch)
    a = arrays("inverted_attention.npz")
    model = InvertedAttentionCapsules.from_authors(authors_state(), image_size=a["model.input"].shape[-1])
    model(a["model.input"]).square().sum().backward()
    assert_close(model.backbone[0].weight.grad, a["model.grad.pre_caps.pre_caps.0.weight"])
    assert_close(model.primary.weight.grad, a["model.grad.pc_layer.weight"])
    assert_close(model.last.weight.grad, a["model.grad.final_fc.weight"])
    assert_close(
        model.class_capsules.routing.gain.grad, a["model.grad.capsule_layers.1.nonlinear_act.weight"]
    )


@pytest.mark.parametrize("changes", [{"order": "sequential"}, {"routing_iterations": 3}])
def test_every_parameter_learns_and_onnx_gives_the_same_scores(changes: dict, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = replace(SMALL, **changes).build()
    images = torch.rand(6, 1, 18, 18)
    model.loss(Batch(images, torch.arange(6)[:, None] % 3, images[:, None]))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # One linear map for all classes: the softmax does not see its bias.
        assert name == "last.bias" or parameter.grad.abs().sum() > 0, name
    export_onnx(model, tmp_path / "model.onnx")
    session, images = onnxruntime.InferenceSession(tmp_path / "model.onnx"), torch.rand(200, 1, 18, 18)
    (answer,) = session.run(None, {"images": images.numpy()})
    model.eval()
    with torch.no_grad():
        exact = copy.deepcopy(model).double().scores(images.double())
        own, theirs = model.scores(images) - exact, torch.from_numpy(answer) - exact
    assert theirs.norm() <= 2 * own.norm(), "float32 rounding only"


def test_it_learns() -> None:
    torch.manual_seed(0)
    assert train(SMALL.build(), DATA, epochs=8, batch_size=16, learning_rate=0.01).error < 0.1


def test_the_published_network_halves_its_maps() -> None:
    config = InvertedAttentionConfig(image_shape=(3, 32, 32))
    assert config.grids == [(32, 32), (16, 16), (7, 7), (5, 5)]
    with torch.device("meta"):
        model = config.build()
        assert model.backbone(torch.empty(1, 3, 32, 32)).shape == (1, 128, 16, 16)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(CapsnetError, match="the window is 3×3 and a map is 2×2"):
        InvertedAttentionConfig(image_shape=(1, 10, 10))
    state = authors_state()
    with pytest.raises(CapsnetError, match="no 'final_fc"):
        InvertedAttentionCapsules.from_authors(
            {name: x for name, x in state.items() if "final_fc" not in name}, image_size=16
        )
    with pytest.raises(CapsnetError, match=r"'capsule_layers.1.w' has shape .* expected"):
        InvertedAttentionCapsules.from_authors(state, image_size=40)


@pytest.mark.parametrize("order", ["sequential", "concurrent"])
def test_the_routing_of_the_class_capsules_ends_with_the_scores(order: str) -> None:
    torch.manual_seed(0)
    model, images = replace(SMALL, order=order).build().eval(), torch.rand(2, 1, 18, 18)
    trace = model.class_routing(images)
    torch.testing.assert_close(trace.activations[-1], model.scores(images))
    assert not torch.equal(trace.couplings[0], trace.couplings[1])
