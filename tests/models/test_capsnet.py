import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import replicate
from torch.utils._python_dispatch import TorchDispatchMode

from capsnet import CapsNet, CapsNetConfig, CapsnetError, load_model, margin_loss
from capsnet.data.dataset import Batch
from capsnet.models import CNN, Classifier, CNNConfig
from capsnet.models.cnn import Stage

SMALL = CapsNetConfig(image_shape=(1, 20, 20), num_classes=4, stem_channels=8, primary_types=2, decoder=(16,))


def small_batch(config: CapsNetConfig = SMALL, size: int = 3) -> Batch:
    images = torch.rand(size, *config.image_shape)
    return Batch(images, torch.arange(size)[:, None] % config.num_classes, images[:, None])


def test_published_network_has_the_published_number_of_parameters() -> None:
    model = CapsNet()
    assert model.parameter_count() == model.config.parameter_count() == 8_215_568
    without = CapsNetConfig(decoder=None)
    assert CapsNet(without).parameter_count() == without.parameter_count() == 6_804_224
    assert model.config.in_caps == 1152
    assert CapsNetConfig.official().parameter_count() == 8_215_568 + 160


@pytest.mark.quick
def test_published_network_shapes() -> None:
    model = CapsNet()
    images = torch.rand(2, 1, 28, 28)
    trace = model.trace(images)
    assert trace.maps.shape == (2, 256, 20, 20)
    assert trace.primary.shape == (2, 1152, 8)
    assert trace.routing.couplings.shape == (3, 2, 1152, 10)
    assert trace.capsules.shape == (2, 10, 16)
    assert model.decode(trace.capsules).shape == images.shape
    torch.testing.assert_close(trace.capsules, model(images))


@pytest.mark.quick
@pytest.mark.parametrize(
    "changes",
    [
        {"image_shape": (3, 24, 32), "num_classes": 2},
        {
            "image_shape": (2, 17, 18),
            "num_classes": 7,
            "routing_iterations": 1,
            "class_dim": 5,
            "primary_dim": 3,
        },
        {"image_shape": (1, 40, 40), "num_classes": 100, "decoder": None, "routing_leaky": True},
        {
            "image_shape": (1, 12, 12),
            "stem_kernel": 5,
            "primary_kernel": 3,
            "routing_bias": True,
            "routing_gradient": "last",
        },
        {"official_init": True, "decoder": (8, 8, 8)},
    ],
)
def test_every_size_and_reading_works_and_every_parameter_learns(changes: dict) -> None:
    config = CapsNetConfig(**{"stem_channels": 6, "primary_types": 3, "decoder": (16,), **changes})
    model = CapsNet(config)
    batch = small_batch(config, size=5)
    model.loss(batch)["loss"].backward()
    assert model(batch.images).shape == (5, config.num_classes, config.class_dim)
    assert model.parameter_count() == config.parameter_count()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_capsule_is_one_place_of_the_image_not_eight_neighbours() -> None:
    """PrimaryCaps reshaped without the transpose passes every accuracy test; this one it does not."""
    model = CapsNet(SMALL)
    maps = torch.zeros(1, 16, 2, 2)
    maps[0, 8:16, 1, 0] = torch.arange(1.0, 9.0)  # type 1, row 1, column 0
    capsules = model.primary.group(maps)
    assert capsules.shape == (1, 8, 8)
    assert torch.equal(capsules[0, 4 + 2], torch.arange(1.0, 9.0))
    assert capsules.count_nonzero() == 8


@pytest.mark.parametrize(
    "model",
    [CapsNet(SMALL), CNN(CNNConfig(image_shape=(1, 20, 20), stages=(Stage(2, 5),), hidden=(3,)))],
    ids=["capsnet", "cnn"],
)
def test_the_copies_of_data_parallel_answer_as_the_model(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has no parameters; without GPUs, only the copying of the tensors is played."""

    def copies(tensors: list[torch.Tensor], devices: list[int], detach: bool) -> list[list[torch.Tensor]]:
        return [[tensor.clone() for tensor in tensors] for _ in devices]

    monkeypatch.setitem(replicate.__globals__, "_broadcast_coalesced_reshape", copies)
    copy = replicate(model.eval(), [0, 1])[1]
    images = torch.rand(3, 1, 20, 20)
    assert not list(copy.parameters())
    torch.testing.assert_close(copy(images), model(images))
    with pytest.raises(ValueError, match=r"images\.to\(torch\.float32\)"):
        copy(images.double())


def test_an_abstract_classifier_cannot_be_built() -> None:
    class Silent(CNN):
        scores = Classifier.scores

    for kind in (Classifier, Silent):
        with pytest.raises(TypeError, match="abstract"):
            kind()


def test_a_too_small_image_names_the_smallest_size_that_fits() -> None:
    with pytest.raises(CapsnetError, match=r"16×16 image is too small.*at least 17×17"):
        CapsNetConfig(image_shape=(1, 16, 16))
    CapsNetConfig(image_shape=(1, 17, 17))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 1},
        {"routing_iterations": 0},
        {"primary_dim": 0},
        {"decoder": (0,)},
        {"reconstruction_weight": float("nan")},
    ],
)
def test_invalid_configurations_are_refused(changes: dict) -> None:
    with pytest.raises(CapsnetError, match=next(iter(changes))):
        CapsNetConfig(**changes)


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 28, 28), r"\(batch, 1, 20, 20\)"),
        (torch.zeros(1, 20, 20), r"\(batch, 1, 20, 20\)"),
        (torch.zeros(2, 1, 20, 20, dtype=torch.uint8), "float"),
    ],
)
def test_wrong_images_are_refused_with_a_reason(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CapsNet(SMALL)(images)


@pytest.mark.quick
def test_loss_is_margin_plus_weighted_sum_of_squares() -> None:
    model = CapsNet(SMALL)
    batch = small_batch()
    parts = model.loss(batch)
    capsules = model(batch.images)
    margin = margin_loss(capsules.norm(dim=-1), torch.eye(4)[batch.labels[:, 0]])
    squares = (model.decode(capsules, batch.labels[:, 0]) - batch.images).square().sum() / 3
    torch.testing.assert_close(parts["margin"], margin)
    torch.testing.assert_close(parts["reconstruction"], squares)
    torch.testing.assert_close(parts["loss"], margin + 0.0005 * squares)


def test_overlapping_digits_are_reconstructed_one_by_one() -> None:
    model = CapsNet(SMALL)
    labels = torch.tensor([[0, 2], [3, 1]])
    originals = torch.rand(2, 2, 1, 20, 20)
    batch = Batch(originals.sum(1).clamp(max=1), labels, originals)
    capsules = model(batch.images)
    expected = sum(
        (model.decode(capsules, labels[:, k]) - originals[:, k]).square().flatten(1).sum(1).mean()
        for k in (0, 1)
    )
    torch.testing.assert_close(model.loss(batch)["reconstruction"], expected)


def test_official_margin_loss_is_a_twentieth() -> None:
    assert CapsNetConfig.official().margin_weight == 1 / 20
    assert CapsNetConfig.official(routing_iterations=1).routing_iterations == 1


def test_decode_uses_the_longest_capsule_by_default() -> None:
    model = CapsNet(SMALL)
    capsules = model(torch.rand(3, 1, 20, 20))
    longest = capsules.norm(dim=-1).argmax(1)
    assert torch.equal(model.decode(capsules), model.decode(capsules, longest))
    assert torch.equal(model.decode(capsules, 1), model.decode(capsules, torch.tensor([1, 1, 1])))
    with pytest.raises(ValueError, match="no decoder"):
        CapsNet(CapsNetConfig(decoder=None, stem_channels=2, primary_types=1)).decode(torch.zeros(1, 10, 16))


class NeverWaiting(TorchDispatchMode):
    """Refuse what brings a number from the device to Python."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert operator is not torch.ops.aten._local_scalar_dense.default, "this waits for the device"
        return operator(*args, **(kwargs or {}))


def test_loss_never_synchronises_and_decode_checks_labels_unless_compiled() -> None:
    model, batch = CapsNet(SMALL), small_batch()
    with NeverWaiting():
        model.loss(batch)
    capsules, classes = model(batch.images).detach(), torch.tensor([0, 3, 1])
    with NeverWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        model.decode(capsules, classes)
    drawn = model.decode(capsules, classes)
    program = torch.export.export(_Decoder(model), (capsules, classes)).module()
    torch.testing.assert_close(program(capsules, classes), drawn)
    masked = program(
        capsules, torch.tensor([0, 4, -1])
    )  # no assertion of a device, which would end the process
    torch.testing.assert_close(masked[0], drawn[0])
    torch.testing.assert_close(masked[1:], model.decode(capsules * 0, 0)[1:])


class _Decoder(nn.Module):
    def __init__(self, model: CapsNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, capsules: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(capsules, classes)


def test_predict_names_the_longest_capsules() -> None:
    model = CapsNet(SMALL)
    images = torch.rand(5, 1, 20, 20)
    order = model(images).norm(dim=-1).argsort(dim=1, descending=True)
    assert torch.equal(model.predict(images), order[:, 0])
    assert torch.equal(model.predict(images, top_k=2), order[:, :2])


def test_a_batch_equals_its_images_one_by_one() -> None:
    model = CapsNet(SMALL)
    images = torch.rand(7, 1, 20, 20)
    one_by_one = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), one_by_one, rtol=1e-5, atol=1e-6)


def test_a_black_image_has_finite_gradients() -> None:
    model = CapsNet(SMALL)
    images = torch.zeros(2, 1, 20, 20)
    model.loss(Batch(images, torch.tensor([[0], [1]]), images[:, None]))["loss"].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.quick
def test_a_saved_model_loads_as_the_same_model(tmp_path: Path) -> None:
    model = CapsNet(SMALL).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "capsnet"
    loaded = CapsNet.from_pretrained(tmp_path)
    images = torch.rand(2, 1, 20, 20)
    assert loaded.config == SMALL
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    assert torch.equal(load_model(tmp_path)(images), model(images))


@pytest.mark.quick
def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    CapsNet(SMALL).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)
    assert next(CapsNet.from_pretrained(tmp_path).parameters()).dtype == torch.float32


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model"] |= changes
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "does not fit its config.json"),
        ({"num_classes": 10**9}, "parameters"),
        ({"classes": "four"}, "classes"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"image_shape": [1, 20]}, "image_shape"),
        ({"reconstruction_weight": float("nan")}, "NaN is not a finite number"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight"),
        ({"decoder": None}, "not part of the model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    CapsNet(SMALL).save_pretrained(tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(CapsnetError, match=message) as caught:
        CapsNet.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.quick
def test_broken_weights_are_refused_by_name(tmp_path: Path) -> None:
    CapsNet(SMALL).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for broken in (b"", whole[:100], whole[:-10], b"\xff" * 50):
        weights.write_bytes(broken)
        with pytest.raises(CapsnetError, match=r"model\.safetensors is damaged"):
            CapsNet.from_pretrained(tmp_path)
    tensors = {
        name: torch.full_like(tensor, torch.nan) for name, tensor in CapsNet(SMALL).state_dict().items()
    }
    save_file(tensors, weights)
    with pytest.raises(CapsnetError, match="NaN or infinity"):
        CapsNet.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(CapsnetError, match="missing"):
        CapsNet.from_pretrained(tmp_path)


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="no model at"):
        CapsNet.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CapsnetError, match=r"config\.json is missing"):
        CapsNet.from_pretrained(tmp_path)
    CapsNet(SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "transformer"}))
    with pytest.raises(CapsnetError, match="there is no model 'transformer'"):
        load_model(tmp_path)
    with pytest.raises(CapsnetError, match="'transformer', not a 'capsnet'"):
        CapsNet.from_pretrained(tmp_path)


def test_a_too_large_config_is_refused_before_allocating_memory() -> None:
    with pytest.raises(CapsnetError, match="parameters"):
        CapsNetConfig(num_classes=10**9)
