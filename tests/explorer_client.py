"""A model to explore, its server, and requests to it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from torch import Tensor

from capsnet._support.sockets import listen
from capsnet.explorer.app import create_app
from capsnet.explorer.session import Session
from capsnet.models import CapsNet, CapsNetConfig

SMALL = CapsNetConfig(stem_channels=16, primary_types=4, decoder=(32, 48))


def save(folder: Path, config: CapsNetConfig = SMALL, weight: float = 3.0) -> Path:
    """An untrained model whose votes are long enough for routing to decide something."""
    torch.manual_seed(3)
    model = CapsNet(config)
    with torch.no_grad():
        model.class_capsules.weight.mul_(weight)
    model.save_pretrained(folder)
    return folder


@contextmanager
def served(session: Session) -> Iterator[str]:
    """A real server on a free port."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create_app(session), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


def unpack(packed: dict[str, Any]) -> Tensor:
    data = np.frombuffer(base64.b64decode(packed["data"]), "<f4" if packed["dtype"] == "float32" else "u1")
    return torch.from_numpy(data.reshape(packed["shape"]).copy())


def layer(session: Session, index: int, **transform: float) -> dict[str, Any]:
    return {"pixels": (session.pictures[index].flatten().double() / 255).tolist(), "transform": transform}


def ask(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/api/{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
