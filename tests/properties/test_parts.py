"""The functions beneath the networks: what they keep to for any shapes, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from capsnet import CapsNet, CapsNetConfig, CapsnetError, load_model, margin_loss, reconstruction_loss, squash
from capsnet.data import augmentation as change
from capsnet.data.dataset import Examples
from capsnet.data.fixed_random import freeze
from capsnet.explain import class_pose, dead_share, fit_equivariance, layer_output, measure, scaling, segment
from capsnet.inference.evaluation import evaluate, wilson_interval
from capsnet.inference.prediction import predict_files
from strategies import augmentations, examples, images_for, labelled, pictures, upto

TINY = CapsNetConfig(
    image_shape=(1, 9, 8), num_classes=3, stem_channels=4, stem_kernel=3, primary_types=2, primary_dim=3,
    primary_kernel=3, class_dim=4, decoder=(5,),
)  # fmt: skip


def tiny() -> CapsNet:
    torch.manual_seed(0)
    return CapsNet(TINY).eval()


@examples(40)
@given(
    st.lists(upto(5, 0), min_size=1, max_size=3),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.floats(-3, 4),
)
def test_squashed_vectors_keep_shape_type_and_direction(shape: list[int], dtype: Any, power: float) -> None:
    s = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(10**power).to(dtype)
    v = squash(s)
    assert (v.shape, v.dtype) == (s.shape, dtype)
    length = s.double().norm(dim=-1, keepdim=True)
    expected = s.double() * (length / (1 + length.square()))
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(v.double(), expected, rtol=rounding, atol=float(torch.finfo(dtype).tiny))


@examples(30)
@given(upto(4), upto(5), st.sampled_from([torch.bool, torch.int64, torch.float32]))
def test_the_margin_loss_of_a_batch_is_the_mean_of_its_examples(batch: int, classes: int, dtype: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.rand(batch, classes, generator=generator)
    targets = (torch.rand(batch, classes, generator=generator) < 0.5).to(dtype)
    loss = margin_loss(lengths, targets)
    alone = torch.stack([margin_loss(lengths[i, None], targets[i, None]) for i in range(batch)])
    torch.testing.assert_close(loss, alone.mean())
    order = torch.randperm(classes, generator=generator)
    torch.testing.assert_close(margin_loss(lengths[:, order], targets[:, order]), loss)


@contextmanager
def only_sizes_that_fit() -> Iterator[None]:
    """Drop examples with a crop larger than the image, or an image larger than the canvas."""
    try:
        yield
    except ValueError as error:
        assume("crop" not in str(error) and "canvas" not in str(error))
        raise


@examples(50)
@given(pictures(smallest=4), augmentations, upto(99, 0))
def test_an_augmentation_treats_each_image_by_itself_and_changes_nothing_it_is_given(
    images: Tensor, augment: Any, seed: int
) -> None:
    uniforms = torch.rand(len(images), augment.draws, generator=torch.Generator().manual_seed(seed))
    before = images.clone()
    with only_sizes_that_fit():
        whole = augment(images, uniforms)
    assert torch.equal(images, before)
    assert whole.shape[:2] == images.shape[:2]
    assert whole.isfinite().all()
    torch.testing.assert_close(augment(images.flip(0), uniforms.flip(0)), whole.flip(0))
    for i in range(len(images)):
        torch.testing.assert_close(augment(images[i, None], uniforms[i, None]), whole[i, None])


@examples(30)
@given(labelled())
def test_a_data_set_gives_the_same_example_in_any_batch(source: Examples) -> None:
    with only_sizes_that_fit():
        frozen = freeze(source, 0)
        whole = frozen.batch(torch.arange(len(source)))
    assert frozen.batch(torch.arange(0)).images.shape == (0, *whole.images.shape[1:])
    for i in range(len(source)):
        for one, all_ in zip(frozen.batch(torch.tensor([i])), whole, strict=True):
            torch.testing.assert_close(one, all_[i, None])


@examples(60)
@given(st.integers(1, 10**6), st.floats(0, 1))
def test_an_interval_holds_the_share_that_was_counted(n: int, share: float) -> None:
    errors = round(share * n)
    low, high = wilson_interval(errors, n)
    assert 0 <= low <= errors / n + 1e-12
    assert errors / n - 1e-12 <= high <= 1


def test_float64_models_compute_in_float64() -> None:
    model = tiny().double()
    assert model.primary(images_for(model, 2).double()).dtype == torch.float64
    assert model.decode(model(images_for(model, 2).double())).dtype == torch.float64


def test_empty_batches_keep_their_shapes() -> None:
    nothing = torch.zeros(0, 1, 9, 8)
    assert measure(nothing).shape == (0, 8)
    assert change.Standardize()(nothing).shape == nothing.shape
    assert segment(tiny(), nothing).masks().shape == (0, 2, 9, 8)


FLOATS, BYTES, ONE = torch.rand(2, 1, 9, 8), torch.zeros(2, 1, 9, 8, dtype=torch.uint8), torch.tensor([0, 1])
EMPTY = Examples(BYTES[:0], ONE[:0])


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Examples(FLOATS, ONE), r"must be torch\.uint8"),
        (lambda: Examples(BYTES, ONE[:, None]), r"must be torch\.int64"),
        (lambda: Examples(BYTES, ONE, groups=ONE[:1]), r"2 images and groups of shape \(1,\)"),
        (lambda: freeze(EMPTY, 0, 3), "empty source"),
        (lambda: evaluate(tiny(), EMPTY), "0 examples"),
        (lambda: evaluate(tiny(), Examples(BYTES, ONE), 0), "batches of 0"),
        (lambda: margin_loss(torch.rand(3), torch.rand(3)), "not both"),
        (lambda: dead_share(torch.zeros(0, 3, 4)), "0 examples"),
        (lambda: segment(tiny(), FLOATS, 0), "count is 0"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), 3), "class 3 is out of range; this model has 3"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), torch.tensor([1])), "one for each of 2"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), torch.tensor([3, 1])), "class 3 is out of range; this model has 3"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), torch.tensor([-1, 2])), "class -1 is out of range"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), torch.tensor([1.0, 2.0])), "must be integers"),
        (lambda: tiny().decode(torch.rand(2, 3, 4), torch.tensor([True, False])), "must be integers"),
        (lambda: reconstruction_loss(FLOATS, BYTES), r"images\.float\(\) / 255"),
        (lambda: reconstruction_loss(torch.rand(3), torch.zeros(3)), "must be a batch"),
        (lambda: layer_output(net := tiny(), net.decoder)(FLOATS, ONE), "do not use this"),
        (lambda: fit_equivariance(class_pose(tiny()), scaling(1.1), *[(FLOATS, ONE)] * 2, components=0), "components"),
        (lambda: scaling(0), "factor must not be 0"),
        (lambda: change.Shift(-1), "max_shift is -1"),
        (lambda: change.RandomCrop(0), "size is 0"),
        (lambda: change.CenterCrop(-1), "size is -1"),
        (lambda: change.RandomPlacement(-1), "canvas is -1"),
        (lambda: change.Affine(scale=(0.0, 1.0)), "must not be 0"),
        (lambda: change.Affine(rotation=float("nan")), "must be finite"),
        (lambda: change.Brightness(float("nan")), "must be finite"),
        (lambda: change.Contrast(float("nan"), 1), "must be finite"),
        (lambda: change.Contrast(0, float("inf")), "must be finite"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused_with_a_reason(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["x" * 5000, "a\nb\x1b[31m"], ids=["long", "ugly"])
def test_an_unknown_model_name_is_one_line(name: str) -> None:
    with pytest.raises(CapsnetError, match="no model at") as caught:
        load_model(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_nan_scores_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 9), 200).save(tmp_path / "a.png")
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e38)
    with pytest.raises(CapsnetError, match=r"a\.png: the model's scores are not finite"):
        list(predict_files(model, [tmp_path / "a.png"]))
