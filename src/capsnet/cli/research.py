"""Commands for experiments and timings: compare, reproduce, bench, data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsnet._support.errors import CapsnetError, shown
from capsnet.cli.app import app
from capsnet.cli.console import ExperimentLines, err, out
from capsnet.cli.loading import absolute, check_side, load_data, options_by_name
from capsnet.cli.options import (
    BackendOption,
    DataDirOption,
    DataOption,
    DeviceOption,
    ImageSizeOption,
    JobsOption,
    JsonOption,
    Precision,
    Scale,
)
from capsnet.distributed import pick_device, require_single_process

if TYPE_CHECKING:
    from capsnet.experiments import Experiment, Options
    from capsnet.experiments.parallel import Workers
    from capsnet.experiments.record_groups import Group


@app.command()
def compare(
    context: typer.Context,
    data: DataOption = "mnist5k",
    data_dir: DataDirOption = None,
    image_size: ImageSizeOption = None,
    models: Annotated[
        str,
        typer.Option(
            help="Architectures to compare, separated by commas. CapsNet and three CNNs, one of its size, are always "
            "trained."
        ),
    ] = "capsnet",
    scale: Annotated[
        Scale, typer.Option(help="quick: narrow networks, 2 cores. full: the published width, a GPU.")
    ] = Scale.quick,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each model. Default: 5.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps of each. Default: 1,000, full 10,000.")
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", "--lr", help="Peak, for all models. Default: chosen per model."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="bf16 is faster on GPUs, and on processors with bfloat16.")
    ] = None,
    device: DeviceOption = "auto",
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder for the page, the records and the trainings.")
    ] = Path("comparisons"),
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep what is finished.")] = True,
    jobs: JobsOption = None,
    backend: BackendOption = "loky",
    as_json: JsonOption = False,
) -> None:
    """Train CapsNet and its controls in the same way, and test the difference."""
    from dataclasses import replace

    from capsnet.experiments.comparison import compare as run_comparison
    from capsnet.experiments.page import write_comparison
    from capsnet.experiments.running import Options

    require_single_process("compare", "")
    options = Options(
        scale=scale.value,
        seeds=seeds,
        out=out_folder,
        device=device,
        steps=steps,
        precision=precision.value if precision else None,
        resume=resume,
        workers=_workers(jobs, backend),
    )
    dataset = load_data(data, data_dir, image_size)
    check_side(dataset, image_size)
    dataset = replace(dataset, name=absolute(data))
    with options_by_name(context):
        compared = run_comparison(
            dataset,
            options,
            ExperimentLines(),
            learning_rate,
            [name.strip() for name in models.split(",") if name.strip()],
            image_size=image_size,
        )
    page = write_comparison(compared, out_folder / compared.experiment.name / f"{scale.value}.md")
    if as_json:
        from capsnet.experiments.comparison import as_dict

        print(json.dumps(as_dict(compared)))
        return
    _print_comparison(compared)
    out.print(f"page       {shown(page)}")


def _print_comparison(compared: Group) -> None:
    from rich.table import Table

    from capsnet.experiments.comparison import answer
    from capsnet.experiments.figures import by_variant
    from capsnet.experiments.page import shown_estimate, shown_interval
    from capsnet.experiments.statistics import estimate
    from capsnet.experiments.verdicts import judgements

    measure = compared.experiment.measures[0]
    heads = (f"{measure.title}, %", "95 % interval", "rate", "parameters", "mult-adds")
    table = Table("", *heads, box=None)  # narrow: terminals have 80 columns
    for column in table.columns[1:]:
        column.justify = "right"
    for name, runs in by_variant(compared.records).items():
        error = estimate(runs, measure.key)
        assert error is not None
        rate, size = runs[0].training["learning_rate"], (runs[0].parameters, runs[0].multiply_adds)
        told = (shown_estimate(error, measure), shown_interval(error, measure), f"{rate:g}")
        table.add_row("CapsNet" if name == "r3" else name, *told, *(f"{number:,}" for number in size))
    out.print(table)
    found = judgements(compared)
    for judgement in found:
        out.print(judgement.line.replace("**", ""))
    out.print(answer(found))


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An experiment; see --list.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    scale: Annotated[
        Scale,
        typer.Option(
            help="quick: 2 cores. full: the published network, a GPU. smoke: a few steps, to see that it runs."
        ),
    ] = Scale.quick,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds. Default: the recipe's.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Training steps, instead of the recipe's; recorded.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="bf16 is faster on GPUs, and on processors with bfloat16.")
    ] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for results, one JSON per run.")] = Path(
        "results"
    ),
    work: Annotated[Path, typer.Option(help="Folder for trainings, to resume them.")] = Path(
        "runs/reproduce"
    ),
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Keep what is finished.")] = True,
    show_plan: Annotated[
        bool, typer.Option("--plan", help="Show the seeds that each claim needs, and their minutes.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(help="Run planned seeds for a time such as 2h, the cheapest decisions first."),
    ] = None,
    jobs: JobsOption = None,
    backend: BackendOption = "loky",
) -> None:
    """Run an experiment of the paper with controls and seeds; resume if stopped."""
    from capsnet.experiments import EXPERIMENTS, Options, find_experiment
    from capsnet.experiments.running import run_experiment
    from capsnet.experiments.tuning import with_own_rates

    if listed or name is None:
        for experiment in EXPERIMENTS.values():
            line = f"[bold]{experiment.name:20}[/] {experiment.title}\n{'':20} {experiment.source}"
            out.print(line, markup=True)
        return
    require_single_process(
        "reproduce", "; on several GPUs, once for each with its own --variant and CUDA_VISIBLE_DEVICES"
    )
    options = Options(
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
        workers=_workers(jobs, backend, device if budget else None),
    )
    experiment = find_experiment(name)
    if show_plan or budget is not None:
        _plan(experiment, options, show_plan, budget)
    else:
        watch = ExperimentLines()
        run_experiment(with_own_rates(experiment, options, watch), options, watch)


def _plan(experiment: Experiment, options: Options, show_plan: bool, budget: str | None) -> None:
    from capsnet.experiments.budget import run_budget, seconds_of
    from capsnet.experiments.planning import plan
    from capsnet.experiments.tuning import with_own_rates

    others = {"--plan": show_plan, "--budget": budget is not None}
    others |= {"--seeds": options.seeds is not None, "--no-resume": not options.resume}
    if len(given := [name for name, is_given in others.items() if is_given]) > 1:
        raise CapsnetError(f"{given[0]} and {given[1]} exclude each other")
    if budget is not None:
        seconds, watch = seconds_of(budget), ExperimentLines()
        found = run_budget(with_own_rates(experiment, options, watch), options, seconds, watch)
    else:
        found = plan(with_own_rates(experiment, options), options)
        if not found.minutes:
            raise CapsnetError(
                f"{shown(options.out)} has no results of {experiment.name} at the {options.scale} scale to plan by; "
                f"capsnet reproduce {experiment.name} makes some"
            )
    for line in found.lines:
        out.print(line)


def _workers(jobs: int | None, backend: str, budget_on: str | None = None) -> Workers:
    """Return the workers. Without --jobs: all of a cluster, all cores within a budget, else one at a time."""
    from capsnet.experiments.parallel import Workers

    many = backend != "loky" or (budget_on is not None and pick_device(budget_on).type == "cpu")
    return Workers(1 if jobs is None and not many else jobs, backend)


@app.command()
def bench(
    device: DeviceOption = "auto",
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds per row.")] = 10.0,
    grow: Annotated[bool, typer.Option("--sweep", help="Also vary children, parents, iterations.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed-up of every fast path over the plain PyTorch reference."""
    from capsnet._support.files import refuse_place
    from capsnet.benchmark import CASES, available_memory, describe, measure, sweep
    from capsnet.cli.bench_table import print_table, write_csv
    from capsnet.distributed import pick_device

    require_single_process("bench", "")
    where = pick_device(device)
    if csv is not None:
        refuse_place(csv)
    results = []
    for case in CASES:
        free = available_memory(where)
        if case.needs and free is not None and free < case.needs:
            need, have = (f"{amount / 1e9:.0f} GB" for amount in (case.needs, free))
            err.print(
                f"left out: {case.name}. Plain PyTorch needs {need} of memory for it, and {have} are free."
            )
            continue
        results.append(measure(case, where, seconds))
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
        out.print(f"[bold]{name:20}[/] {about}", markup=True)
    for name, about in (
        ("folder:PATH", "your own images, one directory per class"),
        (
            "npz:FILE",
            "one NumPy archive with train_images, train_labels, test_images, …, as those of MedMNIST",
        ),
        ("hf:NAME", "a data set of Hugging Face `datasets`: on the hub, a folder of files, or saved to disk"),
    ):
        out.print(f"[bold]{name:20}[/] {about}", markup=True)
