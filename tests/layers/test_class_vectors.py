"""Any routing in CapsNet: lengths say whether, and what is shown is what is computed."""

import pytest
import torch

from capsnet import CapsnetError
from capsnet.data.dataset import Batch
from capsnet.functional import squash
from capsnet.layers.class_vectors import ClassVectors, with_length
from capsnet.models import CapsNet, CapsNetConfig

OTHERS = ("self-attention", "em", "inverted-attention", "variational-bayes")


@pytest.mark.parametrize("routing", OTHERS)
def test_capsnet_trains_with_any_routing_and_shows_what_it_computes(routing: str) -> None:
    torch.manual_seed(0)
    model = CapsNet(CapsNetConfig(stem_channels=4, primary_types=2, decoder=(8,), routing=routing))
    images = torch.rand(3, 1, 28, 28)
    model.loss(Batch(images, torch.tensor([[0], [1], [2]]), images[:, None]))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or "presence" in name, name
    model.eval()
    capsules, shown = model(images), model.trace(images)
    assert model.scores(images).max() <= 1
    torch.testing.assert_close(shown.capsules, capsules.detach())
    longer = model.trace(images, 4).routing.outputs
    assert len(longer) == (1 if routing == "self-attention" else 4)
    torch.testing.assert_close(longer[len(shown.routing.outputs) - 1], shown.capsules)


def test_em_starts_undecided_in_capsnet_so_that_it_can_learn() -> None:
    torch.manual_seed(0)
    model = CapsNet(CapsNetConfig(stem_channels=32, primary_types=8, routing="em"))
    lengths = model.scores(torch.rand(8, 1, 28, 28))
    assert 0.2 < lengths.min() < lengths.max() < 0.8


def test_activations_become_lengths() -> None:
    poses, lengths = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([0.5, 0.5])
    assert with_length(poses, lengths).tolist() == [[pytest.approx(0.3), pytest.approx(0.4)], [0.0, 0.0]]


def test_options_of_dynamic_routing_and_unknown_routings_are_refused() -> None:
    with pytest.raises(CapsnetError, match="'em' has no bias, leaky softmax"):
        CapsNetConfig(routing="em", routing_leaky=True)
    with pytest.raises(CapsnetError, match="there is no routing 'me'; "):
        CapsNetConfig(routing="me").build()


@pytest.mark.parametrize("routing", ["em", "variational-bayes"])
def test_children_longer_than_1_are_certain(routing: str) -> None:
    layer = ClassVectors(6, 4, 3, 5, routing=routing)
    assert layer(squash(1e5 * torch.randn(2, 6, 4))).isfinite().all()
    assert layer(torch.randn(2, 6, 4) * 9).isfinite().all()


def test_dynamic_routing_has_a_trace_too() -> None:
    torch.manual_seed(0)
    layer, u = ClassVectors(6, 4, 3, 5), torch.randn(2, 6, 4)
    torch.testing.assert_close(layer.trace(u).outputs[-1], layer(u).detach())
