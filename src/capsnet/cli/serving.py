"""The command for serving a model; PyTorch is not imported."""

from __future__ import annotations

from typing import Annotated

import typer

from capsnet.cli.app import app
from capsnet.cli.options import complete_runs


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL.onnx",
            help="A run, a saved model or an ONNX file.",
            autocompletion=complete_runs,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Use 0 to pick a free port.")] = 8722,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, which share the cores.")] = 1,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Host name that requests may use, besides --host; may be repeated. *: any."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that a request may take.")
    ] = 30.0,
) -> None:
    """Serve a model over HTTP with ONNX Runtime: POST images to /predict."""
    from capsnet.inference.serving.server import serve as run

    run(model, host, port, workers, tuple(allow_host or ()), timeout)
