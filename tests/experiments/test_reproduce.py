"""Each experiment end to end on made-up data, and what a person relies on when runs take hours."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capsnet import CapsnetError
from capsnet.data import smallnorb, viewpoints
from capsnet.data.dataset import Batch, Dataset, Examples
from capsnet.data.npz import write_npz
from capsnet.data.toys.rendering import AZIMUTHS, ELEVATIONS, LIGHTINGS
from capsnet.experiments import EXPERIMENTS, Record, reproduce, trainings
from capsnet.experiments.figures import on_the_way
from capsnet.experiments.page import write_results
from capsnet.experiments.recipe import Margin, Trained, Variant
from capsnet.experiments.recipes.dimensions import readings, strongest
from capsnet.experiments.recipes.multimnist import digit_errors, errors_by_overlap
from capsnet.experiments.recipes.routing_iterations import slope
from capsnet.experiments.recipes.separation import like_answers
from capsnet.experiments.recipes.viewpoint import THINNED, split
from capsnet.experiments.record import ON_THE_WAY, Answers, PackedArray, read_records, record_path
from capsnet.experiments.running import measured
from capsnet.experiments.scales import controls
from capsnet.experiments.trainings import StoppedExperiment, prepared, train_variant, with_options
from capsnet.explain import MEASURES
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.models import CapsNetConfig, CNNConfig
from capsnet.models.cnn import Stage
from capsnet.training.config import Stop, TrainConfig
from capsnet.training.loop import Progress, Silent
from made_up_data import views, write_idx
from stripes import StopAt

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys that need no rendering."""
    toys = views(np.random.RandomState(1), 1)
    monkeypatch.setattr(viewpoints, "rendered_views", lambda *_, **__: (toys, toys, "made up"))
    split.cache_clear()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Results and runs that the tests share, as the experiments share their trainings."""
    base = tmp_path_factory.mktemp("reproduce")
    return base / "results", base / "runs"


class Seen:
    """A watch that remembers, and may interfere."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or Silent()
        self.trained: list[str] = []
        self.left: list[str] = []

    @contextmanager
    def training(self, run: str, number: int, of: int) -> Iterator[Progress]:
        self.trained.append(run)
        yield self.progress

    def finished(self, record: Record) -> None: ...

    def skipped(self, run: str) -> None:
        self.left.append(run)


@pytest.mark.quick
def test_all_experiments_are_complete() -> None:
    assert {experiment.number for experiment in EXPERIMENTS.values()} == set(range(1, 14))
    for name, experiment in EXPERIMENTS.items():
        about = experiment.as_dict()
        assert about["name"] == name
        assert all(about[key] for key in ("title", "source", "protocol"))
        assert {"quick", "full"} <= about["cost"].keys() & about["deviations"].keys() & about["seeds"].keys()
        for scale in ("smoke", "quick", "full"):
            variants = experiment.variants(scale)
            names = [variant.name for variant in variants]
            assert len(set(names)) == len(names)
            alone = name == "routing-iterations" or not experiment.claims
            assert any(variant.control for variant in variants) or alone
            if scale != "smoke":
                assert {c for claim in experiment.claims for c in (claim.ours, claim.against)} <= set(names)
                assert {published for m in experiment.measures for published in m.published} <= set(names)
        keys = {measure.key: measure.better for measure in experiment.measures}
        assert all(keys[claim.measure] for claim in experiment.claims)
        margins: dict[str, set[float]] = {}
        for claim in experiment.claims:
            assert claim.margin.why
            assert not claim.margin.why.endswith("."), "the page ends the sentence"
            margins.setdefault(claim.measure, set()).add(claim.margin.size)
        assert all(len(sizes) == 1 for sizes in margins.values()) or name in ("data-efficiency", "routings")


@pytest.mark.quick
@pytest.mark.parametrize("size", [0.0, -0.01, float("nan"), float("inf")])
def test_a_margin_that_decides_nothing_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match="finite and above 0"):
        Margin(size, "why")


def test_full_scale_is_the_published_network_beside_the_published_baselines() -> None:
    table1 = {variant.name: variant for variant in EXPERIMENTS["table1"].variants("full")}
    sizes = {name: variant.model.parameter_count() for name, variant in table1.items()}
    assert sizes["r3-reconstruction"] == 8_215_568
    assert sizes["r1-no-reconstruction"] == 6_804_224
    assert sizes["cnn-baseline"] == 35_445_522
    assert table1["r3-reconstruction"].training.schedule == "paper"
    assert table1["r3-reconstruction"].training.steps == 300_000
    norb = {scale: EXPERIMENTS["smallnorb"].variants(scale)[0] for scale in ("smoke", "quick", "full")}
    found = {scale: (one.training.rotation, one.model.standardize) for scale, one in norb.items()}
    assert found == {"smoke": (0, False), "quick": (15, True), "full": (0, False)}
    overlapping = {variant.name: variant for variant in EXPERIMENTS["multimnist"].variants("full")}
    assert overlapping["cnn-baseline"].model.parameter_count() == 24_563_978
    for experiment in ("multimnist", "affine", "smallnorb", "svhn"):
        variants = {variant.name: variant for variant in EXPERIMENTS[experiment].variants("quick")}
        assert variants["cnn-max-pool"].model.parameter_count() == pytest.approx(
            variants["r3"].model.parameter_count(), rel=0.01
        )
        assert len({replace(variant.training, seed=0) for variant in variants.values()}) == 1


SOME_VIEWPOINTS = ("elevation-r3", "azimuth-cnn-max-pool")


def run_small(name: str, data_dir: Path, folders: tuple[Path, Path]) -> list[Record]:
    out, work = folders
    chosen = SOME_VIEWPOINTS if name.startswith("viewpoint") else ()
    return reproduce(
        name, scale="smoke", out=out, work=work, device="cpu", data_dir=data_dir, variants=chosen
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_from_data_to_record(
    name: str, data_dir: Path, folders: tuple[Path, Path]
) -> None:
    out, _ = folders
    chosen = SOME_VIEWPOINTS if name.startswith("viewpoint") else ()
    records = run_small(name, data_dir, folders)
    experiment = EXPERIMENTS[name]
    variants = {variant.name: variant for variant in experiment.variants("smoke")}
    assert len(records) == len(chosen or variants) * experiment.seeds["smoke"]
    for record in records:
        path = record_path(out, name, record.variant, "smoke", record.seed)
        assert Record.read(path) == record
        assert record.parameters == variants[record.variant].model.parameter_count()
        assert record.multiply_adds > 0
        assert record.steps == 2
        assert record.environment["versions"]["torch"] == torch.__version__
        for test in record.tests.values():
            assert int(test.wrong().sum()) == test.errors
        toys = {name: test.group_numbers() for name, test in record.tests.items()}
        for name_of_test, numbers in toys.items():
            if not record.data.startswith(("smallnorb", "objects3d")):
                assert numbers is None
            else:
                assert set(numbers.tolist()) <= set(range(5)), "one instance of five categories"
                assert len(numbers) == record.tests[name_of_test].n
    for measure in experiment.measures:
        if measure.key != "affnist":
            assert any(record.value(measure.key) is not None for record in records), measure.key


def test_the_records_become_a_page_with_every_figure(
    data_dir: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in EXPERIMENTS:  # those that have run already are kept
        run_small(name, data_dir, folders)
    for record in read_records(folders[0]):
        recipe = {variant.name: variant for variant in EXPERIMENTS[record.experiment].variants("quick")}
        plan = record.training
        settings = with_options(recipe[record.variant], plan["steps"], plan["precision"]).settings(
            record.seed
        )
        quick = replace(record, scale="quick", settings=settings)
        quick.write(
            record_path(tmp_path / "results", record.experiment, record.variant, "quick", record.seed)
        )
    write_results(tmp_path / "results", tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results.md").read_text()
    linked = {line.rpartition("(")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    assert linked == {f"images/{path.name}" for path in (tmp_path / "docs" / "images").iterdir()}
    for name in (
        "multimnist-digits",
        "affine-severity",
        "data-efficiency",
        "dimensions-sheets",
        "equivariance",
    ):
        assert f"images/results-{name}-quick.png" in linked
    assert "The seeds of each variant as an ensemble" in page
    assert "Not shown" not in page


def test_finished_results_are_kept_and_shared_trainings_run_once(
    data_dir: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out, work = folders
    asked = {
        "scale": "smoke",
        "work": work,
        "device": "cpu",
        "data_dir": data_dir,
        "variants": ("r3-reconstruction",),
    }
    (first,) = reproduce("table1", out=out, **asked)
    seen = Seen()
    (again,) = reproduce("table1", out=out, watch=seen, **asked)
    assert again == first
    assert seen.left
    assert not seen.trained
    before = {path.name for path in work.iterdir()}
    (shared,) = reproduce("dimensions", out=tmp_path, **asked)
    assert {path.name for path in work.iterdir()} == before
    assert shared.tests["test"] == first.tests["test"]
    with pytest.raises(CapsnetError, match=r"other settings \(2 steps\).*--no-resume"):
        reproduce("table1", out=out, steps=3, **asked)
    (replaced,) = reproduce("table1", out=out, steps=3, resume=False, **asked)
    assert replaced.steps == 3
    (back,) = reproduce("table1", out=out, resume=False, **asked)
    assert back.tests == first.tests


def test_starting_anew_trains_variants_that_share_a_training_once(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Any = {
        "scale": "smoke",
        "data_dir": data_dir,
        "work": tmp_path / "runs",
        "out": tmp_path / "results",
    }
    asked["variants"] = ("capsule-drawing", "capsule-length")  # one network, two numbers
    seen: list[Path] = []
    original = trainings.train
    monkeypatch.setattr(
        trainings,
        "train",
        lambda *given, **options: seen.append(given[3].folder) or original(*given, **options),
    )
    for _ in range(2):
        reproduce("unfamiliar", resume=False, **asked)
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_a_stopped_experiment_resumes(data_dir: Path, tmp_path: Path) -> None:
    asked = {
        "scale": "smoke",
        "steps": 20,
        "device": "cpu",
        "data_dir": data_dir,
        "variants": ("r3", "cnn-same-stem"),
    }
    whole = reproduce("smallnorb", out=tmp_path / "whole", work=tmp_path / "whole-runs", **asked)
    folders = {"out": tmp_path / "results", "work": tmp_path / "runs"}
    with pytest.raises(StoppedExperiment, match="the same command goes on"):
        reproduce("smallnorb", watch=Seen(StopAt(10)), **folders, **asked)
    assert not list(folders["out"].glob("*/*.json"))
    seen = Seen()
    resumed = reproduce("smallnorb", watch=seen, **folders, **asked)
    assert len(seen.trained) == 2
    assert [record.tests for record in resumed] == [record.tests for record in whole]
    assert resumed[0].steps == 20


def test_missing_or_wrong_data_is_one_line_before_training(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    asked = {"scale": "smoke", "out": tmp_path / "out", "work": tmp_path / "work", "device": "cpu"}
    with pytest.raises(CapsnetError, match=r"smallnorb: .* is not on this machine; get the six files"):
        reproduce("smallnorb", data_dir=tmp_path / "empty", **asked)
    mnist = tmp_path / "small" / "mnist"
    mnist.mkdir(parents=True)
    for part in ("train", "t10k"):
        write_idx(mnist / f"{part}-images-idx3-ubyte.gz", np.zeros((20, 14, 14)))
        write_idx(mnist / f"{part}-labels-idx1-ubyte.gz", np.arange(20) % 10)
    with pytest.raises(CapsnetError, match=r"mnist: images of \(1, 14, 14\).*takes \(1, 28, 28\)"):
        reproduce("table1", data_dir=tmp_path / "small", **asked)
    without = {name: np.asarray(value) for name, value in vars(views(np.random.RandomState(0), 2)).items()}
    for part in ("train", "test"):
        columns = {"images": without["images"], "category": without["category"]}
        write_npz(tmp_path / "plain" / "smallnorb48" / f"{part}.npz", columns)
    with pytest.raises(CapsnetError, match=r"have no azimuth.*-info\.mat"):
        reproduce("viewpoint-smallnorb", data_dir=tmp_path / "plain", **asked)
    assert not (tmp_path / "work").exists()
    assert smallnorb.PREPARED == "smallnorb48"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "huge"}, "--scale huge: choose one of smoke, quick, full"),
        ({"seeds": 0}, "--seeds 0"),
        ({"steps": 0}, "--steps 0"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"variants": ("r9",)}, "no variant 'r9'; it has r3-reconstruction"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(CapsnetError, match=message):
        reproduce("table1", **options)
    with pytest.raises(CapsnetError, match="no experiment 'table9'; choose one of table1"):
        reproduce("table9")


def tiny_data(count: int = 96) -> Dataset:
    images = torch.zeros(count, 1, 12, 12, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        image[0, 1 + 4 * int(label) : 3 + 4 * int(label)] = 250
    examples = Examples(images, labels)
    return Dataset("tiny", examples, examples, ("a", "b", "c"), (1, 12, 12), "made up")


TINY = Variant(
    "tiny",
    "a tiny CNN",
    CNNConfig((1, 12, 12), 3, stages=(Stage(4, 3),), hidden=(8,), dropout=0.0),
    TrainConfig(data="tiny", steps=200, batch_size=16, learning_rate=0.01, shift=0, evaluate_every=0),
)


@pytest.mark.parametrize("average", [0.0, 0.1])
def test_training_stops_at_equal_accuracy_and_is_then_a_finished_run(tmp_path: Path, average: float) -> None:
    plan = replace(TINY.training, average=average)
    variant, data = replace(TINY, training=plan, stop=Stop(error=0.1, every=10)), tiny_data()
    trial = train_variant(variant, 0, data, tmp_path, device="cpu")
    result = trial.run.result()
    assert 0 < result["steps"] < 200
    assert result["steps"] % 10 == 0
    assert trial.evaluation.error <= 0.1
    looks = [line["test_error"] for line in trial.run.metrics() if "test_error" in line]
    assert len(looks) == result["steps"] / 10
    assert min(looks[:-1], default=1) > 0.1 >= looks[-1]
    assert evaluate(trial.model, data.test).error == trial.evaluation.error
    again = train_variant(variant, 0, data, tmp_path, device="cpu")
    assert again.evaluation.errors == trial.evaluation.errors
    assert len(list(tmp_path.iterdir())) == 1
    never = train_variant(replace(TINY, stop=Stop(error=-1.0, every=10)), 0, data, tmp_path, device="cpu")
    assert never.run.result()["steps"] == 200


@dataclass(frozen=True, eq=False)
class Slow(Examples):
    """Each batch takes some time; `batches` remembers how many there were."""

    seconds: float = 0.0
    batches: list[int] = field(default_factory=list)

    def batch(self, indices: torch.Tensor, uniforms: torch.Tensor | None = None) -> Batch:
        time.sleep(self.seconds)
        self.batches.append(len(indices))
        return super().batch(indices, uniforms)


@pytest.mark.parametrize("stop", [Stop(error=0.1, every=20), None])
def test_seconds_are_those_of_the_training_steps_of_all_sessions(tmp_path: Path, stop: Stop | None) -> None:
    whole = tiny_data()
    train, test = (
        Slow(part.images, part.labels, seconds=s) for part, s in ((whole.train, 0.003), (whole.test, 0.2))
    )
    asked = (replace(TINY, stop=stop), 0, replace(whole, train=train, test=test), tmp_path)
    began = time.perf_counter()
    with pytest.raises(StoppedExperiment):
        train_variant(*asked, device="cpu", progress=StopAt(10))
    result = train_variant(*asked, device="cpu").run.result()
    elapsed = time.perf_counter() - began
    assert (result["steps"] < 200) == (stop is not None)
    assert test.batches
    assert 0.003 * result["steps"] <= result["seconds"] <= elapsed - 0.2 * len(test.batches)


@pytest.mark.parametrize(("every", "looks"), [(0, []), (10, [60, 120, 180, 200])])
def test_errors_during_training_are_kept_and_drawn(tmp_path: Path, every: int, looks: list[int]) -> None:
    variant = replace(TINY, training=replace(TINY.training, evaluate_every=every))
    trial = train_variant(variant, 0, tiny_data(), tmp_path, device="cpu")
    done = (trial.model, trial.evaluation, trial.run)
    record = measured(EXPERIMENTS["svhn"], Trained(variant, 0, "quick", None, tiny_data(), *done))
    assert variant.settings(0) == TINY.settings(0), "looking changes no training"
    assert (ON_THE_WAY in record.arrays) == bool(looks)
    never_wrong = PackedArray.of(np.array([[60, 0.0], [120, 0.0]]))
    for arrays in ({}, {ON_THE_WAY: never_wrong}):
        assert not on_the_way("svhn", [replace(record, arrays=arrays)])
    if looks:
        steps, errors = record.array(ON_THE_WAY).T
        assert steps.tolist() == looks
        assert errors[-1] == trial.evaluation.error
        falling = PackedArray.of(np.array([[60, 0.5], [120, 0.1], [200, 0.0]]))
        (picture,) = on_the_way("svhn", [replace(record, arrays={ON_THE_WAY: falling})])
        assert picture.name == "svhn-steps"


def test_all_models_of_a_seed_get_the_same_few_examples() -> None:
    few = replace(TINY, per_class=5)
    first, second = (prepared(few, 0, tiny_data(), "quick").train for _ in range(2))
    other = prepared(few, 1, tiny_data(), "quick").train
    assert len(first) == 15
    assert torch.equal(first.images, second.images)
    assert first.labels.bincount().tolist() == [5, 5, 5]
    assert len(prepared(TINY, 0, tiny_data(), "quick").train) == 96
    assert len(other) == 15


def test_different_trainings_have_different_settings() -> None:
    assert TINY.settings(0) == replace(TINY, name="other", about="the same").settings(0)
    others = (
        with_options(TINY, 100, None),
        with_options(TINY, None, "bf16"),
        replace(TINY, per_class=5),
        replace(TINY, stop=Stop(0.1)),
        replace(TINY, model=replace(TINY.model, hidden=(9,))),
        replace(TINY, pixels="0123456789ab"),
        replace(TINY, model=replace(TINY.model, standardize=True)),
    )
    assert len({TINY.settings(0), TINY.settings(1), *(variant.settings(0) for variant in others)}) == 9


def test_a_variant_standardises_if_it_or_its_data_set_asks_for_it() -> None:
    data = tiny_data()
    wants = replace(TINY, model=replace(TINY.model, standardize=True))
    asks = replace(data, standardize=True)
    found = [variant.build(one).config.standardize for variant in (TINY, wants) for one in (data, asks)]
    assert found == [False, True, True, True]
    like = CapsNetConfig(standardize=True)
    assert all(control.model.standardize for control in controls(like, TINY.training))


def test_shorter_trainings_use_the_one_cycle_schedule() -> None:
    published = EXPERIMENTS["table1"].variants("full")[0]
    shorter = with_options(published, 10_000, "bf16").training
    assert (shorter.steps, shorter.schedule, shorter.precision) == (10_000, "one-cycle", "bf16")
    assert with_options(published, None, None) == published
    assert with_options(published, 300_000, None).training.schedule == "paper"


def test_digits_found_and_errors_by_overlap_on_hand_worked_pairs() -> None:
    scores = torch.tensor(
        [[0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.1, 0.9, 0.8, 0.0], [0.1, 0.0, 0.8, 0.9]]
    )
    labels = torch.tensor([[1, 0], [0, 1], [2, 1], [0, 1]])
    evaluation = Evaluation(scores, labels)
    assert evaluation.wrong.tolist() == [False, True, False, True]  # both digits, in any order
    assert digit_errors(evaluation) == pytest.approx(3 / 8)
    table = errors_by_overlap(evaluation, torch.tensor([0.1, 0.45, 0.95, 1.0]))
    assert table.tolist() == [[1, 1, 0, 0, 0, 0, 2], [0, 1, 0, 0, 0, 0, 1]]


@pytest.mark.quick
def test_found_digits_keep_their_colour() -> None:
    labels = np.array([[7, 0], [2, 8], [4, 1], [6, 4], [5, 3]], np.uint8)
    answers = np.array([[0, 7], [2, 8], [1, 6], [6, 9], [9, 8]], np.uint8)
    assert like_answers(labels, answers).tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [0, 1]]


def test_a_record_keeps_every_answer_and_array(tmp_path: Path) -> None:
    wrong = torch.rand(101, generator=torch.Generator().manual_seed(0)) < 0.3
    scores = torch.tensor([[0.0, 1.0]]).repeat(101, 1)
    tested = Answers.of(Evaluation(scores, (~wrong).long()[:, None]))
    assert torch.equal(tested.wrong(), wrong)
    assert tested.errors == int(wrong.sum())
    for array in (
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 4), np.uint8),
        np.array([1.5], np.float16),
    ):
        packed = PackedArray.of(array)
        assert np.array_equal(PackedArray(**asdict(packed)).array(), array)
        assert packed.array().dtype == array.dtype
    (tmp_path / "broken.json").write_text('{"experiment": "table1"}')
    with pytest.raises(CapsnetError, match="is not a result of capsnet reproduce"):
        Record.read(tmp_path / "broken.json")


def test_the_slope_of_the_logits_changes_is_that_of_a_line() -> None:
    assert slope(0.02 * 10 ** (-0.3 * np.arange(9.0))) == pytest.approx(-0.3)
    assert slope(np.zeros(9)) == pytest.approx(0)  # one child and one parent: nothing ever changes


def test_noise_correlates_with_no_measure() -> None:
    """The best of sixteen numbers is chosen on some digits and judged on others."""
    chance = torch.Generator().manual_seed(0)
    images = torch.zeros(400, 1, 28, 28)
    widths = torch.randint(2, 20, (400,), generator=chance)
    for image, width in zip(images, widths, strict=True):
        image[0, 10:14, 4 : 4 + int(width)] = 1
    labels = torch.arange(400) % 2
    noise = torch.randn(400, 16, generator=chance)
    knows = torch.cat([noise[:, :15], widths[:, None] + noise[:, :1]], dim=1)
    width = MEASURES.index("width")
    for features, low, high in ((noise, 0.0, 0.12), (knows, 0.95, 1.0)):
        halves = np.array([readings(features, images, labels, half) for half in (0, 1)])
        assert low <= strongest(halves)[width] <= high
    everything = np.abs(readings(noise, images, labels)[:, :, width]).max(axis=1)
    assert everything.mean() > 0.12  # which is what choosing and judging on the same digits would have said


def test_the_tested_views_of_a_toy_have_all_angles_and_lightings() -> None:
    views = torch.cartesian_prod(
        *(torch.arange(n) for n in (100, len(AZIMUTHS), len(ELEVATIONS), len(LIGHTINGS)))
    )
    for familiar in (views[views[:, 1] < 6], views[views[:, 2] < 3]):
        tested = familiar[::THINNED]
        assert [len(column.unique()) for column in tested.T] == [
            len(column.unique()) for column in familiar.T
        ]
        assert len(tested[:, [0, 3]].unique(dim=0)) == 100 * len(LIGHTINGS), "each toy in each lighting"
