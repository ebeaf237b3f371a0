"""`--set` reaches every field of every configuration, and each slip is one line."""

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from capsnet import CapsnetError
from capsnet._support.validation import parse_setting
from capsnet.models import CapsNetConfig, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.training.config import TrainConfig
from command import Command, assert_one_line

#: Field → text on the command line, and the value that it stands for; never the default.
SHARED: dict[str, tuple[str, Any]] = {
    "image_shape": ("3,32,32", (3, 32, 32)),
    "num_classes": ("12", 12),
    "class_names": ("0,b,none", ("0", "b", "none")),
    "standardize": ("true", True),
}
CAPSNET: dict[str, tuple[str, Any]] = SHARED | {
    "stem_channels": ("32", 32),
    "stem_kernel": ("5", 5),
    "stem_stride": ("2", 2),
    "primary_types": ("4", 4),
    "primary_dim": ("16", 16),
    "primary_kernel": ("5", 5),
    "primary_stride": ("1", 1),
    "class_dim": ("8", 8),
    "routing": ("em", "em"),
    "routing_iterations": ("1", 1),
    "decoder": ("64,128", (64, 128)),
    "routing_bias": ("true", True),
    "routing_leaky": ("True", True),
    "routing_gradient": ("last", "last"),
    "official_init": ("true", True),
    "margin_weight": ("0.05", 0.05),
    "reconstruction_weight": ("0", 0.0),
}
CONTROL: dict[str, tuple[str, Any]] = SHARED | {
    "stages": (
        '[{"channels": 8, "kernel": 5, "same": true, "pool": "max"}, {"channels": 4, "kernel": 3}]',
        (Stage(8, 5, same=True, pool="max"), Stage(4, 3)),
    ),
    "average_places": ("true", True),
    "hidden": ("[100]", (100,)),
    "dropout": ("0", 0.0),
    "output": ("sigmoid", "sigmoid"),
}
TRAINING: dict[str, tuple[str, Any]] = {
    "data": ("folder:a,b", "folder:a,b"),
    "image_size": ("32", 32),
    "epochs": ("3", 3),
    "steps": ("100", 100),
    "batch_size": ("64", 64),
    "learning_rate": ("1e-4", 1e-4),
    "schedule": ("paper", "paper"),
    "shift": ("0", 0),
    "rotation": ("15", 15.0),
    "scale": ("0.1", 0.1),
    "settle": ("0.1", 0.1),
    "average": ("0.05", 0.05),
    "class_weights": ("1,2.5", (1.0, 2.5)),
    "hold_out": ("0.1", 0.1),
    "seed": ("7", 7),
    "precision": ("bf16", "bf16"),
    "evaluate_every": ("0", 0),
    "save_seconds": ("1", 1.0),
    "on_nonfinite": ("skip", "skip"),
    "deterministic": ("true", True),
}
EVERY_FIELD = [(CapsNetConfig, CAPSNET), (CNNConfig, CONTROL), (TrainConfig, TRAINING)]
TINY = ("--set", "model.stem_channels=4", "--set", "model.primary_types=1", "--no-report", "--device", "cpu")


@pytest.mark.quick
@pytest.mark.parametrize(("config_class", "examples"), EVERY_FIELD)
def test_every_field_of_a_configuration_can_be_set(
    config_class: type[Any], examples: dict[str, tuple[str, Any]]
) -> None:
    assert [field.name for field in fields(config_class)] == list(examples)
    for field in fields(config_class):
        text, value = examples[field.name]
        assert value != field.default is not MISSING
        assert parse_setting(config_class, field.name, text) == value


@pytest.mark.parametrize("config_class", [CapsNetConfig, CNNConfig, TrainConfig])
def test_every_default_can_be_written_and_read_back(config_class: type[Any]) -> None:
    config = config_class()
    for name, value in asdict(config).items():
        assert parse_setting(config_class, name, json.dumps(value)) == getattr(config, name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("decoder", "none", None),
        ("decoder", "null", None),
        ("decoder", "512", (512,)),
        ("decoder", "[512, 1024]", (512, 1024)),
        ("class_names", '["a, b", "c"]', ("a, b", "c")),
    ],
)
def test_lists_and_none_can_be_written_in_several_ways(name: str, text: str, value: Any) -> None:
    assert parse_setting(CapsNetConfig, name, text) == value


def test_a_word_that_means_something_in_json_can_be_a_name() -> None:
    assert parse_setting(TrainConfig, "data", "none") == "none"
    assert parse_setting(TrainConfig, "data", "5") == "5"


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("primary_dim", "wide", "primary_dim is 'wide'; it should be a valid integer"),
        ("primary_dim", "8.5", "primary_dim is 8.5; it should be a valid integer"),
        ("primary_dim", "", "primary_dim is ''; it should be a valid integer"),
        ("primary_dim", "none", "primary_dim is None; it should be a valid integer"),
        ("primary_dim", "0", "primary_dim is 0; it must be at least 1"),
        ("routing_iterations", "101", "routing_iterations is 101; it must be at most 100"),
        ("routing_leaky", "1", "routing_leaky is 1; it should be a valid boolean"),
        ("decoder", "512,wide", "decoder.1 is 'wide'"),
        ("decoder", "{}", "decoder is a value of type dict; it must be a list"),
        ("margin_weight", "inf", "margin_weight is 'inf'"),
        ("margin_weight", "NaN", "margin_weight is nan; it must be finite"),
        ("routing_gradient", "first", "it should be 'all' or 'last'"),
    ],
)
def test_a_wrong_value_is_named(name: str, text: str, message: str) -> None:
    with pytest.raises(CapsnetError) as caught:
        parse_setting(CapsNetConfig, name, text)
    assert message in str(caught.value)


@pytest.mark.quick
def test_train_takes_fields_that_have_no_option_of_their_own(capsnet: Command, tmp_path: Path) -> None:
    done = capsnet(
        *("train", "--out", tmp_path / "run", *TINY, "--steps", 2),
        *("--set", "model.primary_dim=3", "--set", "model.decoder=none", "--set", "model.routing_leaky=true"),
        *("--set", "train.batch_size=16", "--set", "train.seed=5", "--set", "train.evaluate_every=0"),
    )
    assert done.code == 0, done.err
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["model"]["primary_dim"], saved["model"]["decoder"]) == (3, None)
    assert saved["model"]["routing_leaky"] is True
    training = saved["training"]
    assert [training[name] for name in ("batch_size", "seed", "evaluate_every", "steps")] == [16, 5, 0, 2]


def test_the_data_set_and_the_steps_can_be_set_too(capsnet: Command, tmp_path: Path) -> None:
    settings = ("--set", "train.data=mnist5k", "--set", "train.steps=1", "--set", "train.epochs=2")
    assert_one_line(capsnet("train", "--out", tmp_path / "run", *TINY, *settings), "--epochs and --steps")
    cnn = ("--set", 'model.stages=[{"channels": 2, "kernel": 5, "stride": 4}]', "--set", "model.hidden=[]")
    done = capsnet("train", "--model", "cnn", "--out", tmp_path / "run", "--no-report", *settings[:4], *cnn)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 1


def test_smaller_kernels_take_smaller_images(capsnet: Command, tmp_path: Path) -> None:
    for number in range(16):
        path = tmp_path / "tiny" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (10, 10), number).save(path)
    arguments = ("--data", f"folder:{tmp_path / 'tiny'}", "--steps", 1, "--out", tmp_path / "run", *TINY)
    assert_one_line(capsnet("train", *arguments), "10×10 image is too small", "the kernels smaller")
    kernels = ("--set", "model.stem_kernel=3", "--set", "model.primary_kernel=3")
    done = capsnet("train", *arguments, *kernels)
    assert done.code == 0, done.err


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--set", "model.primary_dim"],
            ("or train.FIELD=VALUE, as in --set model.primary_dim=16",),
        ),
        (["--set", "primary_dim=16"], ("--set primary_dim=16: write model.FIELD=VALUE",)),
        (["--set", "modle.primary_dim=16"], ("model or train, not 'modle'; did you mean 'model'?",)),
        (["--set", "model.primry_dim=16"], ("no field 'primry_dim'; did you mean 'primary_dim'?",)),
        (["--set", "train.zzz=16"], ("no field 'zzz'; it has data, image_size",)),
        (["--set", "model.primary_dim=wide"], ("--set model.primary_dim is 'wide'; it should be",)),
        (["--set", "train.batch_size=0"], ("--set train.batch_size is 0; it must be at least 1",)),
        (["--set", "model.stem_kernel=40"], ("28×28 image is too small for a 40×40",)),
        (["--set", "model.image_shape=3,40,40"], ("takes images of (3, 40, 40)", "mnist5k has")),
        (["--set", "train.seed=1", "--set", "train.seed=2"], ("--set train.seed is given twice",)),
        (["--set", "train.seed=1", "--seed", "1"], ("--set train.seed and --seed set the same field",)),
        (
            ["--set", "train.hold_out=0.2", "--hold-out", "0.1"],
            ("--set train.hold_out and --hold-out set the same field",),
        ),
        (
            ["--set", "model.routing_iterations=1", "-r", "1"],
            ("--set model.routing_iterations and --iterations set the same field",),
        ),
        (
            ["--set", "model.decoder=5", "--no-reconstruction"],
            ("--set model.decoder and --reconstruction set the same field",),
        ),
        (
            ["--model", "cnn", "--set", "model.primary_dim=16"],
            ("--set model.primary_dim: CNNConfig has no field 'primary_dim'",),
        ),
        (
            ["--model", "cnn", "--set", 'model.stages=[{"channels": 3}]'],
            ("--set model.stages.0.kernel is missing",),
        ),
        (["--resume", "runs/any", "--set", "train.seed=1"], ("--set cannot be changed when resuming",)),
    ],
)
def test_a_slip_is_one_line_and_leaves_no_run(
    arguments: list[str], words: tuple[str, ...], capsnet: Command, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(capsnet("train", "--device", "cpu", *arguments), *words)
    assert not (tmp_path / "runs").exists()


def test_an_architecture_proposes_training_options_and_given_ones_win(
    tmp_path: Path, capsnet: Command
) -> None:
    small = ("--set", "model.channels=2,2,2,8", "--device", "cpu", "--no-report", "--precision", "fp32")
    capsnet(
        "train",
        "--model",
        "efficient-capsnet",
        "--out",
        tmp_path / "run",
        *small,
        "--steps",
        "2",
        "--lr",
        "0.02",
    )
    training = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    assert (training["rotation"], training["scale"], training["settle"]) == (20.0, 0.2, 0.1)
    assert (training["steps"], training["learning_rate"], training["precision"]) == (2, 0.02, "fp32")
