"""`capsnet reproduce`: all runs of an experiment, one record each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from capsnet._support.errors import CapsnetError
from capsnet.data import Dataset
from capsnet.distributed import pick_device
from capsnet.experiments.progress import Unwatched, Watch
from capsnet.experiments.recipe import SCALES, Experiment, Scale, Trained, Variant
from capsnet.experiments.record import Answers, PackedArray, Record, record_path
from capsnet.experiments.trainings import prepared, train_variant, with_options
from capsnet.models.cost import cost_of
from capsnet.training.config import Precision


@dataclass(frozen=True)
class Options:
    """What a person may choose about an experiment's runs."""

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
    """Train and measure every variant with every seed; write each record as soon as it is there.

    Seeds are the outer loop: whenever it is stopped, the variants have had the same seeds.

    Raises:
        CapsnetError: unknown variants, data missing or damaged, no such device, a results folder that cannot
            be written or that holds results of other settings. All of that before any training starts.
        StoppedExperiment: by a signal. Calling again goes on.
    """
    watch = watch or Unwatched()
    seeds = range(options.seeds or experiment.seeds[options.scale])
    variants = chosen_variants(experiment, options)
    todo = [(variant, seed) for seed in seeds for variant in variants]
    pick_device(options.device)
    found = {(variant.name, seed): _existing(experiment, variant, seed, options) for variant, seed in todo}
    check_writable(options.out)
    loaded = _Loader(experiment, options)
    for variant, seed in todo:
        if found[variant.name, seed] is None:
            prepared(variant, seed, loaded(variant, seed), options.scale)

    records = []
    for number, (variant, seed) in enumerate(todo, start=1):
        label = f"{experiment.name} {variant.name}, seed {seed}"
        record = found[variant.name, seed]
        if record is not None:
            watch.skipped(label)
        else:
            dataset = prepared(variant, seed, loaded(variant, seed), options.scale)
            with watch.training(label, number, len(todo)) as progress:
                trial = train_variant(
                    variant,
                    seed,
                    dataset,
                    options.work,
                    device=options.device,
                    resume=options.resume,
                    progress=progress,
                )
            record = measured(
                experiment,
                Trained(
                    variant,
                    seed,
                    options.scale,
                    options.data_dir,
                    dataset,
                    trial.model,
                    trial.evaluation,
                    trial.run,
                ),
            )
            record.write(record_path(options.out, experiment.name, variant.name, options.scale, seed))
            watch.finished(record)
        records.append(record)
    return records


def measured(experiment: Experiment, trained: Trained) -> Record:
    """Measure a trained model and say all there is to say about its run."""
    findings = experiment.measure(trained)
    variant, result = trained.variant, trained.run.result()
    assert result is not None
    cost = cost_of(trained.model)
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
        arrays={name: PackedArray.of(array) for name, array in findings.arrays.items()},
        code=code_fingerprint(),
        environment=result["environment"],
    )


def chosen_variants(experiment: Experiment, options: Options) -> list[Variant]:
    """The variants that were asked for, with steps and precision as asked.

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
    """SHA-256 over the package's Python files, first 12 digits: tells versions apart where there is no commit."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class _Loader:
    """Loads each data set once."""

    def __init__(self, experiment: Experiment, options: Options) -> None:
        self.experiment, self.options = experiment, options
        self.loaded: dict[str, Dataset] = {}

    def __call__(self, variant: Variant, seed: int) -> Dataset:
        name = variant.training.data
        if name not in self.loaded:
            self.loaded[name] = self.experiment.load(variant, seed, self.options.data_dir)
        return self.loaded[name]


def _existing(experiment: Experiment, variant: Variant, seed: int, options: Options) -> Record | None:
    path = record_path(options.out, experiment.name, variant.name, options.scale, seed)
    if not options.resume or not path.exists():
        return None
    record = Record.read(path)
    if record.settings != variant.settings(seed):
        raise CapsnetError(
            f"{path} holds the result of other settings ({record.steps:,} steps); choose another --out, or "
            "replace it with --no-resume"
        )
    return record


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
    """Tuples as lists, as JSON has them: a record is the same before and after it is written."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
