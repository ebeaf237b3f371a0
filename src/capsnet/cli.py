"""The commands. Each is a thin call into the library; heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsnet.console import TrainingBar, err, fail, out
from capsnet.errors import CapsnetError

if TYPE_CHECKING:
    from capsnet.data import Dataset
    from capsnet.evaluation import Evaluation
    from capsnet.models import Classifier
    from capsnet.runs import Run

app = typer.Typer(
    name="capsnet",
    help="Capsule networks: train them, measure them against fair controls, and see how they work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class Schedule(StrEnum):
    """Learning-rate schedules."""

    one_cycle = "one-cycle"
    paper = "paper"
    constant = "constant"


class Reading(StrEnum):
    """The paper's text, or the authors' code where it differs."""

    paper = "paper"
    official = "official"


class Scale(StrEnum):
    """How large an experiment is run."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


class Precision(StrEnum):
    """Arithmetic of the training."""

    fp32 = "fp32"
    bf16 = "bf16"


DataOption = Annotated[
    str,
    typer.Option(
        help="A data set by name (see `capsnet data`), or folder:PATH with one directory per class."
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(help="Where data files lie: DIR or DIR/NAME. Else $CAPSNET_DATA, else a download."),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(min=1, help="folder:PATH only: resize images to this size.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
FastOption = Annotated[
    bool, typer.Option("--fast/--no-fast", help="--no-fast: the plain reference paths everywhere.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A run folder, a saved model, or a Hub name.")
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        import capsnet

        out.print(f"capsnet {capsnet.__version__}")
        raise typer.Exit


@app.command()
def train(
    context: typer.Context,
    data: DataOption = "mnist5k",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="The run's folder. Default: runs/DATA-1, -2, …")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run from its last save.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training examples.")] = 10,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps instead.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples per step, over all processes.")] = 128,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", "--lr", help="Peak of the schedule.")
    ] = 0.001,
    schedule: Annotated[Schedule, typer.Option(help="paper: × 0.96 every 2,000 steps.")] = Schedule.one_cycle,
    seed: Annotated[int, typer.Option(help="Of the weights, the order, the shifts.")] = 0,
    shift: Annotated[int, typer.Option(help="Random shifts of up to this many pixels.")] = 2,
    iterations: Annotated[int, typer.Option("--iterations", "-r", help="Routing iterations.")] = 3,
    reconstruction: Annotated[
        bool, typer.Option("--reconstruction/--no-reconstruction", help="Train the decoder too.")
    ] = True,
    reading: Annotated[Reading, typer.Option(help="The paper's text, or the authors' code.")] = Reading.paper,
    stem_channels: Annotated[int, typer.Option(help="Channels of Conv1; fewer is faster.")] = 256,
    primary_types: Annotated[int, typer.Option(help="Types of primary capsules.")] = 32,
    precision: Annotated[Precision, typer.Option(help="bf16 is for GPUs.")] = Precision.fp32,
    device: DeviceOption = "auto",
    fast: FastOption = True,
    evaluate_every: Annotated[
        int, typer.Option(help="Epochs between looks at the test set; 0: only at the end.")
    ] = 1,
    save_seconds: Annotated[float, typer.Option(help="Time between saves of the resumable state.")] = 60.0,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the report at the end.")] = True,
) -> None:
    """Train a CapsNet: the published network on digits by default. Leaves a run folder behind."""
    from capsnet.config import TrainConfig
    from capsnet.models import build_model
    from capsnet.runs import Run
    from capsnet.stepping import is_main_process, pick_device
    from capsnet.training import train as run_training

    pick_device(device)  # refuses what is not there before anything is loaded or written

    with ExitStack() as stack:
        if not fast:
            stack.enter_context(_plain_paths())
        if resume is not None:
            _refuse_other_options(context, {"resume", "data_dir", "device", "fast", "report"})
            run = _hold(Run.reopen(resume), stack)
            if (result := run.result()) is not None:
                out.print(f"{resume} is finished: test error {result['test_error']:.2%}")
                return
            config = run.training()
            dataset = _load_data(config.data, data_dir, config.image_size)
            model = build_model(resume, config.seed)
            _check_fit(model, dataset)
        else:
            config = TrainConfig(
                data=_absolute(data),
                image_size=image_size,
                epochs=epochs,
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                schedule=schedule.value,
                shift=shift,
                seed=seed,
                precision=precision.value,
                evaluate_every=evaluate_every,
                save_seconds=save_seconds,
            )
            dataset = _load_data(config.data, data_dir, config.image_size)
            model = _new_model(
                dataset, seed, reading, iterations, reconstruction, stem_channels, primary_types
            )
            folder = out_folder or _next_folder(data)
            creates = is_main_process()
            run = _hold(Run.create(folder, model, config, dataset.classes), stack) if creates else Run(folder)
        if is_main_process():
            size = f"{model.parameter_count():,} parameters"
            err.print(f"{model.architecture}, {size}, on {dataset.name}: {run.folder}")
        progress = stack.enter_context(TrainingBar())
        evaluation = run_training(
            model, dataset, config, run, device=device, resume=resume is not None, progress=progress
        )
        if not is_main_process():
            return
    out.print(f"test error {evaluation}\nmodel      {run.folder}")
    if report:
        _write_report(run.folder, dataset, model, evaluation)


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Default: what it was trained on.")] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a saved model's error on a test set, with its 95 % interval."""
    from capsnet.evaluation import evaluate as run_evaluation
    from capsnet.models import load_model
    from capsnet.stepping import pick_device

    loaded = load_model(model, device=pick_device(device))
    name = data or _trained_on(model)
    dataset = _load_data(name, data_dir, _side(loaded) if name.startswith("folder:") else None)
    _check_fit(loaded, dataset)
    evaluation = run_evaluation(loaded, dataset.test.to(pick_device(device)))
    if as_json:
        print(json.dumps({"data": dataset.name, **evaluation.summary()}))
    else:
        out.print(f"{dataset.name}: test error {evaluation}")


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")],
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what is in images: class and length (the probability that it is there) for each, in order."""
    from capsnet.models import load_model
    from capsnet.predicting import class_names, predict_files
    from capsnet.stepping import pick_device

    loaded = load_model(model, device=pick_device(device))
    for answer in predict_files(loaded, images, class_names(model, loaded)):
        if as_json:
            print(json.dumps(answer.as_dict()))
        else:
            out.print(f"{answer.name}\t{answer.label}\t{answer.score:.3f}", markup=False)


@app.command()
def report(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A finished run.")] = None,
    data_dir: DataDirOption = None,
    results: Annotated[
        Path | None, typer.Option(help="In place of RUN: what `capsnet reproduce` wrote; makes tables of it.")
    ] = None,
    target: Annotated[Path, typer.Option(help="With --results: the page to write.")] = Path(
        "docs/results.md"
    ),
) -> None:
    """Write a run's report again (report/index.html and figures), or the tables of experiments."""
    if (run is None) == (results is None):
        raise CapsnetError("name a RUN, or --results FOLDER, and not both")
    if results is not None:
        from capsnet.results import write_results

        write_results(results, target)
        out.print(f"results    {target}")
        return
    assert run is not None
    from capsnet.models import load_model
    from capsnet.runs import Run

    opened = Run.reopen(run)
    if opened.result() is None:
        raise CapsnetError(f"{run} is not finished; continue it with: capsnet train --resume {run}")
    model = load_model(run)
    dataset = _load_data(opened.training().data, data_dir, opened.training().image_size)
    _check_fit(model, dataset)
    _write_report(run, dataset, model)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An experiment; see --list.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    scale: Annotated[
        Scale, typer.Option(help="quick: 2 cores. full: the published network, a GPU.")
    ] = Scale.quick,
    seeds: Annotated[int | None, typer.Option(help="How many, from 0. Default: the recipe's.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps in place of the recipe's; recorded.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="bf16 is for GPUs.")] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    out_folder: Annotated[Path, typer.Option("--out", help="Where results go, one JSON a run.")] = Path(
        "results"
    ),
    work: Annotated[Path, typer.Option(help="Where trainings are kept and continued.")] = Path(
        "runs/reproduce"
    ),
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep what is finished.")] = True,
) -> None:
    """Run an experiment of the paper with its controls and seeds; go on where it was stopped."""
    from capsnet.experiments import EXPERIMENTS
    from capsnet.experiments import reproduce as run_experiment
    from capsnet.experiments.watching import Terminal

    if listed or name is None:
        for experiment in EXPERIMENTS.values():
            out.print(f"[bold]{experiment.name:20}[/] {experiment.title}\n{'':20} {experiment.source}")
        return
    run_experiment(
        name,
        watch=Terminal(),
        scale=scale.value,
        seeds=seeds,
        variants=tuple(variant or ()),
        steps=steps,
        precision=precision.value if precision else None,
        data_dir=data_dir,
        device=device,
        out=out_folder,
        work=work,
        resume=resume,
    )


@app.command()
def explore(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run or saved model. Default: the shipped one.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8721,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Watch a capsule network think: a page in the browser, served from this machine only."""
    from capsnet.explorer import serve

    serve(run, port=port, open_browser=browser)


@app.command()
def export(
    model: ModelArgument,
    onnx: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="Where to write it.")],
) -> None:
    """Write a model as ONNX (images in, class scores out) and check that it gives the same numbers."""
    from capsnet.export import export_onnx
    from capsnet.models import load_model

    difference = export_onnx(load_model(model), onnx)
    out.print(f"{onnx}: scores differ from PyTorch's by at most {difference:.1e}")


@app.command()
def bench(
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each row.")] = 10.0,
    grow: Annotated[bool, typer.Option("--sweep", help="Also: children × parents × iterations.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time every fast path against the plain PyTorch reference, in turn, in this one run."""
    from capsnet.benchmark import CASES, describe, measure, sweep
    from capsnet.benchmark.table import print_table, write_csv
    from capsnet.stepping import pick_device

    where = pick_device(device)
    results = [measure(case, where, seconds) for case in CASES]
    if grow:
        results += [result for _, result in sweep(where)]
    rows = describe(results)
    if csv is not None:
        write_csv(csv, rows)
    if as_json:
        print(json.dumps(rows))
    else:
        print_table(results, rows[0])


@app.command()
def data() -> None:
    """List the data sets."""
    from capsnet.data import names

    for name, about in names().items():
        out.print(f"[bold]{name:20}[/] {about}")
    out.print(f"[bold]{'folder:PATH':20}[/] your own images, one directory per class")


def main() -> None:
    """Run the command line; turn what a user can put right into one line and exit code 2."""
    # Large buffers on huge pages: fresh memory costs a third as much. Read when PyTorch is imported.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        app()
    except CapsnetError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except Exception as error:
        training = sys.modules.get("capsnet.training")
        if training is not None and isinstance(error, training.Interrupted):
            err.print(str(error))
            sys.exit(128 + error.number)
        raise


def _load_data(name: str, data_dir: Path | None, image_size: int | None) -> Dataset:
    from capsnet.data import load

    return load(name, data_dir, image_size=image_size)


def _side(model: Classifier) -> int | None:
    """What --image-size must have been for a folder: its side if the images are square."""
    _, height, width = model.config.image_shape
    return height if height == width else None


def _new_model(
    dataset: Dataset,
    seed: int,
    reading: Reading,
    iterations: int,
    reconstruction: bool,
    stem_channels: int,
    primary_types: int,
) -> Classifier:
    import torch

    from capsnet.models import CapsNet, CapsNetConfig

    build = CapsNetConfig.official if reading is Reading.official else CapsNetConfig
    options: dict[str, Any] = {} if reconstruction else {"decoder": None}
    config = build(
        image_shape=dataset.image_shape,
        classes=len(dataset.classes),
        stem_channels=stem_channels,
        primary_types=primary_types,
        iterations=iterations,
        **options,
    )
    torch.manual_seed(seed)
    return CapsNet(config)


def _check_fit(model: Classifier, dataset: Dataset) -> None:
    if model.config.classes != len(dataset.classes):
        raise CapsnetError(
            f"the model knows {model.config.classes} classes and {dataset.name} has {len(dataset.classes)}; "
            "choose the --data it was trained on"
        )
    if tuple(model.config.image_shape) != tuple(dataset.image_shape):
        raise CapsnetError(
            f"the model takes images of {tuple(model.config.image_shape)} (channels, height, width) and "
            f"{dataset.name} has {tuple(dataset.image_shape)}; choose the --data it was trained on"
        )


def _trained_on(model: str) -> str:
    from capsnet.models.base import find_pretrained, read_model_config

    training = read_model_config(find_pretrained(model)).get("training", {})
    if not isinstance(training, dict) or not isinstance(training.get("data"), str):
        raise CapsnetError(f"{model} does not say what it was trained on; name a test set with --data")
    name: str = training["data"]
    return name


def _write_report(
    folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None = None
) -> None:
    from capsnet.report import write_report

    out.print(f"report     {write_report(folder, dataset, model, evaluation)}")


def _hold(run: Run, stack: ExitStack) -> Run:
    """One process holds a run's folder; the others of the same training only read in it."""
    from capsnet.stepping import is_main_process

    return stack.enter_context(run) if is_main_process() else run


def _absolute(data: str) -> str:
    """A folder named relative to where the command was given must be found from elsewhere when resuming."""
    kind, colon, path = data.partition(":")
    return f"folder:{Path(path).resolve()}" if kind == "folder" and colon else data


def _next_folder(data: str) -> Path:
    stem = Path(data.partition(":")[2]).name if data.startswith("folder:") else data
    number = 1
    while (folder := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return folder


def _plain_paths() -> Any:
    from capsnet.fast import disabled

    return disabled()


def _refuse_other_options(context: typer.Context, allowed: set[str]) -> None:
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            option = "out" if name == "out_folder" else name.replace("_", "-")
            raise CapsnetError(f"--{option} cannot be changed when resuming; a run goes on as it was started")


if __name__ == "__main__":
    main()
