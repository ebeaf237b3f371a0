"""The command-line program."""

from __future__ import annotations

from typing import Annotated

import typer

from capsnet.cli.console import out

app = typer.Typer(
    name="capsnet",
    help="Capsule networks: train them, measure them against fair controls, and see how they work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from capsnet._support.version import __version__

        out.print(f"capsnet {__version__}")
        raise typer.Exit
