"""What the tests of properties draw from: configurations, images, models, data sets, augmentations."""

from __future__ import annotations

import os
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from capsnet import CapsNet, CapsNetConfig
from capsnet.data import augmentation as change
from capsnet.data.dataset import Examples
from capsnet.models import CNN, Classifier, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.training.config import TrainConfig


def examples(count: int) -> settings:
    """So many examples, always the same ones; with CAPSNET_EXAMPLES=20 twenty times as many."""
    times = int(os.environ.get("CAPSNET_EXAMPLES", "1"))
    return settings(max_examples=count * times, deadline=None, derandomize=True)


def upto(most: int, least: int = 1) -> st.SearchStrategy[int]:
    return st.integers(least, most)


@st.composite
def capsnet_configs(draw: st.DrawFn, **fixed: Any) -> CapsNetConfig:
    """Small networks of every geometry and reading."""
    stem, primary = draw(st.tuples(upto(5), upto(3))), draw(st.tuples(upto(4), upto(3)))
    smallest = stem[0] + stem[1] * (primary[0] - 1)
    height, width = (smallest + draw(upto(5, 0)) for _ in range(2))
    values = {
        "image_shape": (draw(upto(3)), height, width),
        "num_classes": draw(upto(5, 2)),
        "stem_channels": draw(upto(6)),
        "stem_kernel": stem[0],
        "stem_stride": stem[1],
        "primary_types": draw(upto(3)),
        "primary_dim": draw(upto(5)),
        "primary_kernel": primary[0],
        "primary_stride": primary[1],
        "class_dim": draw(upto(6)),
        "routing_iterations": draw(upto(4)),
        "decoder": draw(st.none() | st.lists(upto(7), max_size=3).map(tuple)),
        "routing_bias": draw(st.booleans()),
        "routing_leaky": draw(st.booleans()),
        "routing_gradient": draw(st.sampled_from(["all", "last"])),
        "official_init": draw(st.booleans()),
        "margin_weight": draw(st.floats(0, 10)),
        "reconstruction_weight": draw(st.floats(0, 10)),
    }
    return CapsNetConfig(**{**values, **fixed})


@st.composite
def cnn_configs(draw: st.DrawFn) -> CNNConfig:
    """Small controls; the image is at least as large as the stages need."""
    stages, side = [], draw(upto(3))
    for _ in range(draw(upto(3))):
        pool, same = draw(st.sampled_from([None, "max", "average"])), draw(st.booleans())
        kernel = draw(st.sampled_from([1, 3, 5]) if same else upto(4))
        stage = Stage(draw(upto(5)), kernel, 1 if same else draw(upto(2)), same, pool)
        stages.insert(0, stage)
        side = side * (2 if pool else 1)
        side = side if same else (side - 1) * stage.stride + kernel
    return CNNConfig(
        image_shape=(draw(upto(3)), side + draw(upto(3, 0)), side + draw(upto(3, 0))),
        num_classes=draw(upto(5, 2)),
        stages=tuple(stages),
        average_places=draw(st.booleans()),
        hidden=tuple(draw(st.lists(upto(7), max_size=2))),
        dropout=draw(st.floats(0, 0.9)),
        output=draw(st.sampled_from(["softmax", "sigmoid"])),
    )


train_configs = st.builds(
    TrainConfig,
    data=st.sampled_from(["mnist", "folder:a b/ü"]),
    image_size=st.none() | upto(8000, 2),
    epochs=upto(10**9),
    steps=st.none() | upto(10**12),
    batch_size=upto(10**9),
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    schedule=st.sampled_from(["one-cycle", "paper", "constant"]),
    shift=upto(1000, 0),
    seed=upto(2**32 - 1, 0),
    precision=st.sampled_from(["fp32", "bf16"]),
    evaluate_every=upto(10**9, 0),
    save_seconds=st.floats(0, 10**9),
    on_nonfinite=st.sampled_from(["stop", "skip"]),
)


@st.composite
def models(draw: st.DrawFn) -> Classifier:
    """A network with random weights, in evaluation mode."""
    config = draw(capsnet_configs() | cnn_configs())
    torch.manual_seed(draw(upto(9, 0)))
    return (CapsNet(config) if isinstance(config, CapsNetConfig) else CNN(config)).eval()


def images_for(model: Classifier, count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *model.config.image_shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def pictures(draw: st.DrawFn, least: int = 0, channels: int = 3, smallest: int = 1) -> Tensor:
    """Float images in [0, 1], up to 4 of them, in any layout."""
    shape = (draw(upto(4, least)), draw(upto(channels)), draw(upto(9, smallest)), draw(upto(9, smallest)))
    images = torch.rand(shape, generator=torch.Generator().manual_seed(draw(upto(99, 0))))
    return another_layout(images) if draw(st.booleans()) else images


def another_layout(tensor: Tensor) -> Tensor:
    """The same numbers, every second one of a larger tensor whose last two axes are exchanged."""
    wide = tensor.new_full((*tensor.shape[:-2], 2 * tensor.shape[-1], tensor.shape[-2]), torch.nan)
    view = wide[..., ::2, :].transpose(-1, -2)
    return view.copy_(tensor)


small = st.floats(-40, 40)
augmentations = st.recursive(
    st.builds(change.Shift, upto(4, 0))
    | st.builds(change.RandomCrop, upto(4))
    | st.builds(change.CenterCrop, upto(4))
    | st.builds(change.RandomPlacement, upto(14, 9))
    | st.builds(
        change.Affine, small, st.floats(-1, 1), st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)), small
    )
    | st.just(change.Flip())
    | st.builds(change.Brightness, st.floats(0, 1))
    | st.builds(change.Contrast, st.floats(0.2, 1), st.floats(1, 2))
    | st.just(change.Standardize()),
    lambda steps: st.lists(steps, max_size=3).map(change.Compose),
    max_leaves=3,
)


@st.composite
def labelled(draw: st.DrawFn, classes: int = 4) -> Examples:
    """A data set of 1 to 6 images, at least 4 pixels wide and high."""
    shape = (draw(upto(6)), draw(upto(3)), draw(upto(9, 4)), draw(upto(9, 4)))
    generator = torch.Generator().manual_seed(draw(upto(99, 0)))
    return Examples(
        torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        torch.randint(classes, shape[:1], generator=generator),
        draw(st.none() | augmentations),
    )
