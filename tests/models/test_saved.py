"""A saved model knows its classes and how its input is prepared; models of before still load."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from capsnet import CapsNet, CapsNetConfig, CapsnetError, load_model
from capsnet.data import Dataset, Examples
from capsnet.explorer.session import open_session
from capsnet.inference.evaluation import evaluate
from capsnet.inference.export import export_onnx
from capsnet.inference.prediction import image_files, predict_files
from capsnet.models import SavedModel
from capsnet.training.run import Run
from command import Command
from stripes import DATA, SMALL, run_training

NAMES = ("a", "b", "c")


def faint(examples: Examples) -> Examples:
    """The same pictures, pale on a bright ground: a network trained on standardised ones sees only the ground."""
    return replace(examples, images=200 + examples.images // 8)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    assert isinstance(DATA.train, Examples)
    assert isinstance(DATA.test, Examples)
    return replace(DATA, train=faint(DATA.train), test=faint(DATA.test), class_names=NAMES, standardize=True)


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on standardised images."""
    path = tmp_path_factory.mktemp("standardised") / "run"
    config = replace(SMALL, class_names=NAMES, standardize=True)
    assert run_training(path, model_config=config, data=dataset).error < 0.2
    return path


@pytest.fixture(scope="module")
def error(folder: Path) -> float:
    result = Run(folder).result()
    assert result is not None
    return float(result["test_error"])


@pytest.fixture(scope="module")
def pictures(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as PNG files."""
    root = tmp_path_factory.mktemp("pictures")
    assert isinstance(dataset.test, Examples)
    for half in ("train", "test"):
        for number, (image, label) in enumerate(zip(dataset.test.images, dataset.test.labels, strict=True)):
            file = root / half / NAMES[int(label)] / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(file)
    return root


def share_wrong(predicted: list[str], truth: list[str]) -> float:
    return sum(p != t for p, t in zip(predicted, truth, strict=True)) / len(truth)


def test_without_standardising_the_same_weights_answer_by_chance(
    folder: Path, dataset: Dataset, error: float
) -> None:
    model = CapsNet.from_pretrained(folder)
    model.config = replace(model.config, standardize=False)
    assert evaluate(model, dataset.test).error > error + 0.3


def test_evaluate_on_files_has_the_error_of_the_training(
    folder: Path, pictures: Path, error: float, capsnet: Command
) -> None:
    done = capsnet("evaluate", folder, "--data", f"folder:{pictures}", "--device", "cpu", "--json")
    assert json.loads(done.out)["test_error"] == error


def test_predict_on_files_has_the_error_of_the_training(
    folder: Path, pictures: Path, error: float, capsnet: Command
) -> None:
    done = capsnet("predict", folder, pictures / "test", "--device", "cpu", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    truth = [Path(line["name"]).parent.name for line in found]
    assert share_wrong([line["label"] for line in found], truth) == error
    again = predict_files(load_model(folder), image_files([pictures / "test"]))
    assert [prediction.label for prediction in again] == [line["label"] for line in found]


def test_from_pretrained_predict_has_the_error_of_the_training(
    folder: Path, dataset: Dataset, error: float
) -> None:
    assert isinstance(dataset.test, Examples)
    predicted = CapsNet.from_pretrained(folder).predict(dataset.test.images / 255)
    assert float((predicted != dataset.test.labels).float().mean()) == pytest.approx(error)


def test_the_exported_model_has_the_error_of_the_training(
    folder: Path, dataset: Dataset, error: float, tmp_path: Path
) -> None:
    assert isinstance(dataset.test, Examples)
    export_onnx(load_model(folder), tmp_path / "model.onnx")
    images = (dataset.test.images / 255).numpy()
    (scores,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": images})
    wrong = np.argmax(scores, axis=1) != dataset.test.labels.numpy()
    assert float(wrong.mean()) == pytest.approx(error)


def test_the_explorer_has_the_error_of_the_training_without_the_data(
    folder: Path, dataset: Dataset, error: float
) -> None:
    from capsnet.explorer.answering import answer
    from capsnet.explorer.schemas import TraceRequest, TraceResponse

    session = open_session(str(folder))
    assert session.dataset is None
    assert isinstance(dataset.test, Examples)
    wrong = 0
    for image, label in zip(dataset.test.images, dataset.test.labels, strict=True):
        request = TraceRequest.model_validate({"layers": [{"pixels": (image.flatten() / 255).tolist()}]})
        wrong += answer(session, "trace", request, TraceResponse).ranking[0] != int(label)
    assert wrong / len(dataset.test) == error


@pytest.fixture
def older(folder: Path, tmp_path: Path) -> Path:
    """The run as capsnet saved it before: other names, and classes and `standardize` beside the model."""
    copy = copytree(folder, tmp_path / "older")
    found = json.loads((copy / "config.json").read_text())
    model = found["model"]
    names = {"num_classes": "classes"} | {
        f"routing_{name}": name for name in ("iterations", "bias", "leaky", "gradient")
    }
    beside = {"classes": list(model.pop("class_names")), "standardize": model.pop("standardize")}
    found["model"] = {names.get(name, name): value for name, value in model.items()}
    (copy / "config.json").write_text(json.dumps({**found, **beside}))
    weights = load_file(copy / "model.safetensors")
    weights = {name.replace("class_capsules.", "classes."): tensor for name, tensor in weights.items()}
    save_file(weights, copy / "model.safetensors")
    return copy


def test_a_model_saved_under_the_old_names_still_loads(older: Path, folder: Path) -> None:
    model, now = CapsNet.from_pretrained(older), CapsNet.from_pretrained(folder)
    assert model.config == now.config
    assert model.class_names == NAMES
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), now.parameters(), strict=True))
    assert Run(older).training() == Run(folder).training()


def test_old_weights_load_into_a_model_and_into_a_part_of_another(older: Path) -> None:
    weights = load_file(older / "model.safetensors")
    model = CapsNet(SMALL)
    model.load_state_dict(weights)
    torch.nn.ModuleDict({"inner": model}).load_state_dict(
        {f"inner.{name}": tensor for name, tensor in weights.items()}
    )
    assert torch.equal(model.class_capsules.weight, weights["classes.weight"])


def test_class_names_that_do_not_fit_are_refused_in_one_line(older: Path) -> None:
    found = json.loads((older / "config.json").read_text())
    (older / "config.json").write_text(json.dumps({**found, "classes": ["a", "b"]}))
    with pytest.raises(CapsnetError, match=r"config\.json: .*class_names has 2 names; .* 3 classes"):
        CapsNet.from_pretrained(older)


def test_opening_a_model_reads_its_config_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = SavedModel.open(folder)
    monkeypatch.setattr("capsnet.models.saved.read_json", lambda _: pytest.fail("it was read again"))
    assert load_model(saved).class_names == NAMES
    assert saved.data == "stripes"


def test_an_unknown_old_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(CapsnetError, match="no field 'classes'; did you mean 'num_classes'"):
        CapsNetConfig(classes=3)  # type: ignore[call-arg]
