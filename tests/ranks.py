"""Processes of one launch, forked in milliseconds: what `torchrun` starts, without its ten seconds."""

import os
import socket
from functools import partial
from pathlib import Path

from torture.launch import Launched, launch


def launch_ranks(folder: Path, count: int, *arguments: object) -> list[Launched]:
    """Start `capsnet ARGUMENTS` as `count` connected processes. "{rank}" in an argument becomes the process's rank.

    What rank 0 prints, and on errors each of them, is in `said`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        launch(
            folder / f"rank-{rank}.log",
            *(str(part).replace("{rank}", str(rank)) for part in arguments),
            before=partial(_be, {**shared, "RANK": rank, "LOCAL_RANK": rank}),
        )
        for rank in range(count)
    ]


def _be(variables: dict[str, object]) -> None:
    os.environ.update({name: str(value) for name, value in variables.items()})
