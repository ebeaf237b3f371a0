"""Commands for saved models: runs, evaluate, predict, report, explore, push, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capsnet._support.errors import CapsnetError, shown
from capsnet.cli.app import app
from capsnet.cli.console import err, out
from capsnet.cli.loading import (
    check_fit,
    check_names,
    load_data,
    load_for,
    side,
    trained_on,
    write_the_report,
)
from capsnet.cli.options import DataDirOption, DeviceOption, JsonOption, ModelArgument, complete_runs

if TYPE_CHECKING:
    from capsnet.data import Batch
    from capsnet.distributed import WorkerGroup
    from capsnet.inference.evaluation import Count
    from capsnet.inference.prediction import Prediction, PredictOptions
    from capsnet.models import Classifier, SavedModel


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option(help="A test set. Default: that of the training data.")] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a saved model's error on a test set, with its 95 % interval.

    Under torchrun the processes share the work. The images of a folder are not kept in memory.
    """
    from capsnet.distributed import WorkerGroup, pick_device
    from capsnet.models import SavedModel, load_model

    saved = SavedModel.open(model)
    loaded = load_model(saved, device=pick_device(device))
    name = data or trained_on(saved)
    with WorkerGroup() as workers:
        if name.startswith("folder:"):
            named, counted = _count_in_folder(loaded, name.removeprefix("folder:"), workers)
        else:
            named, counted = _count_in_memory(saved, loaded, name, data_dir, workers)
    if counted is None:  # only rank 0 has the count
        return
    if as_json:
        print(json.dumps({"data": named, **counted.summary()}))
    else:
        out.print(f"{named}: {counted.title} {counted}")


def _count_in_folder(model: Classifier, path: str, workers: WorkerGroup) -> tuple[str, Count | None]:
    from capsnet.data.folder import Portion, open_folder, read_portion
    from capsnet.inference.evaluation import BATCH_SIZE, batch_of, count_errors

    device = next(model.parameters()).device
    folder = open_folder(path, side(model), workers)
    if folder is not None:
        check_fit(model, folder)
        check_names(model, folder)

    def read(portion: Portion) -> Batch:
        examples = read_portion(portion, model.config.image_shape).to(device)
        return batch_of(examples, range(len(examples)), device)

    portions = folder.portions("test", BATCH_SIZE) if folder else iter(())
    counted = count_errors(model, portions, read, workers)
    if folder is None:
        return "", counted
    if counted is not None and counted.n < folder.images:
        err.print(f"test set: {counted.n:,} of {folder.images:,} images; the others are for training")
    return folder.name, counted


def _count_in_memory(
    saved: SavedModel, model: Classifier, name: str, data_dir: Path | None, workers: WorkerGroup
) -> tuple[str, Count | None]:
    from capsnet.inference.evaluation import batch_of, count_errors, row_ranges

    device = next(model.parameters()).device
    dataset = load_for(model, name, data_dir)
    check_names(model, dataset)
    if name == "mnist5k" and saved.data == "mnist":
        err.print("note: mnist5k consists of MNIST's training digits, and this model was trained on them")
    test = dataset.test.to(device)
    ranges = row_ranges(len(test))
    return dataset.name, count_errors(model, ranges, lambda rows: batch_of(test, rows, device), workers)


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.")],
    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write JSON lines to this file, and resume it if it exists. Images are identified by their paths.",
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Report unreadable files in the output instead of stopping.")
    ] = False,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Invert light and dark first; MNIST's digits are light on dark."),
    ] = False,
    all_scores: Annotated[
        bool, typer.Option("--scores", help="Include the scores of all classes in the JSON.")
    ] = False,
    refuse_below: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Give no class if its calibrated probability is below this."),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Classify images. Prints file, class and score, one line per image.

    The score is the length of the class capsule, its activation, or the probability of a CNN. A model trained with
    --hold-out adds a calibrated probability, and a model with a decoder a typicality: the percentage of that class's
    training images whose reconstruction error is at least as large. Images must look like those the model was trained
    on. Under torchrun the processes share the work.
    """
    from capsnet.distributed import WorkerGroup, pick_device
    from capsnet.inference.prediction import PredictOptions, image_files, looks_inverted, predict_files
    from capsnet.inference.saved_confidence import Confidence
    from capsnet.models import SavedModel, load_model

    saved = SavedModel.open(model)
    loaded = load_model(saved, device=pick_device(device))
    if all_scores and not as_json and target is None:
        raise CapsnetError("--scores is for JSON: add --json, or --out FILE")
    files = image_files(images)
    confidence = Confidence.load(saved.folder, loaded.config.num_classes)
    if refuse_below is not None and (confidence is None or confidence.temperature is None):
        raise CapsnetError(
            f"--refuse-below needs calibrated probabilities, and {shown(saved.folder)} has none; train it with "
            "--hold-out 0.1"
        )
    options = PredictOptions(invert, all_scores, confidence, refuse_below)
    with WorkerGroup() as workers:
        if workers.is_main:
            first = next(files)
            if not invert and looks_inverted(saved.data, loaded, first):
                err.print(
                    f"note: {shown(first)} is light, but the model was trained on light digits "
                    "on black; try --invert"
                )
            files = chain((first,), files)
        predictions = predict_files(loaded, files, options=options, keep_going=keep_going, workers=workers)
        if target is not None and workers.is_main:
            _write_predictions(target, saved, images, files, predictions, options)
            return
        for prediction in predictions:  # empty in other ranks
            if as_json:
                print(json.dumps(prediction.as_dict()))
            elif prediction.error is None:
                out.print(_line(prediction))
            else:
                err.print(shown(prediction.error))


def _line(prediction: Prediction) -> str:
    parts = [prediction.name, prediction.label or "refused", f"{prediction.score:.3f}"]
    if prediction.probability is not None:
        parts.append(f"probability {prediction.probability:.3f}")
    if prediction.typicality is not None:
        parts.append(f"typicality {prediction.typicality:.1f} %")
    return "\t".join(parts)


def _write_predictions(
    target: Path,
    saved: SavedModel,
    images: list[Path],
    files: Iterator[Path],
    predictions: Iterator[Prediction],
    options: PredictOptions,
) -> None:
    from capsnet.inference.output import PredictionFile
    from capsnet.inference.prediction import BATCH_SIZE

    with PredictionFile(target, saved.folder, images, BATCH_SIZE, options) as file:
        file.resume(files)
        added = file.append(predictions)
    out.print(f"{shown(target)}: {file.kept + added:,} predictions, {added:,} of them new")


@app.command()
def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.", autocompletion=complete_runs)],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The model's name on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new model private.")] = False,
) -> None:
    """Put a run on the Hugging Face Hub, with a model card: data, protocol, error with its interval, limits.

    Log in first: `hf auth login`, or $HF_TOKEN. Then every command takes hf:OWNER/NAME where it takes a RUN.
    """
    from capsnet.training.hub import push as push_run

    out.print(push_run(run, name, private=private))


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs, in folders below too.")] = Path(
        "runs"
    ),
    as_json: JsonOption = False,
) -> None:
    """List runs with their test error and its 95 % interval."""
    from capsnet.training.listing import list_runs

    found = list_runs(folder)
    if as_json:
        print(json.dumps([run.as_dict() for run in found]))
        return
    for run in found:
        if run.problem is not None:
            out.print(f"{run.folder}\t{run.problem}")
            continue
        error = "no error yet" if run.error is None else f"{run.error:.2%}"
        if run.interval_95 is not None:
            error += f" ({run.interval_95[0]:.2%} to {run.interval_95[1]:.2%}, n = {run.n:,})"
        state = "" if run.finished else "\tnot finished"
        out.print(f"{run.folder}\t{run.model} on {run.data}\t{error}\t{run.steps:,} steps{state}")
    if not found:
        err.print(f"no runs in {shown(folder)}; start one with: capsnet train")


@app.command()
def report(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="A finished run, or hf:OWNER/NAME.", autocompletion=complete_runs
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the data set is now. Default: where it was in training.")
    ] = None,
    data_dir: DataDirOption = None,
    results: Annotated[
        Path | None, typer.Option(help="Instead of RUN: the results of `capsnet reproduce`, to make tables.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="With --results: the page to write. Default: docs/results.md.")
    ] = None,
) -> None:
    """Write the report of a run (report/index.html), or the tables of experiments."""
    if (run is None) == (results is None):
        raise CapsnetError("give either a RUN or --results FOLDER")
    if run is not None and target is not None:
        raise CapsnetError("--target goes with --results; the report of a run is in its folder")
    if results is not None:
        from capsnet.experiments.page import write_results

        if data is not None or data_dir is not None:
            raise CapsnetError("--data and --data-dir go with a RUN")
        target = target or Path("docs/results.md")
        left_out = write_results(results, target)
        out.print(f"results    {shown(target)}")
        for line in left_out:
            out.print(f"not shown  {line}")
        return
    assert run is not None
    from capsnet.models import load_model
    from capsnet.training.hub import run_folder
    from capsnet.training.run import Run

    folder = run_folder(run)
    opened = Run.reopen(folder)
    opened.finished()
    model = load_model(folder)
    name = data or opened.training().data
    try:
        dataset = load_data(name, data_dir, opened.training().image_size)
    except CapsnetError as error:
        if data is not None or ":" not in name:
            raise
        raise CapsnetError(
            f"{error}; if the run's images are elsewhere now, name them with --data"
        ) from error
    check_fit(model, dataset)
    check_names(model, dataset)
    write_the_report(folder, dataset, model)


@app.command()
def explore(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run or saved model. Default: the one that comes with capsnet.",
            autocompletion=complete_runs,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Use 0 to pick a free port.")] = 8721,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Show every step of a capsule network in the browser. Only this computer can connect."""
    from capsnet.explorer import serve

    serve(run, port=port, open_browser=browser)


@app.command()
def export(
    model: ModelArgument,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="FILE.onnx, or FILE.pt2 for torch.export."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="FILE.onnx: 8-bit convolutions; prints what that changes.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="--int8: images to measure ranges on. Default: the training data.")
    ] = None,
    data_dir: DataDirOption = None,
    site: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the explorer as static files instead.")
    ] = None,
    float32: Annotated[
        bool, typer.Option("--float32", help="--site: exact weights. Default: float16, half the size.")
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tgz", help="--site: the npm package onnxruntime-web, if npm is not here."),
    ] = None,
) -> None:
    """Write a model as ONNX or torch.export (images → scores), or with --site as static files.

    All are checked against PyTorch. The site needs no Python: the visitor's browser computes every step.
    """
    if (target is None) == (site is None):
        raise CapsnetError("export needs either FILE.onnx, FILE.pt2 or --site DIR")
    if target is not None:
        if float32 or runtime is not None:
            raise CapsnetError(f"{'--float32' if float32 else '--runtime'} goes with --site")
        _export_file(model, target, int8, data, data_dir)
        return
    if int8 or data is not None or data_dir is not None:
        option = "--int8" if int8 else "--data-dir" if data is None else "--data"
        raise CapsnetError(f"{option} goes with FILE.onnx")
    from capsnet.explorer.site import export_site

    assert site is not None
    with err.status("reading the model") as status:
        done = export_site(model, site, float32=float32, runtime=runtime, say=status.update)
    out.print(
        f"{shown(site)}: {done.size / 1e6:.1f} MB; with {done.precision} weights the page's numbers differ from the "
        f"library's by at most {done.difference:.1e} on {done.digits} images. To look at it: "
        f"python -m http.server --directory {shown(site)}"
    )


def _export_file(model: str, target: Path, int8: bool, data: str | None, data_dir: Path | None) -> None:
    from capsnet._support.files import refuse_place
    from capsnet.inference.export import export_onnx, export_program
    from capsnet.models import SavedModel, load_model

    refuse_place(target)
    if target.suffix not in (".onnx", ".pt2"):
        raise CapsnetError(f"{shown(target)}: the file must end in .onnx or .pt2")
    saved = SavedModel.open(model)
    loaded = load_model(saved)
    program = target.suffix == ".pt2"
    if (program and int8) or (data is not None and not int8):
        raise CapsnetError("--int8 is for FILE.onnx" if program else "--data goes with --int8")
    if data_dir is not None and not int8:
        raise CapsnetError("--data-dir goes with --int8")
    if not int8:
        difference = (export_program if program else export_onnx)(loaded, target)
        out.print(f"{shown(target)}: scores differ from PyTorch's by at most {difference:.1e}")
        return
    from capsnet.inference.quantised import export_int8

    dataset = load_for(loaded, data or trained_on(saved), data_dir)
    check_names(loaded, dataset)
    out.print(f"{shown(target)}: {export_int8(loaded, target, dataset)}")
