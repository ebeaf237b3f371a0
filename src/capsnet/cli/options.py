"""Options shared by several commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    """Size of an experiment."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


class OnNonfinite(StrEnum):
    """Policy for steps with a non-finite loss or gradient."""

    stop = "stop"
    skip = "skip"


class Precision(StrEnum):
    """Precision of the training's arithmetic."""

    fp32 = "fp32"
    bf16 = "bf16"


DataOption = Annotated[
    str,
    typer.Option(
        help="A data set by name (see `capsnet data`), folder:PATH with one directory per class, npz:FILE, hf:NAME."
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the data files, or with a folder NAME for each data set. Default: $CAPSNET_DATA, else they "
        "are downloaded."
    ),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Resize images to N×N (folder: and hf: only).")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        help="Trainings at the same time. Default: 1; on a cluster, all its workers; with `reproduce --budget` on a "
        "CPU, one per core."
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Where trainings run: loky (processes on this machine), or a running dask or ray cluster."
    ),
]
FastOption = Annotated[
    bool, typer.Option("--fast/--no-fast", help="--no-fast uses only the plain reference code.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def complete_runs(incomplete: str) -> list[str]:
    """Return runs below runs/ and the models of the package, for the shell's completion."""
    shipped = (Path(__file__).parents[1] / "pretrained").glob("*/config.json")
    names = [path.parent.name for path in shipped]
    names += [path.parent.as_posix() for path in Path("runs").glob("*/config.json")]
    return sorted(name for name in names if name.startswith(incomplete))


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run folder, a saved model, or hf:OWNER/NAME on the hub.",
        autocompletion=complete_runs,
    ),
]
