"""Options that several commands share."""

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
    """How large an experiment is run."""

    smoke = "smoke"
    quick = "quick"
    full = "full"


class OnNonfinite(StrEnum):
    """What to do about a step whose loss or gradients are no numbers."""

    stop = "stop"
    skip = "skip"


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
