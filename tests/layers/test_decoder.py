import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from capsnet.layers.decoder import Decoder, mask


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_mask_takes_classes_of_either_integer_type(kind: torch.dtype) -> None:
    capsules, classes = torch.randn(3, 10, 16), torch.tensor([4, 0, 9])
    assert torch.equal(mask(capsules, classes.to(kind)), mask(capsules, classes))


def test_mask_leaves_one_capsule_in_its_place() -> None:
    capsules = torch.randn(3, 10, 16)
    masked = mask(capsules, torch.tensor([4, 0, 9]))
    expected = capsules.numpy() * one_hot(torch.tensor([4, 0, 9]), 10).numpy()[:, :, None]
    assert masked.shape == (3, 10, 16)
    np.testing.assert_array_equal(masked.numpy(), expected)


def test_decoder_uses_only_the_chosen_capsule_and_its_class() -> None:
    decoder = Decoder(10, 16, (32,), (1, 5, 5))
    capsules = torch.randn(1, 10, 16)
    louder = capsules.clone()
    louder[:, 3] *= 5
    assert torch.equal(decoder(capsules, torch.tensor([2])), decoder(louder, torch.tensor([2])))
    assert not torch.equal(decoder(capsules, torch.tensor([3])), decoder(louder, torch.tensor([3])))
    same = capsules[:, :1].expand(1, 10, 16)
    assert not torch.equal(decoder(same, torch.tensor([2])), decoder(same, torch.tensor([3])))


def test_decoder_masking_gradient() -> None:
    decoder = Decoder(3, 2, (4,), (1, 2, 2)).double()
    # float() in the decoder keeps pixels in float32 under autocast; in float64 it is checked without it
    capsules = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda c: decoder.layers(mask(c, torch.tensor([0, 2])).flatten(1)), (capsules,)
    )
