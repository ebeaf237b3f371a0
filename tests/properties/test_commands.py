"""Whatever the sizes and the readings: what every configuration and every network keeps to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st

from capsnet import CapsNet, CapsNetConfig, CapsnetError, load_model
from capsnet._support.errors import NotFinite
from capsnet._support.validation import MAX_PARAMETERS, parse_config
from capsnet.data.dataset import Batch
from capsnet.models import CNN, MODELS, Classifier, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.training.config import TrainConfig, learning_rate
from strategies import (
    another_layout,
    capsnet_configs,
    cnn_configs,
    examples,
    images_for,
    models,
    train_configs,
    upto,
)

HERE = Path("config.json")


def batch_for(model: Classifier, count: int, present: int = 1) -> Batch:
    images = images_for(model, count)
    labels = torch.arange(count * present).reshape(count, present) % model.config.num_classes
    return Batch(images, labels, images[:, None].expand(-1, present, -1, -1, -1))


# Configurations


@examples(40)
@given(capsnet_configs() | cnn_configs() | train_configs)
def test_a_configuration_survives_json(config: Any) -> None:
    text = json.dumps(asdict(config), allow_nan=False)
    assert parse_config(type(config), json.loads(text), HERE) == config


sizes = st.integers(-2, 40) | st.sampled_from([10**4, 10**9, 2**31 + 1, 10**40, -(10**40)])
anything = st.one_of(
    sizes,
    st.lists(sizes, max_size=4),
    st.lists(sizes, max_size=4).map(tuple),
    st.floats(),
    st.none(),
    st.booleans(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.sampled_from(
        [{}, object(), Stage, Stage(2, 3), (Stage(2, 3), 1), 10**5000, np.zeros(3), torch.ones(2)]
    ),
)


@pytest.mark.misuse
@pytest.mark.parametrize("kind", [CapsNetConfig, CNNConfig, TrainConfig, Stage])
@examples(40)
@given(data=st.data())
def test_any_values_give_a_configuration_or_a_one_line_error(kind: type[Any], data: st.DataObject) -> None:
    names = data.draw(
        st.sets(st.sampled_from([field.name for field in fields(kind)]), min_size=1, max_size=3)
    )
    values = {name: data.draw(anything, label=name) for name in sorted(names)}
    usual = {"channels": 4, "kernel": 3} if kind is Stage else {}
    tracemalloc.start()
    try:
        config = kind(**{**usual, **values})
    except CapsnetError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 300
        assert any(name in said for name in names) or "image" in said or "parameters" in said
    else:
        assert parse_config(kind, json.loads(json.dumps(asdict(config), allow_nan=False)), HERE) == config
    finally:
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: CapsNetConfig(routing_gradient="first"),
            "routing_gradient is 'first'; it should be 'all' or 'last'",
        ),
        (lambda: CapsNetConfig(image_shape=(1, 28)), "image_shape.2 is missing"),
        (lambda: CapsNetConfig(num_classes=2.5), "num_classes is 2.5; it should be a valid integer"),
        (lambda: CNNConfig(output="sofmax"), "output is 'sofmax'; it should be 'softmax' or 'sigmoid'"),
        (lambda: CNNConfig(stages=(3,)), "stages.0 is 3; it should be an instance of Stage"),
        (lambda: Stage(4, 3, pool="avg"), "pool is 'avg'; it should be 'max' or 'average'"),
        (
            lambda: TrainConfig(schedule="onecycle"),
            "schedule is 'onecycle'; it should be 'one-cycle', 'paper'",
        ),
        (
            lambda: TrainConfig(save_seconds=float("inf")),
            "save_seconds is inf; it must be at most 1,000,000,000",
        ),
    ],
)
def test_invalid_values_are_named(build: Any, message: str) -> None:
    with pytest.raises(CapsnetError) as caught:
        build()
    assert message in str(caught.value)


@pytest.mark.misuse
def test_numpy_and_torch_numbers_become_python_numbers() -> None:
    config = CapsNetConfig(
        image_shape=torch.rand(3, 30, 28).shape,
        num_classes=np.int64(4),
        decoder=[torch.tensor(5), 6],
        routing_bias=np.bool_(True),
        margin_weight=np.float32(0.5),
    )
    plain = CapsNetConfig((3, 30, 28), 4, decoder=(5, 6), routing_bias=True, margin_weight=0.5)
    assert config == plain
    assert hash(config) == hash(plain)
    assert json.loads(json.dumps(asdict(config)))["num_classes"] == 4


@examples(12)
@given(data=st.data())
def test_parameter_count_is_that_of_the_built_network(data: st.DataObject) -> None:
    wide = st.integers(1, 3000)
    changes = {name: data.draw(wide) for name in ("stem_channels", "primary_types", "class_dim")}
    try:
        config = replace(data.draw(capsnet_configs()), **changes, num_classes=data.draw(st.integers(2, 3000)))
    except CapsnetError:
        reject()
    assert 0 < config.parameter_count() <= MAX_PARAMETERS
    with torch.device("meta"):  # shapes without memory
        assert CapsNet(config).parameter_count() == config.parameter_count()


@examples(40)
@given(capsnet_configs(), st.sampled_from(["softmax", "sigmoid"]))
def test_controls_have_the_size_of_the_capsnet_or_say_why_not(like: CapsNetConfig, output: Any) -> None:
    for preset in (CNNConfig.max_pooling, CNNConfig.average_pooling, CNNConfig.without_routing):
        try:
            config = preset(like, output)
        except CapsnetError as error:
            if not str(error).isprintable():
                raise
            continue
        assert (config.image_shape, config.num_classes, config.output) == (
            like.image_shape,
            like.num_classes,
            output,
        )
        assert CNN(config).parameter_count() == config.parameter_count()
        if preset == CNNConfig.max_pooling:
            (width,) = config.hidden
            others = (replace(config, hidden=(max(1, width + n),)).parameter_count() for n in (-1, 0, 1))
            gaps = [abs(like.parameter_count() - count) for count in others]
            assert gaps[1] == min(gaps)


@examples(40)
@given(train_configs, st.data())
def test_a_learning_rate_is_positive_and_never_above_the_peak(
    config: TrainConfig, data: st.DataObject
) -> None:
    steps = data.draw(upto(10**12))
    rate = learning_rate(config, data.draw(st.integers(0, steps - 1)), steps)
    assert 0 <= rate <= max(config.learning_rate, 1e-6)


def test_the_largest_float_as_learning_rate_does_not_overflow() -> None:
    config = TrainConfig("mnist", learning_rate=sys.float_info.max)
    assert all(0 < learning_rate(config, step, 10) <= config.learning_rate for step in range(10))


# Networks


@examples(15)
@given(models(), upto(3), st.booleans())
def test_every_network_has_its_shapes_and_a_gradient_for_each_parameter(
    model: Classifier, count: int, two: bool
) -> None:
    config = model.config
    assert model.parameter_count() == config.parameter_count()
    two = two and getattr(config, "output", "") != "softmax"
    batch = batch_for(model, count, 2 if two else 1)
    scores = model.scores(batch.images)
    assert scores.shape == (count, config.num_classes)
    assert ((scores >= 0) & (scores <= 1)).all()
    parts = model.train().loss(batch)
    assert all(torch.isfinite(part) and part >= 0 and part.shape == () for part in parts.values())
    parts["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@examples(30)
@given(capsnet_configs(), upto(3, 0))
def test_a_trace_is_what_the_network_does(config: CapsNetConfig, count: int) -> None:
    model = CapsNet(config)
    images = images_for(model, count)
    trace, capsules = model.trace(images), model(images)
    (rows, columns), r = config.grid, config.routing_iterations
    routes = (r, count, config.in_caps, config.num_classes)
    assert config.in_caps == config.primary_types * rows * columns
    assert trace.maps.shape[:2] == (count, config.stem_channels)
    assert trace.primary.shape == (count, config.in_caps, config.primary_dim)
    assert trace.routing.logits.shape == trace.routing.couplings.shape == routes
    assert trace.routing.outputs.shape == (r, count, config.num_classes, config.class_dim)
    assert capsules.shape == (count, config.num_classes, config.class_dim)
    torch.testing.assert_close(trace.capsules, capsules, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trace.lengths, model.scores(images), rtol=1e-5, atol=1e-6)
    assert torch.equal(trace.capsules, trace.routing.outputs[-1])
    assert (trace.primary.norm(dim=-1) < 1).all()
    assert (trace.lengths < 1).all()
    if config.decoder is not None:
        drawn = model.decode(capsules)
        assert drawn.shape == images.shape
        assert ((drawn >= 0) & (drawn <= 1)).all()


@examples(15)
@given(model=models())
def test_a_saved_network_loads_bit_for_bit(
    model: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    images = images_for(model, 2)
    for loaded in (load_model(folder), MODELS.get(model.architecture).from_pretrained(str(folder))):
        assert loaded.config == model.config
        assert not loaded.training
        own, found = model.state_dict(), loaded.state_dict()
        assert own.keys() == found.keys()
        assert all(torch.equal(own[name], found[name]) for name in own)
        assert torch.equal(loaded(images), model(images))


@examples(12)
@given(models(), upto(4), st.randoms(use_true_random=False))
def test_an_answer_does_not_depend_on_batch_position_or_layout(
    model: Classifier, count: int, chance: Any
) -> None:
    images = images_for(model, count)
    whole = model(images)
    order = torch.tensor(chance.sample(range(count), count))
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), whole, **close)
    torch.testing.assert_close(model(images[order]), whole[order], **close)
    torch.testing.assert_close(model(another_layout(images)), whole, **close)
    exact = model.double()
    torch.testing.assert_close(exact(images.double()).float(), whole, rtol=1e-4, atol=1e-5)
    alone = torch.cat([exact(image[None]) for image in images.double()])
    assert alone.dtype == torch.float64
    torch.testing.assert_close(alone, exact(images.double()), rtol=1e-12, atol=1e-13)


@examples(15)
@given(models())
def test_an_empty_batch_has_empty_answers(model: Classifier) -> None:
    nothing, classes = images_for(model, 0), model.config.num_classes
    assert model.scores(nothing).shape == (0, classes)
    assert model.predict(nothing).shape == (0,)
    assert model.predict(nothing, 2).shape == (0, 2)
    loss = model.loss(batch_for(model, 0))["loss"]
    assert loss == 0
    loss.backward()


@pytest.mark.misuse
@examples(15)
@given(models(), upto(3), st.sampled_from([torch.nan, torch.inf]))
def test_invalid_images_are_refused(model: Classifier, count: int, broken: float) -> None:
    images = images_for(model, count)
    assert model.predict(images * 3 - 1).shape == (count,), "outside [0, 1]: standardised images are"
    for wrong, said in (
        ((images * 255).byte(), r"convert to float in \[0, 1\]"),
        (images.double(), r"images\.to\(torch\.float32\)"),
        (images.half(), r"images\.to\(torch\.float32\)"),
        (images.numpy(), "of type ndarray"),
        (images[0], "this model takes"),
        (torch.cat([images, images], 3), "this model takes"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(wrong)
    for number in (-1, 0, model.config.num_classes + 1):
        with pytest.raises(
            ValueError, match=f"predict: top_k is {number}; it must be from 1 to {model.config.num_classes}"
        ):
            model.predict(images, number)
    images[-1] = broken
    with pytest.raises(NotFinite, match=f"1 of {count} images"):
        model.predict(images)


@pytest.mark.slow
def test_all_properties_with_five_times_as_many_examples() -> None:
    """Or as many times as CAPSNET_EXAMPLES says."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *map(str, files)]
    subprocess.run(command, check=True, env={"CAPSNET_EXAMPLES": "5", **os.environ})
