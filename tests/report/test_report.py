"""The report: a page that needs nothing else, for any model and any data, and true to the run."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import configuration
from capsnet.data import Dataset, Examples
from capsnet.data.dataset import Batch
from capsnet.data.fixed_random import freeze
from capsnet.data.overlapping import Pairs
from capsnet.explain import coupling_entropy
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.models import CapsNet, CapsNetConfig, Classifier, ClassifierConfig
from capsnet.models.efficient_capsnet import EfficientCapsNetConfig
from capsnet.models.matrix_capsules import MatrixCapsulesConfig
from capsnet.report import write_report
from capsnet.report.capsules import coupling_maps
from capsnet.report.curves import duration, learning_curves
from capsnet.report.material import Material
from capsnet.report.predictions import commonest, confusions
from capsnet.report.style import drawable, mosaic, new_figure, png
from capsnet.training.config import TrainConfig
from capsnet.training.run import Run, environment

PNG = b"\x89PNG\r\n\x1a\n"
NASTY = ("<script>alert(1)</script>", "a$b$c", "猫\n&amp;", "\u202eevil", "plain")


@configuration
class PlainConfig(ClassifierConfig):
    def build(self) -> "Plain":
        return Plain(self)


class Plain(Classifier):
    """A control without capsules."""

    architecture = "plain"
    config_class = PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.Linear(int(np.prod(config.image_shape)), config.num_classes)

    def scores(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1)).softmax(dim=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError


def capsnet(dataset: Dataset, **changes: Any) -> CapsNet:
    options: dict[str, Any] = {
        "image_shape": dataset.image_shape,
        "num_classes": len(dataset.class_names),
        "stem_channels": 8,
        "stem_kernel": 5,
        "primary_types": 4,
        "primary_dim": 4,
        "primary_kernel": 5,
        "class_dim": 4,
        "decoder": (8, 8),
    }
    torch.manual_seed(0)
    return CapsNet(CapsNetConfig(**{**options, **changes}))


def some_data(classes: tuple[str, ...], shape: tuple[int, int, int] = (1, 14, 12), each: int = 3) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(classes)).repeat(each)
    images = torch.zeros(len(labels), *shape, dtype=torch.uint8)
    images[..., 3:-3, 3:-3] = torch.randint(
        256, (len(labels), shape[0], shape[1] - 6, shape[2] - 6), generator=generator, dtype=torch.uint8
    )
    examples = Examples(images, labels)
    return Dataset("toy <set>", examples, examples, classes, shape, "Made up & small.")


def a_run(folder: Path, model: Classifier, dataset: Dataset, metrics: bool = True, **changes: Any) -> Path:
    run = Run.create(folder, model, TrainConfig(data="toy", seed=7))
    with run:
        if metrics:
            for step in (10, 20, 30):
                run.append_metrics(
                    {
                        "step": step,
                        "loss": 1 / step,
                        "margin": 0.9 / step,
                        "reconstruction": 3.0,
                        "images_per_second": 9,
                    }
                )
            run.append_metrics(
                {"step": 30, "test_error": 0.5, "interval_95": [0.2, 0.8], "errors": 3, "n": 6}
            )
        about = {
            **evaluate(model, dataset.test).summary(),
            "seed": 7,
            "steps": 30,
            "epochs": 3.0,
            "seconds": 754.0,
        }
        run.finish(model, {**about, "device": "cpu", "environment": environment(), **changes})
    return folder


class Page(HTMLParser):
    """What a browser would see; complains of tags that do not fit."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def pictures_of(page: Page) -> set[bytes]:
    prefix = "data:image/png;base64,"
    sources = [str(image["src"]) for image in page.images]
    assert all(source.startswith(prefix) for source in sources)
    return {b64decode(source.removeprefix(prefix)) for source in sources}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    dataset = some_data(tuple("012"))
    model = capsnet(dataset)
    folder = a_run(tmp_path_factory.mktemp("report") / "run", model, dataset)
    return folder, Page(write_report(folder, dataset, model))


def test_the_page_holds_all_its_figures_and_they_lie_beside_it(digits: tuple[Path, Page]) -> None:
    folder, page = digits
    files = {path.name: path.read_bytes() for path in (folder / "report").glob("*.png")}
    assert all(content.startswith(PNG) for content in files.values())
    assert pictures_of(page) == set(files.values())
    wanted = {"confusion", "lengths", "curve-loss", "curve-test-error", "curve-speed", "couplings-1"}
    wanted |= {f"dimensions-{number}" for number in range(3)}
    assert wanted <= {name.removesuffix(".png") for name in files}
    assert not list((folder / "report").glob(".*")), "no temporary files stay"


def test_the_page_needs_no_network_and_no_scripts(digits: tuple[Path, Page]) -> None:
    _, page = digits
    assert page.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "default-src 'none'" in page.source
    assert all(image["alt"] for image in page.images), "figures are described for those who cannot see them"


def test_the_page_fits_phones_and_dark_mode(digits: tuple[Path, Page]) -> None:
    _, page = digits
    assert 'name="viewport"' in page.source
    assert "prefers-color-scheme: dark" in page.source


def test_the_result_has_interval_seed_steps_and_machine(digits: tuple[Path, Page]) -> None:
    folder, page = digits
    result = json.loads((folder / "result.json").read_text())
    low, high = result["interval_95"]
    for fact in (
        f"{result['test_error']:.2%}",
        f"{low:.2%} to {high:.2%}",
        "Wilson",
        f"of n = {result['n']}",
        "Made up & small.",
        "12.6 min on cpu",
        f"torch {torch.__version__}",
        result["environment"]["processor"],
    ):
        assert fact in page.text, fact
    assert re.search(r"seed\s+7\b", page.text)


@pytest.mark.quick
def test_a_colour_model_without_decoder_and_metrics_has_a_report(tmp_path: Path) -> None:
    names = NASTY + tuple(f"kind {number} with a long name" for number in range(25))
    dataset = some_data(names, (3, 16, 18), each=1)
    model = capsnet(dataset, decoder=None, routing_iterations=1)
    page = Page(write_report(a_run(tmp_path / "run", model, dataset, metrics=False), dataset, model))
    written = {path.stem for path in (tmp_path / "run" / "report").glob("*.png")}
    assert {"confusion", "examples-wrong", "lengths", "couplings-1"} <= written
    assert not [name for name in written if name.startswith(("dimensions", "curve"))]
    assert "without a decoder" in page.text
    assert "no metrics.jsonl" in page.text
    assert "routes once only" in page.text
    assert "<script" not in page.source


def test_a_control_without_capsules_has_curves_confusions_and_examples(tmp_path: Path) -> None:
    dataset = some_data(NASTY, (2, 9, 13))
    torch.manual_seed(0)
    model = Plain(PlainConfig((2, 9, 13), 5))
    model.train()
    evaluation = evaluate(model, dataset.test)
    # What is given need not be measured again.
    folder = a_run(tmp_path / "run", model, dataset)
    model.scores = None  # type: ignore[method-assign,assignment]
    page = Page(write_report(folder, dataset, model, evaluation))
    assert model.training, "the training mode is put back"
    written = {path.stem for path in (folder / "report").glob("*.png")}
    assert {"confusion", "examples-wrong", "curve-loss"} <= written
    assert not {name for name in written if name.startswith(("couplings", "dimensions", "lengths"))}
    assert "no capsules" in page.text


@pytest.mark.parametrize(
    ("config", "heading", "figures"),
    [
        (EfficientCapsNetConfig(channels=(4, 4, 4, 8), decoder=(8,)), "self-attention", {"dimensions-0"}),
        (MatrixCapsulesConfig(stem_channels=4, primary_types=2, conv_types=(3, 3)), "em", set()),
        (
            CapsNetConfig(stem_channels=4, primary_types=2, decoder=None, routing="self-attention"),
            "one pass",
            set(),
        ),
    ],
)
def test_every_routing_has_a_section_of_its_own(
    tmp_path: Path, config: Any, heading: str, figures: set[str]
) -> None:
    dataset = some_data(tuple("012"), (1, 28, 28), each=2)
    torch.manual_seed(0)
    model = replace(config, image_shape=(1, 28, 28), num_classes=3).build().eval()
    folder = a_run(tmp_path / "run", model, dataset)
    page = Page(write_report(folder, dataset, model))
    written = {path.stem for path in (folder / "report").glob("*.png")}
    assert {"couplings-1", "lengths"} | figures <= written
    assert bool(figures) == any(name.startswith("dimensions") for name in written)
    assert heading in page.text
    trace = model.class_routing(dataset.test.batch(torch.arange(6)).images)
    entropy = coupling_entropy(trace).mean(dim=1)
    assert all(f"{value:.2%}" in page.text for value in entropy.tolist())
    assert f"{float(trace.scores[-1].amax(dim=-1).mean()):.2f}" in page.text


def test_names_from_outside_are_text_and_never_markup(tmp_path: Path) -> None:
    dataset = some_data(NASTY)
    model = Plain(PlainConfig(dataset.image_shape, 5))
    with torch.no_grad():  # everything is taken for the first class: its name is in the table
        model.layer.weight.zero_()
        model.layer.bias.copy_(torch.tensor([5.0, 0, 0, 0, 0]))
    page = Page(write_report(a_run(tmp_path / "run", model, dataset), dataset, model))
    assert "script" not in page.tags
    assert NASTY[0] in page.text
    assert f"class 2 is {NASTY[2]}" in page.text, "names the figures cannot draw stand in the page in full"
    assert "<title>plain on toy &lt;set&gt;</title>" in page.source


def test_overlapping_digits_are_shown_in_two_colours(tmp_path: Path) -> None:
    base = some_data(tuple("012"), (1, 12, 12))
    assert isinstance(base.train, Examples)
    pairs = Pairs.of(base.train, shift=2, canvas=16)
    dataset = Dataset("pairs", pairs, freeze(pairs, 3), base.class_names, (1, 16, 16), "Pairs.")
    model = capsnet(dataset)
    page = Page(write_report(a_run(tmp_path / "run", model, dataset), dataset, model))
    assert "intersection over union, 18 digits" in page.text
    assert "only if all of them are found" in page.text


# The figures' numbers


def material(dataset: Dataset, scores: list[list[float]], labels: list[list[int]]) -> Material:
    evaluation = Evaluation(torch.tensor(scores), torch.tensor(labels))
    model = Plain(PlainConfig(dataset.image_shape, len(dataset.class_names)))
    return Material(Path(), {}, {}, [], dataset, model, evaluation, dataset.test)


def test_confusions_count_each_class_once() -> None:
    dataset = some_data(("a", "b", "c"), each=2)
    told = material(
        dataset,
        [[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.1, 0.8, 0.9]],
        [[0, 1], [1, 0], [1, 2]],
    )
    matrix = confusions(told)
    assert matrix.tolist() == [[2, 0, 0], [0, 2, 1], [0, 0, 1]]
    assert commonest(told, matrix) == [("b", "c", "1")]


def test_confusions_of_single_classes_are_the_usual_ones() -> None:
    told = material(some_data(("a", "b")), [[0.9, 0.1], [0.2, 0.3], [0.8, 0.3]], [[0], [1], [1]])
    assert confusions(told).tolist() == [[1, 0], [1, 1]]


@pytest.mark.quick
def test_the_surest_mistakes_come_first() -> None:
    told = material(
        some_data(("a", "b")),
        [[0.6, 0.5], [0.9, 0.1], [0.2, 0.3], [0.8, 0.0], [0.7, 0.4]],
        [[1], [1], [1], [0], [0]],
    )
    assert told.wrong(5) == [1, 0]
    assert told.wrong(1) == [1]
    assert sorted(told.right(9)) == [2, 3, 4]
    assert told.right(2) == [3, 2], "one of each class, in the classes' order"
    assert told.of_class(0, 1) == [3]


def test_nan_in_scores_and_metrics_breaks_no_figure(tmp_path: Path) -> None:
    dataset = some_data(tuple("01"))
    model = capsnet(dataset)
    folder = a_run(tmp_path / "run", model, dataset, metrics=False)
    lines = [
        '{"step": 10, "loss": NaN, "test_error": NaN}',
        '{"step": 20, "loss": 0.0, "margin": "x"}',
        "{",
        "[]",
    ]
    lines += [
        '{"step": 30, "test_error": 0.0, "interval_95": [NaN, 1]}',
        '{"step": 40, "images_per_second": 1e999}',
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    scores = torch.full((6, 2), torch.nan)
    scores[0] = 0.5
    evaluation = Evaluation(scores, torch.tensor([[0], [1]] * 3))
    told = Material.of(folder, dataset, model, evaluation)
    assert [picture.name for picture in learning_curves(told)] == ["curve-loss", "curve-test-error"]
    assert write_report(folder, dataset, model, evaluation).is_file()


def test_coupling_maps_lie_as_the_grid_lies() -> None:
    dataset = some_data(tuple("01"), (1, 14, 16))
    model = capsnet(dataset)
    trace = model.trace(torch.rand(1, 1, 14, 16))
    maps = coupling_maps(model, trace)
    rows, columns = model.config.grid
    assert maps.shape == (3, rows, columns, 2)
    couplings = trace.routing.couplings[2, 0]  # ordered by type, row, column
    at = [kind * rows * columns + 1 * columns + 2 for kind in range(4)]
    torch.testing.assert_close(maps[2, 1, 2], couplings[at].mean(dim=0))


# Style


def test_names_in_figures_are_short_drawable_and_no_mathematics() -> None:
    shown = drawable((*NASTY, "", "x" * 40))
    assert shown[1] == r"a\$b\$c"
    assert shown[2:4] == ("class 2", "class 3")
    assert shown[4:6] == ("plain", "class 5")
    assert len(shown[6]) == 12


def test_a_mosaic_keeps_every_pixel_in_its_place() -> None:
    images = torch.rand(2, 3, 1, 5, 4)
    canvas, rows, columns = mosaic(images, gap=1)
    assert canvas.shape == (11, 14)
    np.testing.assert_array_equal(canvas[6:11, 10:14], images[1, 2, 0].numpy())
    assert (canvas[5] == 1).all()
    assert rows == [2, 8]
    assert columns == [1.5, 6.5, 11.5]


def test_figures_are_reproducible_and_leave_no_global_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    keys = [key for key in mpl.rcParams if key != "backend"]  # to read that one imports pyplot
    before = [mpl.rcParams[key] for key in keys]
    dataset = some_data(tuple("01"))
    told = material(dataset, [[0.9, 0.1]] * 6, [[0], [1]] * 3)
    from capsnet.report.predictions import confusion_picture

    one, two = (confusion_picture(told, confusions(told)).png for _ in range(2))
    assert one == two
    assert [mpl.rcParams[key] for key in keys] == before
    assert png(new_figure(1, 1)) != one


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (6000, "1.7 h"), (5990, "99.8 min")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# What cannot be told


def test_a_report_without_a_finished_run_is_one_line(tmp_path: Path) -> None:
    dataset = some_data(tuple("012"))
    model = capsnet(dataset)
    folder = tmp_path / "run"

    def refused(match: str, data: Dataset = dataset, evaluation: Evaluation | None = None) -> None:
        with pytest.raises(CapsnetError, match=match) as error:
            write_report(folder, data, model, evaluation)
        assert "\n" not in str(error.value)

    refused("no run")
    Run.create(folder, model, TrainConfig(data="toy"))
    refused("not finished.*--resume")
    (folder / "result.json").write_text('{"test_error": 0.')
    refused("cannot be read as JSON")
    (folder / "result.json").write_text("[]")
    refused("does not hold a result")
    (folder / "result.json").write_text("{}")
    refused("has 3 classes", some_data(tuple("01")))
    refused("1 examples", evaluation=Evaluation(torch.rand(1, 3), torch.zeros(1, 1, dtype=torch.long)))
    (folder / "config.json").unlink()
    refused("no run")


def test_a_bare_result_is_enough_and_unknown_facts_are_called_unknown(tmp_path: Path) -> None:
    dataset = some_data(tuple("01"))
    model = Plain(PlainConfig(dataset.image_shape, 2))
    Run.create(tmp_path / "run", model, TrainConfig(data="toy"))
    (tmp_path / "run" / "result.json").write_text('{"environment": [], "errors": 99, "n": 100}')
    page = Page(write_report(tmp_path / "run", dataset, model))
    assert re.search(r"machine\s+unknown", page.text)
    assert "99 wrong of 100" in unescape(page.text), "a result that differs from the measurement is said to"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    dataset = some_data(tuple("01"))
    model = Plain(PlainConfig(dataset.image_shape, 2))
    folder = a_run(tmp_path / "run", model, dataset)
    (folder / "report").write_text("in the way")
    with pytest.raises(CapsnetError, match="cannot write"):
        write_report(folder, dataset, model)
