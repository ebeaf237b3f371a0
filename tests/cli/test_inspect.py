"""`info`, `perturb` and `trace`: what they print, what they draw, how they fail."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn

from capsnet import CapsNet, CapsNetConfig, load_model
from capsnet._support import dispatch
from capsnet.cli import app
from capsnet.data import Batch
from capsnet.models import CNN, MODELS, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.models.cost import cost_of, parts_of, training_memory
from command import Command, assert_one_line

NAMES = ("top", "middle", "bottom")
SMALL = CapsNetConfig((1, 18, 18), 3, NAMES, stem_channels=4, primary_types=2, decoder=(8,))
CONTROL = CNNConfig(image_shape=(1, 18, 18), num_classes=3, stages=(Stage(4, 5), Stage(4, 3)), hidden=(9, 8))


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return saved(CapsNet(SMALL), tmp_path / "small")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (18, 18), np.uint8)).save(path)
    return path


# info


@pytest.mark.quick
def test_the_help_of_train_names_every_architecture() -> None:
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    (option,) = (one for one in train.params if "--model" in one.opts)
    for name in MODELS.names():
        if MODELS.get(name).__module__.startswith("capsnet."):  # not those that other tests register
            assert f" {name}," in option.help


def test_info_shows_the_parts_of_the_published_network(capsnet: Command) -> None:
    done = capsnet("info")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line}
    assert rows["primary.conv1"] == ["256×20×20", "20,992", "8,294,400"]
    assert rows["class_capsules"][:2] == ["10×16", "1,474,560"]
    assert rows["decoder"][1] == "1,411,344"
    assert "8,215,568" in done.out
    assert "201,793,536" in done.out


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, decoder=None), CONTROL])
def test_the_parts_add_up_to_the_model(config: Any) -> None:
    parts = parts_of(config)
    cost = cost_of(config.build())
    to_classify = [part for part in parts if part.name != "decoder"]
    assert sum(part.parameters for part in parts) == cost.parameters
    assert sum(part.multiply_adds for part in to_classify) == cost.multiply_adds


def test_what_a_model_does_outside_its_modules_is_a_part_too() -> None:
    class Product(CNN):
        def __init__(self, config: CNNConfig) -> None:
            super().__init__(config)
            self.mix = nn.Parameter(torch.zeros(3, 3))

        def scores(self, images: torch.Tensor) -> torch.Tensor:
            return super().scores(images) @ self.mix

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) @ self.mix

    class Config(CNNConfig):
        def build(self) -> Any:
            return Product(self)

    other = parts_of(Config(**vars(CONTROL)))[-1]
    assert (other.name, other.parameters, other.multiply_adds) == ("other", 9, 9)


@pytest.mark.parametrize("stored_votes", [False, True])
def test_the_memory_for_the_backward_pass_is_what_a_real_step_keeps(stored_votes: bool) -> None:
    config, count = SMALL, 5
    model = config.build(backend="reference" if stored_votes else "chunked")
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    images = torch.rand(count, *config.image_shape)
    with dispatch.disabled(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss(Batch(images, torch.zeros(count, 1, dtype=torch.long), images[:, None]))
    assert loss
    memory = training_memory(config, count, stored_votes=stored_votes)
    assert memory.activations == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.02)
    assert memory.adam == 2 * memory.parameters == 8 * model.parameter_count()


def test_stored_votes_take_the_memory_of_the_votes() -> None:
    ours, plain = (training_memory(SMALL, 64, stored_votes=stored) for stored in (False, True))
    votes = 4 * 64 * SMALL.in_caps * SMALL.num_classes * SMALL.class_dim
    assert plain.activations - ours.activations > votes
    assert (plain.parameters, plain.gradients) == (ours.parameters, ours.gradients)


@pytest.mark.quick
def test_info_of_a_saved_model_with_other_sizes(capsnet: Command, small: Path) -> None:
    settings = (
        "--set",
        "model.primary_dim=16",
        "--set",
        "train.batch_size=64",
        "--set",
        "model.num_classes=5",
    )
    told = json.loads(capsnet("info", small, "--json", *settings).out)
    changed = replace(SMALL, primary_dim=16, num_classes=5, class_names=None)
    assert told["parameters"] == changed.parameter_count()
    assert told["batch_size"] == 64
    assert told["bytes"]["plain routing"]["total"] > told["bytes"]["this package"]["total"]
    names = [part["name"] for part in told["parts"]]
    assert names == ["primary.conv1", "primary.conv2", "class_capsules", "decoder"]


@pytest.mark.parametrize("name", MODELS.names())
def test_info_knows_every_architecture(name: str, capsnet: Command) -> None:
    told = json.loads(capsnet("info", "--model", name, "--json").out)
    assert sum(part["parameters"] for part in told["parts"]) == told["parameters"]
    assert ("plain routing" in told["bytes"]) == (name != "cnn")


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-run"], ("no model at no-such-run",)),
        (["--model", "capsnett"], ("did you mean 'capsnet'?",)),
        (["capsnet-mnist", "--model", "cnn"], ("not both",)),
        (["--set", "model.primry_dim=1"], ("did you mean 'primary_dim'?",)),
        (["--set", "train.batch_size=0"], ("--set train.batch_size is 0",)),
        (["--set", "model.stem_channels=2000000000"], ("more than 2,147,483,648 is refused",)),
    ],
)
def test_a_slip_in_info_is_one_line(arguments: list[str], words: tuple[str, ...], capsnet: Command) -> None:
    assert_one_line(capsnet("info", *arguments), *words)


# perturb


@pytest.mark.quick
def test_perturb_draws_a_row_for_each_dimension(
    capsnet: Command, small: Path, image: Path, tmp_path: Path
) -> None:
    target = tmp_path / "sheet.png"
    done = capsnet("perturb", small, image, "--out", target, "--class", "middle")
    assert done.code == 0, done.err
    assert "16 dimensions of class middle" in done.out
    drawn = Image.open(BytesIO(target.read_bytes()))
    assert drawn.format == "PNG"
    assert drawn.height > drawn.width  # 16 rows of 11 columns


def test_perturb_takes_the_first_test_digit_if_no_image_is_named(
    capsnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSNET_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    done = capsnet("perturb", "capsnet-mnist")
    assert done.code == 0, done.err
    assert "the first test example of mnist" in done.err
    assert (tmp_path / "perturb.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.misuse
def test_a_slip_in_perturb_is_one_line(capsnet: Command, small: Path, image: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "sheet.png")
    assert_one_line(capsnet("perturb", "cnn-mnist", *out), "cnn-mnist is a cnn, which has no capsules")
    blind = saved(CapsNet(replace(SMALL, decoder=None)), tmp_path / "blind")
    assert_one_line(capsnet("perturb", blind, image, *out), "has no decoder", "--reconstruction")
    assert_one_line(capsnet("perturb", small, image, *out, "--class", "botom"), "did you mean 'bottom'?")
    assert_one_line(capsnet("perturb", small, *out), "name an IMAGE")
    assert_one_line(capsnet("perturb", small, tmp_path / "none.png", *out), "there is no such file")
    assert_one_line(capsnet("perturb", small, image, "--out", tmp_path / "sheet.jpg"), "ends in .png")
    assert_one_line(
        capsnet("perturb", small, image, "--out", tmp_path / "no" / "a.png"), "does not exist; create it"
    )
    assert not (tmp_path / "sheet.png").exists()


# trace


@pytest.mark.quick
def test_trace_tells_lengths_and_couplings_of_each_iteration(
    capsnet: Command, small: Path, image: Path
) -> None:
    told = json.loads(capsnet("trace", small, image, "--iterations", 4, "--json").out)
    pixels = torch.from_numpy(np.array(Image.open(image))).float()[None, None] / 255
    model = load_model(small)
    assert isinstance(model, CapsNet)
    routing = model.trace(pixels, 4).routing
    assert [step["iteration"] for step in told["iterations"]] == [1, 2, 3, 4]
    for number, step in enumerate(told["iterations"]):
        assert [one["class"] for one in step["classes"]] == list(NAMES)
        lengths = torch.tensor([one["length"] for one in step["classes"]])
        couplings = torch.tensor([one["mean_coupling"] for one in step["classes"]])
        torch.testing.assert_close(lengths, routing.outputs[number, 0].norm(dim=-1))
        torch.testing.assert_close(couplings, routing.couplings[number, 0].mean(dim=0))
    assert told["iterations"][0]["logit_change"] is None
    assert told["iterations"][0]["coupling_entropy"] == pytest.approx(1)


def test_trace_prints_a_table_and_draws(capsnet: Command, small: Path, image: Path, tmp_path: Path) -> None:
    done = capsnet("trace", small, image, "--out", tmp_path / "trace.png")
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["length,", "iteration", "1", "2", "3"] in rows
    assert sum(row[:1] == ["middle"] for row in rows) == 2
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")
    done = capsnet("trace", "efficient-capsnet-mnist", image, "--out", tmp_path / "other.png")
    assert done.code == 0
    assert (tmp_path / "other.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_trace_still_fits_a_terminal(capsnet: Command, small: Path, image: Path) -> None:
    done = capsnet("trace", small, image, "-r", 40)
    header = next(line for line in done.out.splitlines() if line.startswith("length"))
    assert header.split()[2:] == ["1", "9", "17", "24", "32", "40"]


@pytest.mark.misuse
def test_a_slip_in_trace_is_one_line(capsnet: Command, small: Path, image: Path, tmp_path: Path) -> None:
    assert_one_line(capsnet("trace", "cnn-mnist", image), "cnn-mnist is a cnn", "no routing between capsules")
    assert_one_line(capsnet("trace", small, tmp_path / "none.png"), "there is no such file")
    assert_one_line(capsnet("trace", small, image, "--out", tmp_path / "trace.txt"), "ends in .png")
    assert capsnet("trace", small, image, "-r", 0).code == 2
