"""`capsnet train`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsnet._support.errors import CapsnetError, shown
from capsnet.cli.app import app
from capsnet.cli.console import TrainingBar, err, out
from capsnet.cli.loading import (
    MODEL_FIELDS,
    SMALLEST_SIDE,
    absolute,
    check_fit,
    check_names,
    check_shift,
    check_side,
    imbalance,
    load_data,
    options_by_name,
    write_the_report,
)
from capsnet.cli.options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    FastOption,
    ImageSizeOption,
    OnNonfinite,
    Precision,
    Reading,
    Schedule,
)
from capsnet.cli.settings import SetOption, is_given, parse_settings
from capsnet.cli.tracking import check_trackers, tracked

if TYPE_CHECKING:
    from capsnet.data import Dataset
    from capsnet.models import Classifier
    from capsnet.training.config import TrainConfig
    from capsnet.training.loop import Progress
    from capsnet.training.run import Run

#: Default number of steps between evaluations on the test set; an epoch of 40 images is one step.
STEPS_TO_A_LOOK = 25


@app.command()
def train(  # noqa: PLR0915  one statement an option
    context: typer.Context,
    data: DataOption = "mnist5k",
    architecture: Annotated[
        str,
        typer.Option(
            "--model",
            help="An architecture: capsnet, efficient-capsnet, matrix-capsules, variational-bayes, inverted-attention, "
            "cnn, or that of a plug-in. Some have other defaults for the options below.",
        ),
    ] = "capsnet",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="The run's folder. Default: runs/DATA-1, -2, …")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Resume this run from its newest checkpoint.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training examples. Default: 10, and at least 500 steps."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps instead.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples per step, over all processes.")] = 128,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", "--lr", help="Peak of the schedule.")
    ] = 0.001,
    schedule: Annotated[Schedule, typer.Option(help="paper: × 0.96 every 2,000 steps.")] = Schedule.one_cycle,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    shift: Annotated[int, typer.Option(help="Random shifts of up to this many pixels.")] = 2,
    class_weights: Annotated[
        str | None,
        typer.Option(help="balanced: train on all classes equally often. Or a weight for each class: 1,1,5."),
    ] = None,
    hold_out: Annotated[
        float,
        typer.Option(
            "--hold-out", help="Share of the training images to calibrate probabilities with, such as 0.1."
        ),
    ] = 0.0,
    iterations: Annotated[int, typer.Option("--iterations", "-r", help="Routing iterations.")] = 3,
    reconstruction: Annotated[
        bool, typer.Option("--reconstruction/--no-reconstruction", help="Train the decoder too.")
    ] = True,
    reading: Annotated[Reading, typer.Option(help="The paper's text, or the authors' code.")] = Reading.paper,
    stem_channels: Annotated[int, typer.Option(help="Channels of Conv1; fewer is faster.")] = 256,
    primary_types: Annotated[int, typer.Option(help="Types of primary capsules.")] = 32,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster on GPUs, and on processors with bfloat16.")
    ] = Precision.fp32,
    device: DeviceOption = "auto",
    fast: FastOption = True,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            help="Epochs between evaluations on the test set; 0: only at the end. Default: 1, more if epochs are short."
        ),
    ] = None,
    save_seconds: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    on_nonfinite: Annotated[
        OnNonfinite,
        typer.Option(help="On a NaN or infinite loss or gradient: stop, or skip the step."),
    ] = OnNonfinite.stop,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Bitwise reproducible on a GPU too, slower. A CPU always is."),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Also send metrics to tensorboard, wandb, mlflow, trackio, …; can be repeated.",
        ),
    ] = None,
    settings: SetOption = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the report at the end.")] = True,
) -> None:
    """Train a model, by default the published CapsNet on digits. Writes a run folder."""
    from capsnet._support.validation import parse_setting
    from capsnet.distributed import is_main_process, pick_device
    from capsnet.models import MODELS, build_model
    from capsnet.training.config import USUAL_EPOCHS, TrainConfig
    from capsnet.training.holding_out import hold_out as without_held_out
    from capsnet.training.loop import train as run_training
    from capsnet.training.run import Run

    check_trackers(log or ())
    pick_device(device)  # an unknown device is reported before anything is loaded or written

    with ExitStack() as stack:
        stack.enter_context(_ending_together())
        if not fast:
            stack.enter_context(_plain_paths())
        if resume is not None:
            _refuse_other_options(
                context, {"resume", "data_dir", "device", "fast", "on_nonfinite", "report", "log"}
            )
            run = _hold(Run.reopen(resume), stack)
            if (result := run.result()) is not None:
                if is_main_process():
                    _say_finished(resume, result)
                return
            config = run.training()
            if is_given(context, "on_nonfinite") and on_nonfinite.value != config.on_nonfinite:
                config = replace(config, on_nonfinite=on_nonfinite.value)
                if is_main_process():
                    run.change_training(config)
            dataset = without_held_out(load_data(config.data, data_dir, config.image_size), config)
            model = build_model(run.saved(), config.seed)
            check_fit(model, dataset)
            check_names(model, dataset)
        else:
            chosen = parse_settings(settings, context, _own_options(context))
            kind = MODELS.get(architecture).config_class
            changes = chosen.read("model", kind)
            with options_by_name(context):
                options: dict[str, Any] = {
                    "data": data,
                    "image_size": image_size,
                    "epochs": USUAL_EPOCHS if epochs is None else epochs,
                    "steps": steps,
                    "batch_size": batch_size,
                    "learning_rate": learning_rate,
                    "schedule": schedule.value,
                    "shift": shift,
                    "class_weights": None
                    if class_weights is None
                    else parse_setting(TrainConfig, "class_weights", class_weights),
                    "hold_out": hold_out,
                    "seed": seed,
                    "precision": precision.value,
                    "evaluate_every": 1 if evaluate_every is None else evaluate_every,
                    "save_seconds": save_seconds,
                    "on_nonfinite": on_nonfinite.value,
                    "deterministic": deterministic,
                    **chosen.read("train", TrainConfig),
                }
                config = TrainConfig(**{**options, "data": absolute(options["data"])})
                dataset = without_held_out(load_data(config.data, data_dir, config.image_size), config)
                given = {
                    name
                    for name, value in options.items()
                    if value is not None and (is_given(context, name) or name in chosen.texts["train"])
                }
                proposed = _proposed(kind.training_for(dataset), given)
                config = _suited(
                    replace(config, **proposed),
                    dataset,
                    given | proposed.keys(),
                    # The configuration of another network knows by itself which images are too small.
                    smallest=1 if changes or is_given(context, "architecture") else SMALLEST_SIDE,
                )
                choices: dict[str, Any] = {
                    "iterations": iterations,
                    "stem_channels": stem_channels,
                    "primary_types": primary_types,
                    "reconstruction": (512, 1024) if reconstruction else None,
                }
                fields = {name: value for name, value in choices.items() if is_given(context, name)}
                model = _new_model(architecture, reading, fields, changes, dataset, config.seed)
            folder = out_folder or _next_folder(config.data)
            run = _hold(Run.create(folder, model, config), stack) if is_main_process() else Run(folder)
        if is_main_process():
            size = f"{model.parameter_count():,} parameters"
            err.print(f"{model.architecture}, {size}, on {dataset.name}: {shown(run.folder)}")
            err.print(dataset.provenance)
            if config.class_weights is None and (note := imbalance(dataset)):
                err.print(f"note: {note}")
        progress: Progress | None = stack.enter_context(TrainingBar()) if is_main_process() else None
        progress = stack.enter_context(tracked(log or (), progress, run, model, dataset, device))
        evaluation = run_training(
            model,
            dataset,
            config,
            run,
            device=device,
            resume=resume is not None,
            progress=progress,
            confidence=True,
        )
        if not is_main_process():
            return
    out.print(f"{evaluation.title} {evaluation}\nmodel      {shown(run.folder)}")
    if report:
        write_the_report(run.folder, dataset, model, evaluation)


def _say_finished(run: Path, result: dict[str, Any]) -> None:
    error = result.get("test_error")
    said = "unknown" if error is None else f"{error:.2%}"
    out.print(f"{shown(run)} is finished: test error {said}")


def _own_options(context: typer.Context) -> dict[str, str]:
    """Return which field of the configuration each parameter of `train` sets."""
    from capsnet.training.config import TrainConfig

    own = {name: f"train.{name}" for name in TrainConfig.__dataclass_fields__ if name in context.params}
    return own | {option: f"model.{field}" for option, field in MODEL_FIELDS.items()}


def _suited(config: TrainConfig, dataset: Dataset, given: set[str], smallest: int) -> TrainConfig:
    """Fill in defaults that depend on the data set; reject options that do not fit."""
    from capsnet.training.batches import BatchSchedule, augmented, check_class_weights
    from capsnet.training.config import usual_epochs

    check_side(dataset, config.image_size, smallest)
    check_class_weights(config, dataset)
    check_shift(config.shift, dataset)
    if {"epochs", "steps"} <= given:
        raise CapsnetError("--epochs and --steps both say how long to train; give one of them")
    steps = BatchSchedule.of(config, augmented(dataset.train, config)).steps_per_epoch
    if not given & {"epochs", "steps"}:
        config = replace(config, epochs=usual_epochs(steps))
    if "evaluate_every" not in given:
        config = replace(config, evaluate_every=-(-STEPS_TO_A_LOOK // steps))
    return config


def _proposed(options: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the training options that an architecture proposes, without those that are given."""
    replaced = given | ({"epochs"} if "steps" in given else set())
    return {field: value for field, value in options.items() if field not in replaced}


def _new_model(
    name: str,
    reading: Reading,
    fields: dict[str, Any],
    others: dict[str, Any],
    dataset: Dataset,
    seed: int,
) -> Classifier:
    """Build an architecture for a data set, with weights drawn from `seed`.

    Args:
        name: the architecture's name.
        reading: for CapsNets; the reading of the authors' code sets several fields.
        fields: the configuration's fields, by the option that sets them.
        others: the configuration's fields that `--set` sets, by name.
        dataset: determines image size and classes.
        seed: the random seed of the weights.
    """
    import torch

    from capsnet.models import MODELS

    kind = MODELS.get(name).config_class
    if reading is Reading.official and not hasattr(kind, "official"):
        raise CapsnetError(f"--reading official is not an option of the model {name!r}; leave it out")
    for option, field in MODEL_FIELDS.items():
        if option in fields and field not in kind.__dataclass_fields__:
            raise CapsnetError(
                f"--{option.replace('_', '-')} is not an option of the model {name!r}; leave it out"
            )
    changes = kind.fields_for(dataset) | {MODEL_FIELDS[option]: value for option, value in fields.items()}
    changes |= others
    torch.manual_seed(seed)
    model: Classifier = (kind.official if reading is Reading.official else kind)(**changes).build()
    check_fit(model, dataset)
    check_names(model, dataset)
    return model


@contextmanager
def _ending_together() -> Iterator[None]:
    """Print an interruption once, in rank 0, and shut all ranks down together."""
    from capsnet.distributed import is_main_process, joint_shutdown
    from capsnet.training.loop import Interrupted

    with joint_shutdown():
        try:
            yield
        except Interrupted as interruption:
            if is_main_process():
                err.print(shown(str(interruption)))
            sys.exit(128 + interruption.number)


def _hold(run: Run, stack: ExitStack) -> Run:
    """Lock a run's folder in rank 0. The other ranks only read from it."""
    from capsnet.distributed import is_main_process

    return stack.enter_context(run) if is_main_process() else run


def _next_folder(data: str) -> Path:
    # Several ranks would choose different folders: one finds the folder that another has just created.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CapsnetError("several processes write one run; choose its folder with --out")
    from capsnet.data import short_name

    number = 1
    while (folder := Path("runs") / f"{short_name(data)}-{number}").exists():
        number += 1
    return folder


def _plain_paths() -> Any:
    from capsnet._support.dispatch import disabled

    return disabled()


def _refuse_other_options(context: typer.Context, allowed: set[str]) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in allowed and is_given(context, name):
            raise CapsnetError(
                f"{parameter.opts[0]} cannot be changed when resuming; a run keeps the options of its start"
            )
