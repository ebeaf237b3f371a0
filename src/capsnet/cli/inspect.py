"""Look into one model: its cost, what its capsules draw, how it routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet.cli.app import app
from capsnet.cli.console import err, out
from capsnet.cli.loading import load_for, trained_on
from capsnet.cli.options import DataDirOption, DeviceOption, JsonOption, ModelArgument, complete_runs
from capsnet.cli.settings import SetOption, parse_settings

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from capsnet.data import Dataset
    from capsnet.models import Classifier, ClassifierConfig, SavedModel
    from capsnet.models.protocols import Decodes
    from capsnet.training.config import TrainConfig

InvertOption = Annotated[
    bool, typer.Option("--invert", help="Invert light and dark first: MNIST's digits are light on dark.")
]
#: Classes and iterations in the table of `trace`; --json has all.
CLASSES_SHOWN, ITERATIONS_SHOWN = 10, 6


@app.command()
def info(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A run folder, a saved model, or hf:OWNER/NAME on the hub.",
            autocompletion=complete_runs,
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option("--model", help="In place of MODEL: an architecture. Default: capsnet.")
    ] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the cost of a model: its parts, and the memory of a training batch.

    Everything is computed from the configuration, so no weights are needed: try sizes with --set before training.
    """
    from dataclasses import asdict

    from capsnet.models.cost import has_votes, multiply_adds_to_classify, parts_of, training_memory

    if model is not None and architecture is not None:
        raise CapsnetError("name a MODEL or an architecture with --model, and not both")
    name, config, training = _configuration(context, model, architecture or "capsnet", settings)
    parts = parts_of(config)
    figures: dict[str, Any] = {
        "model": name,
        "image_shape": list(config.image_shape),
        "num_classes": config.num_classes,
        "parameters": config.parameter_count(),
        "multiply_adds_to_classify": multiply_adds_to_classify(config),
        "parts": [asdict(part) for part in parts],
        "batch_size": training.batch_size,
        "bytes": {"this package": _bytes(training_memory(config, training.batch_size))},
    }
    if has_votes(config):
        plain = training_memory(config, training.batch_size, stored_votes=True)
        figures["bytes"] |= {"plain routing": _bytes(plain)}
    if as_json:
        print(json.dumps(figures))
        return
    size = "×".join(map(str, config.image_shape))
    out.print(f"{shown(name)}: images of {size}, {config.num_classes} classes\n")
    table = _table("part", "output", "parameters", "multiply-adds")
    for part in parts:
        shape = "×".join(map(str, part.output))
        table.add_row(part.name, shape, f"{part.parameters:,}", f"{part.multiply_adds:,}")
    table.add_row("total", "", f"{figures['parameters']:,}", f"{sum(part.multiply_adds for part in parts):,}")
    out.print(table)
    out.print(
        "Multiply-adds: one training image, forward pass, plain paths. "
        f"To classify an image takes {figures['multiply_adds_to_classify']:,}.\n"
    )
    memory = _table(f"memory of a training batch of {training.batch_size:,} (MiB)", *figures["bytes"])
    for row in figures["bytes"]["this package"]:
        values = (f"{column[row] / 2**20:,.1f}" for column in figures["bytes"].values())
        memory.add_row(row, *values)
    out.print(memory)
    votes = (
        " Plain routing stores the votes; this package does not."
        if "plain routing" in figures["bytes"]
        else ""
    )
    out.print(
        "Memory: computed from the shapes of the tensors, in float32. Space that an operation needs only while it "
        "runs is not counted." + votes
    )


@app.command()
def perturb(
    model: ModelArgument,
    image: Annotated[
        Path | None, typer.Argument(metavar="IMAGE", help="An image file. Default: the first test example.")
    ] = None,
    target: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Where to write it.")] = Path(
        "perturb.png"
    ),
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class whose capsule is changed. Default: the longest.")
    ] = None,
    invert: InvertOption = False,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Draw what each dimension of a capsule changes, as a PNG (figure 4)."""
    import torch

    from capsnet._support.files import write_bytes
    from capsnet.distributed import pick_device
    from capsnet.explain import dimension_sheet
    from capsnet.models import SavedModel, load_model
    from capsnet.report.capsules import draw_sheet
    from capsnet.report.style import drawable

    _refuse_picture(target)
    if image is None and invert:
        raise CapsnetError("--invert is for an IMAGE")
    if image is not None and data_dir is not None:
        raise CapsnetError("--data-dir is for the first test example; leave it out with an IMAGE")
    saved = SavedModel.open(model)
    loaded = load_model(saved, device=pick_device(device))
    drawing = _drawing(loaded, model)
    pixels = _first_example(saved, loaded, data_dir) if image is None else _read(image, saved, loaded, invert)
    with torch.no_grad():
        capsules = drawing.class_poses(pixels[None])[0]
    lengths = capsules.norm(dim=-1)
    _refuse_infinite(lengths, model)
    number = int(lengths.argmax()) if class_name is None else _class_number(class_name, loaded.class_names)
    sheet = dimension_sheet(drawing, capsules, number).cpu()
    title = f"{drawable(loaded.class_names)[number]}: a capsule of length {float(lengths[number]):.2f}"
    write_bytes(target, draw_sheet(sheet, title))
    out.print(
        f"{shown(target)}: {sheet.shape[0]} dimensions of class {loaded.class_names[number]}, "
        f"a capsule of length {float(lengths[number]):.2f}"
    )


@app.command()
def trace(
    model: ModelArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations", "-r", min=1, max=100, help="Routing iterations. Default: the model's own."
        ),
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Also draw the couplings to this file.")
    ] = None,
    invert: InvertOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Show couplings and capsule lengths of an image in each routing iteration."""
    from capsnet._support.files import write_bytes
    from capsnet.distributed import pick_device
    from capsnet.explain import routing_summary
    from capsnet.models import SavedModel, load_model
    from capsnet.models.protocols import Routed, Traceable
    from capsnet.report.capsules import draw_couplings, draw_spread
    from capsnet.report.style import drawable

    if target is not None:
        _refuse_picture(target)
    saved = SavedModel.open(model)
    loaded = load_model(saved, device=pick_device(device))
    if not isinstance(loaded, Routed):
        raise CapsnetError(
            f"{shown(model)} is a {loaded.architecture}, which has no routing between capsules; trace needs a "
            "capsule network"
        )
    pixels = _read(image, saved, loaded, invert)
    routing = loaded.class_routing(pixels[None], iterations)
    _refuse_infinite(routing.outputs.norm(dim=-1), model)
    if target is not None:
        about = (pixels.cpu(), drawable(loaded.class_names), "input")
        if isinstance(loaded, Traceable):
            picture = draw_couplings(loaded, loaded.trace(pixels[None], iterations), *about)
        else:
            picture = draw_spread(routing, *about)
        write_bytes(target, picture)
    figures = routing_summary(routing, loaded.class_names)
    if as_json:
        print(json.dumps({"image": shown(image), "iterations": figures}))
        return
    _print_routing(figures)
    if target is not None:
        out.print(f"\n{shown(target)}: couplings of the children to each class")


def _configuration(
    context: typer.Context, model: str | None, architecture: str, settings: list[str] | None
) -> tuple[str, ClassifierConfig, TrainConfig]:
    """Return a model's name and its configurations, changed by `--set`."""
    from dataclasses import replace

    from capsnet._support.validation import parse_config
    from capsnet.models import MODELS, SavedModel
    from capsnet.training.config import TrainConfig

    chosen = parse_settings(settings, context, {})
    training = TrainConfig()
    if model is None:
        kind = MODELS.get(architecture).config_class
        config: ClassifierConfig = kind()
    else:
        saved = SavedModel.open(model)
        kind = MODELS.get(saved.architecture).config_class
        config = saved.config(kind)
        if saved.training:
            training = parse_config(TrainConfig, dict(saved.training), saved.path)
    changes = chosen.read("model", kind)
    if "num_classes" in changes:
        changes = {"class_names": None, **changes}
    return (
        model or architecture,
        replace(config, **changes),
        replace(training, **chosen.read("train", TrainConfig)),
    )


def _bytes(memory: Any) -> dict[str, int]:
    return {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "Adam's moments": memory.adam,
        "activations": memory.activations,
        "total": memory.total,
    }


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(first, *others, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _drawing(loaded: Classifier, name: str) -> Decodes:
    """Return the model if its capsules can be drawn."""
    from capsnet.models.protocols import HasPoses, decodes

    if decodes(loaded):
        return loaded
    if isinstance(loaded, HasPoses):
        raise CapsnetError(
            f"{shown(name)} has no decoder, so its capsules cannot be drawn; train one with --reconstruction"
        )
    raise CapsnetError(
        f"{shown(name)} is a {loaded.architecture}, which has no capsules; perturb needs a capsule network"
    )


def _refuse_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before work is spent on it."""
    from capsnet._support.files import refuse_place

    if path.suffix.lower() != ".png":
        raise CapsnetError(f"--out {shown(path)}: the picture is a PNG; name a file that ends in .png")
    refuse_place(path)


def _refuse_infinite(lengths: Tensor, model: str) -> None:
    if not lengths.isfinite().all():
        raise CapsnetError(
            f"{shown(model)}: the capsules' lengths are not finite; its weights are too large to compute with"
        )


def _read(image: Path, saved: SavedModel, model: Classifier, invert: bool) -> Tensor:
    """Read an image file as the model takes it, on the model's device."""
    from capsnet.data.images import read_image
    from capsnet.inference.prediction import looks_inverted

    if not invert and looks_inverted(saved.data, model, image):
        err.print(f"note: {shown(image)} is light, and the model knows light digits on black: see --invert")
    pixels = read_image(image, model.config.image_shape).float() / 255
    return (1 - pixels if invert else pixels).to(next(model.parameters()).device)


def _first_example(saved: SavedModel, model: Classifier, data_dir: Path | None) -> Tensor:
    """Return the first test image of the model's data set, or of mnist5k."""
    import torch

    from capsnet.data import load_local
    from capsnet.data.dataset import middle_batch

    dataset: Dataset | None
    if data_dir is not None:
        dataset = load_for(model, trained_on(saved), data_dir)
    else:
        config = model.config
        dataset = load_local(saved.data, config.image_shape, config.num_classes, config.class_names)
    if dataset is None:
        raise CapsnetError(
            f"the data that {shown(saved.folder)} was trained on are not on this machine; name an IMAGE, or where the "
            "data lie with --data-dir"
        )
    err.print(f"no IMAGE given: the first test example of {dataset.name}")
    batch = middle_batch(dataset.test, torch.tensor([0]))
    return batch.images[0].to(next(model.parameters()).device)


def _class_number(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        known = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        raise CapsnetError(
            f"--class {shown(name)}: the model's classes are {known}{did_you_mean(name, names)}"
        )
    return names.index(name)


def _print_routing(figures: list[dict[str, Any]]) -> None:
    """Print a row for each of the longest capsules, and a column for each iteration."""
    if (count := len(figures)) > ITERATIONS_SHOWN:
        last_step = ITERATIONS_SHOWN - 1
        figures = [figures[round(step * (count - 1) / last_step)] for step in range(ITERATIONS_SHOWN)]
    last = figures[-1]["classes"]
    measure = "length" if "length" in last[0] else "activation"
    order = sorted(range(len(last)), key=lambda number: -float(last[number][measure]))[:CLASSES_SHOWN]
    numbers = [str(figure["iteration"]) for figure in figures]
    for title, key, digits in ((measure, measure, 3), ("mean coupling", "mean_coupling", 4)):
        table = _table(f"{title}, iteration", *numbers)
        for number in order:
            values = (f"{figure['classes'][number][key]:.{digits}f}" for figure in figures)
            table.add_row(shown(last[number]["class"]), *values)
        out.print(table)
        out.print()
    table = _table("routing, iteration", *numbers)
    table.add_row("entropy of couplings", *(f"{figure['coupling_entropy']:.2%}" for figure in figures))
    changes = (figure["logit_change"] for figure in figures)
    table.add_row("change of logits", *("" if change is None else f"{change:.4f}" for change in changes))
    out.print(table)
    out.print(
        f"Capsules in the order of their {measure}{'' if len(order) == len(last) else f', the first {len(order)}'}. "
        "Mean coupling: over all primary capsules. Entropy: 100 % is spread evenly over the classes. The change of "
        "logits is a mean since the iteration before."
    )
