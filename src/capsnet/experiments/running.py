"""`capsnet reproduce`: all runs of an experiment, one record each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import numpy as np

from capsnet._support.errors import CapsnetError
from capsnet.data import Dataset
from capsnet.distributed import pick_device
from capsnet.experiments.parallel import Task, Workers, each
from capsnet.experiments.progress import Unwatched, Watch
from capsnet.experiments.recipe import SCALES, Experiment, Scale, Trained, Variant
from capsnet.experiments.record import ON_THE_WAY, Answers, PackedArray, Record, record_path
from capsnet.experiments.trainings import forget, prepared, train_variant, with_options
from capsnet.models.cost import cost_of
from capsnet.training.config import Precision
from capsnet.training.loop import Progress


@dataclass(frozen=True)
class Options:
    """The choices about an experiment's runs."""

    scale: Scale = "quick"
    seeds: int | None = None
    """How many, from 0; None: the recipe's."""
    out: Path = Path("results")
    work: Path = Path("runs/reproduce")
    """Where trainings are kept: a stopped one goes on from here, and experiments share them."""
    device: str = "auto"
    data_dir: Path | None = None
    variants: Sequence[str] = ()
    """Only these; empty: all."""
    steps: int | None = None
    """In place of the recipe's; recorded with the result."""
    precision: Precision | None = None
    resume: bool = True
    """Leave finished results alone, and go on with stopped trainings. False: train all again."""
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise CapsnetError(f"--scale {self.scale}: choose one of {', '.join(SCALES)}")
        if self.seeds is not None and self.seeds < 1:
            raise CapsnetError(f"--seeds {self.seeds}: at least 1")
        if self.steps is not None and self.steps < 1:
            raise CapsnetError(f"--steps {self.steps}: at least 1")
        if self.precision is not None and self.precision not in get_args(Precision):
            raise CapsnetError(
                f"--precision {self.precision}: choose one of {', '.join(get_args(Precision))}"
            )


def run_experiment(experiment: Experiment, options: Options, watch: Watch | None = None) -> list[Record]:
    """Train and measure every variant with every seed; write each record at once.

    Seeds are the outer loop: whenever it is stopped, the variants have had the same seeds.

    Raises:
        CapsnetError: unknown variants, data missing or damaged, no such device, a results folder that cannot
            be written or that holds results of other settings. All of that before any training starts.
        StoppedExperiment: by a signal. Calling again goes on.
    """
    watch = watch or Unwatched()
    seeds = range(options.seeds or experiment.seeds[options.scale])
    variants = chosen_variants(experiment, options)
    jobs = [Job(variant, seed) for seed in seeds for variant in variants]
    pick_device(options.device)
    found = {job.key: existing(experiment, job.variant, job.seed, options) for job in jobs}
    for job in jobs:
        if found[job.key] is not None:
            watch.skipped(job.label(experiment))
    new = run_jobs(experiment, [job for job in jobs if found[job.key] is None], options, watch)
    return [found[job.key] or new[job.key] for job in jobs]


@dataclass(frozen=True)
class Job:
    """A training of an experiment."""

    variant: Variant
    seed: int
    latest: float | None = None
    """It is left out if it cannot begin before this time (of `parallel.now`)."""

    @property
    def key(self) -> tuple[str, int]:
        """Return what identifies the job."""
        return self.variant.name, self.seed

    def label(self, experiment: Experiment) -> str:
        """Return the job's name for progress reports."""
        return f"{experiment.name} {self.variant.name}, seed {self.seed}"


def run_jobs(
    experiment: Experiment, jobs: Sequence[Job], options: Options, watch: Watch
) -> dict[tuple[str, int], Record]:
    """Train and measure jobs; write each record at once.

    Returns:
        The records by the jobs' keys, without those of jobs that were left out.

    Raises:
        CapsnetError, StoppedExperiment: as `run_experiment`.
    """
    check_writable(options.out)
    if not options.workers.is_this_process:  # others may work in another folder
        folders = {name: path.resolve() for name in ("work", "data_dir") if (path := getattr(options, name))}
        options = replace(options, **folders)
    found = {}
    load = _Loader(experiment, options.data_dir)
    for job in jobs:
        prepared(job.variant, job.seed, load(job.variant, job.seed), options.scale)
    if not options.resume:
        forget(((job.variant, job.seed) for job in jobs), options.work)
    train = _Training(experiment, options, load)
    tasks = [Task(job.label(experiment), job, job.latest) for job in jobs]
    for job, record in each(train, tasks, options.workers, options.work, watch, options.resume):
        record.write(record_path(options.out, experiment.name, job.variant.name, options.scale, job.seed))
        watch.finished(record)
        found[job.key] = record
    return found


@dataclass(frozen=True)
class _Training:
    """Train and measure a job, in this process or in another."""

    experiment: Experiment
    options: Options
    load: _Loader

    def __call__(self, job: Job, progress: Progress | None) -> Record:
        variant, seed, options = job.variant, job.seed, self.options
        dataset = prepared(variant, seed, self.load(variant, seed), options.scale)
        trial = train_variant(
            variant,
            seed,
            dataset,
            options.work,
            device=options.device,
            resume=options.resume,
            progress=progress,
            wait=progress is None,
        )
        done = (trial.model, trial.evaluation, trial.run)
        return measured(
            self.experiment, Trained(variant, seed, options.scale, options.data_dir, dataset, *done)
        )


def measured(experiment: Experiment, trained: Trained) -> Record:
    """Measure a trained model and return the run's record."""
    findings = experiment.measure(trained)
    variant, result = trained.variant, trained.run.result()
    assert result is not None
    cost = cost_of(trained.model)
    looks = [(line["step"], line["test_error"]) for line in trained.run.metrics() if "test_error" in line]
    on_the_way = {ON_THE_WAY: np.array(looks)} if len(looks) > 1 else {}  # else the last step alone
    return Record(
        experiment=experiment.name,
        variant=variant.name,
        scale=trained.scale,
        seed=trained.seed,
        settings=variant.settings(trained.seed),
        about=variant.about,
        control=variant.control,
        data=trained.dataset.name,
        provenance=trained.dataset.provenance,
        architecture=trained.model.architecture,
        model=_plain(asdict(variant.model)),
        training=_plain(asdict(trained.run.training())),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        steps=result["steps"],
        seconds=result["seconds"],
        device=result["device"],
        tests={
            name: Answers.of(evaluation, findings.groups.get(name))
            for name, evaluation in findings.tests.items()
        },
        metrics={name: value if _is_number(value) else None for name, value in findings.metrics.items()},
        arrays={name: PackedArray.of(array) for name, array in {**findings.arrays, **on_the_way}.items()},
        code=code_fingerprint(),
        environment=result["environment"],
        rate_errors={rate: error if isfinite(error) else None for rate, error in variant.rate_errors.items()},
    )


def chosen_variants(experiment: Experiment, options: Options) -> list[Variant]:
    """Return the chosen variants, with the chosen steps and precision.

    Raises:
        CapsnetError: there is no such variant.
    """
    there = {variant.name: variant for variant in experiment.variants(options.scale)}
    for name in options.variants:
        if name not in there:
            raise CapsnetError(f"{experiment.name} has no variant {name!r}; it has {', '.join(there)}")
    names = options.variants or list(there)
    return [with_options(there[name], options.steps, options.precision) for name in names]


def code_fingerprint() -> str:
    """Return 12 digits of the SHA-256 of the package's Python files."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class _Loader:
    """Load each data set once, also in another process."""

    def __init__(self, experiment: Experiment, data_dir: Path | None) -> None:
        self.experiment, self.data_dir = experiment, data_dir
        self.loaded: dict[str, Dataset] = {}
        self.name = uuid4().hex

    def __call__(self, variant: Variant, seed: int) -> Dataset:
        name = variant.training.data
        if name not in self.loaded:
            self.loaded[name] = self.experiment.load(variant, seed, self.data_dir)
        return self.loaded[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return _loader_here, (self.name, self.experiment, self.data_dir)


#: In a process that trains for another one: its loader, by name.
_loaders: dict[str, _Loader] = {}


def _loader_here(name: str, experiment: Experiment, data_dir: Path | None) -> _Loader:
    if name not in _loaders:
        _loaders.clear()
        _loaders[name] = _Loader(experiment, data_dir)
    return _loaders[name]


def existing(experiment: Experiment, variant: Variant, seed: int, options: Options) -> Record | None:
    """Return the record of a run, if it counts; None without one.

    Raises:
        CapsnetError: there is one, and it is of other settings.
    """
    path = record_path(options.out, experiment.name, variant.name, options.scale, seed)
    if not options.resume or not path.exists():
        return None
    record = Record.read(path)
    refuse_other_settings(path, record, variant)
    return record


def refuse_other_settings(path: Path, record: Record, variant: Variant) -> None:
    """Refuse a record of other settings than the variant's.

    Raises:
        CapsnetError: the settings differ.
    """
    if record.settings != variant.settings(record.seed):
        raise CapsnetError(
            f"{path} holds the result of other settings ({record.steps:,} steps); choose another --out, or "
            "replace it with --no-resume"
        )


def check_writable(out: Path) -> None:
    """Make a folder for results, or refuse it.

    Raises:
        CapsnetError: nothing can be written there.
    """
    probe = out / ".writable"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CapsnetError(f"cannot write in {out}: {error.strerror}; choose another --out") from error


def _is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return tuples as lists: a record is the same before and after it is written."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
