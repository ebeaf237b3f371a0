from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from capsnet import CapsNet, CapsNetConfig, CapsnetError, load_model
from capsnet.data.dataset import Batch, Dataset, Examples
from capsnet.models import CNN, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.models.cost import cost_of
from capsnet.training.config import TrainConfig
from capsnet.training.loop import train
from capsnet.training.run import Run

TINY = CNNConfig(
    image_shape=(1, 12, 12), num_classes=3, stages=(Stage(4, 3, pool="max"), Stage(6, 3)), hidden=(16,)
)
LIKE = CapsNetConfig(image_shape=(2, 20, 22), num_classes=4, stem_channels=8, primary_types=2, decoder=(16,))
PRESETS = {
    "max_pooling": CNNConfig.max_pooling(LIKE),
    "average_pooling": CNNConfig.average_pooling(LIKE),
    "without_routing": CNNConfig.without_routing(LIKE),
    "sigmoid": CNNConfig.max_pooling(LIKE, output="sigmoid"),
    "strided": CNNConfig(
        image_shape=(3, 15, 11), stages=(Stage(5, 3, 2), Stage(4, 5, same=True, pool="average"))
    ),
}


def test_published_baselines_have_the_published_numbers_of_parameters() -> None:
    assert CNNConfig().parameter_count() == 35_445_522
    assert round(CNNConfig().parameter_count() / 1e6, 1) == 35.4
    assert round(CNNConfig.overlapping_baseline().parameter_count() / 1e6, 2) == 24.56


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_the_parameters_that_its_config_counts_and_each_learns(name: str) -> None:
    config = PRESETS[name]
    torch.manual_seed(0)
    model = CNN(config)
    assert model.parameter_count() == config.parameter_count()
    images = torch.rand(5, *config.image_shape)
    model.loss(Batch(images, torch.arange(5)[:, None] % config.num_classes, images[:, None]))[
        "loss"
    ].backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_controls_match_the_capsule_network_they_are_made_for() -> None:
    like = CapsNetConfig()
    control = CNNConfig.max_pooling(like)
    assert control.parameter_count() == pytest.approx(like.parameter_count(), rel=0.002)
    stem, capsules = CNN(CNNConfig.without_routing(like)), CapsNet(like)
    assert stem.stages[0][0].weight.shape == capsules.primary.conv1.weight.shape
    assert stem.stages[1][0].weight.shape == capsules.primary.conv2.weight.shape
    assert stem.hidden[0].weight.numel() == capsules.class_capsules.weight.numel()
    average = CNN(CNNConfig.average_pooling(like))
    assert average.last.weight.shape == (10, 256)


def test_multiply_adds_are_those_derived_by_hand() -> None:
    # Conv1, PrimaryCaps, votes; each routing iteration sums the votes once, and all but the last agree once.
    stem, votes, iteration = 8_294_400 + 191_102_976, 1_474_560, 184_320
    for r in (1, 3):
        cost = cost_of(CapsNet(CapsNetConfig(routing_iterations=r)))
        assert cost.multiply_adds == stem + votes + (2 * r - 1) * iteration
    assert cost.parameters == 8_215_568
    assert cost_of(CNN(CNNConfig.without_routing(CapsNetConfig()))).multiply_adds == stem + 9216 * 160 + 1600


def test_scores_are_probabilities_and_feature_maps_are_the_stages() -> None:
    model = CNN(TINY).eval()
    images = torch.rand(4, 1, 12, 12)
    torch.testing.assert_close(model.scores(images).sum(1), torch.ones(4))
    first, second = model.feature_maps(images)
    assert (first.shape, second.shape) == ((4, 4, 5, 5), (4, 6, 3, 3))
    torch.testing.assert_close(
        second, F.relu(F.conv2d(first, model.stages[1][0].weight, model.stages[1][0].bias))
    )
    assert model.features(images).shape == (4, 16)
    torch.testing.assert_close(model(images), model.last(model.features(images)))
    both = CNN(PRESETS["sigmoid"]).eval().scores(torch.rand(2, 2, 20, 22))
    assert both.min() > 0
    assert both.max() < 1


def test_average_pooling_is_invariant_to_position() -> None:
    config = CNNConfig.average_pooling(
        CapsNetConfig(image_shape=(1, 40, 40), stem_channels=4, primary_types=2)
    )
    model = CNN(config).eval()
    images = torch.zeros(2, 1, 40, 40)
    images[0, 0, 18:22, 18:22] = images[1, 0, 16:20, 20:24] = 1
    features = model.features(images)
    torch.testing.assert_close(features[0], features[1])


def test_overlapping_classes_need_sigmoids() -> None:
    images, labels = torch.rand(2, 2, 20, 22), torch.tensor([[0, 1], [2, 3]])
    batch = Batch(images, labels, images[:, None].expand(-1, 2, -1, -1, -1))
    model = CNN(PRESETS["sigmoid"]).eval()
    loss = model.loss(batch)["loss"]
    targets = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    expected = (
        -(targets * model.scores(images).log() + (1 - targets) * (1 - model.scores(images)).log()).sum() / 2
    )
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="need output='sigmoid'"):
        CNN(PRESETS["max_pooling"]).loss(batch)


def test_a_control_trains_in_the_same_loop_and_is_loaded_again(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (96,), generator=generator)
    images = torch.randint(0, 60, (96, 1, 12, 12), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 1 + 4 * int(label) : 3 + 4 * int(label)] = 250
    data = Dataset(
        "stripes", Examples(images, labels), Examples(images, labels), ("a", "b", "c"), (1, 12, 12), ""
    )
    config = TrainConfig(epochs=12, batch_size=16, shift=0, learning_rate=0.01, evaluate_every=0)
    torch.manual_seed(0)
    model = CNN(TINY)
    with Run.create(tmp_path / "run", model, config) as run:
        evaluation = train(model, data, config, run, device="cpu")
    assert evaluation.error < 0.05
    loaded = load_model(tmp_path / "run")
    assert isinstance(loaded, CNN)
    assert loaded.config == TINY
    assert torch.equal(loaded.predict(images[:9] / 255.0), evaluation.predictions[:9, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage(0, 3), "channels is 0"),
        (lambda: Stage(4, 4, same=True), "odd kernel"),
        (lambda: CNNConfig(stages=()), "stages is a value of type tuple; it must be of at least 1 item"),
        (lambda: CNNConfig(dropout=1.0), "dropout"),
        (lambda: CNNConfig(hidden=(0,)), "hidden"),
        (lambda: CNNConfig(num_classes=1), "classes"),
        (lambda: CNNConfig(image_shape=(1, 8, 8), stages=(Stage(4, 9),)), "8×8 image is too small"),
        (lambda: CNNConfig(hidden=(10**9,)), "parameters"),
    ],
)
def test_invalid_controls_are_refused(make: object, message: str) -> None:
    with pytest.raises(CapsnetError, match=message):
        make()
