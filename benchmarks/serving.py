"""Measure `capsnet serve` on this machine, beside the same application with PyTorch.

    capsnet export capsnet-mnist model.onnx
    python benchmarks/serving.py model.onnx --torch capsnet-mnist --memory 0 --csv benchmarks/results/serving.csv
    python benchmarks/serving.py model.onnx --rounds 0 --csv benchmarks/results/serving.csv    # adds memory

Start time is from the start of the process to the first answer. Clients are connections that send one image at a time
and wait for the answer. Both servers run in turn, round by round, so that other load affects both. Memory is the
resident memory of the ONNX server, measured after every 5,000 requests of 8 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from capsnet._support.environment import processor

#: Requests between two measurements of memory.
SAMPLED = 5_000
#: A server whose model is computed by PyTorch; all else is the same.
TORCH = """
import sys, torch
from capsnet.models import load_model
from capsnet.inference.serving import app, server
class TorchModel:
    def __init__(self, name):
        self.model = load_model(name)
        self.image_shape, self.class_names = tuple(self.model.config.image_shape), tuple(self.model.class_names)
    @torch.no_grad()
    def scores(self, images):
        return self.model.scores(torch.from_numpy(images)).numpy()
app.OnnxModel.open = lambda path, threads: (torch.set_num_threads(threads), TorchModel(sys.argv[1]))[1]
server.serve(sys.argv[2], port=0)
"""


@contextmanager
def served(command: list[str]) -> Iterator[tuple[int, psutil.Process, float]]:
    """Start a server; yield its port, its process and the seconds until its first answer."""
    start = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            while "/predict" not in line:
                assert line, "the server ended"
                line = process.stderr.readline()
            port = int(line.split()[1].split(":")[2].partition("/")[0])
            asyncio.run(crowd(port, 1, 1, shape=(1, 28, 28)))
            yield port, psutil.Process(process.pid), time.perf_counter() - start
        finally:
            process.terminate()


async def crowd(port: int, clients: int, requests: int, shape: tuple[int, ...]) -> list[float]:
    """Send that number of requests over all clients; return the seconds of each."""
    pixels = np.random.default_rng(0).integers(0, 256, shape) / 255
    body = json.dumps({"images": [pixels.round(3).tolist()]}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\n"
    message = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    left, times = iter(range(requests)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            start = time.perf_counter()
            writer.write(message)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = next(
                line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(int(length.split(b":")[1]))
            times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return times


def measure(port: int, clients: int, requests: int) -> dict[str, float]:
    start = time.perf_counter()
    times = asyncio.run(crowd(port, clients, requests, (1, 28, 28)))
    spent = time.perf_counter() - start
    return {"per_second": requests / spent, "p99_ms": 1e3 * float(np.quantile(times, 0.99))}


def speeds(
    servers: dict[str, tuple[int, psutil.Process, float]],
    rounds: int,
    requests: int,
    add: Callable[[str, str, int, float], None],
) -> None:
    """Measure the start, then requests per second and the 99th percentile of both servers in turn."""
    for name, (_, process, start) in servers.items():
        add(name, "start, s", 0, start)
        add(name, "CPU time until the first answer, s", 0, sum(process.cpu_times()[:2]))
        add(name, "memory after the start, MB", 0, process.memory_info().rss / 1e6)
    for clients in (1, 8, 64):
        turns = [
            (name, measure(port, clients, requests))
            for _ in range(rounds)
            for name, (port, _, _) in servers.items()
        ]
        for name in servers:
            for key in ("per_second", "p99_ms"):
                add(name, key, clients, statistics.median(one[key] for who, one in turns if who == name))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--torch", default="capsnet-mnist", help="the same model for PyTorch")
    parser.add_argument("--requests", type=int, default=500, help="of a round")
    parser.add_argument("--rounds", type=int, default=5, help="0: speed is not measured")
    parser.add_argument("--memory", type=int, default=100_000, help="requests of the memory test; 0: none")
    parser.add_argument("--csv", type=Path, help="a new file, or with --rounds 0 one to add to")
    options = parser.parse_args()
    commands = {
        "onnx": [sys.executable, "-m", "capsnet", "serve", str(options.onnx), "--port", "0"],
        "torch": [sys.executable, "-c", TORCH, options.torch, str(options.onnx)],
    }
    rows: list[dict[str, Any]] = []

    def add(server: str, what: str, clients: int, value: float) -> None:
        rows.append({"server": server, "what": what, "clients": clients, "value": round(value, 3)})
        print(*rows[-1].values(), flush=True)

    if options.rounds:
        with served(commands["onnx"]) as ours, served(commands["torch"]) as other:
            speeds({"onnx": ours, "torch": other}, options.rounds, options.requests, add)
    if options.memory:
        with served(commands["onnx"]) as (port, process, _):
            for sent in range(SAMPLED, options.memory + 1, SAMPLED):
                measure(port, 8, SAMPLED)
                add("onnx", f"memory after {sent} requests, MB", 8, process.memory_info().rss / 1e6)
    if options.csv:
        with options.csv.open("w" if options.rounds else "a", newline="") as file:
            about = {"processor": processor(), "cores": psutil.cpu_count()}
            writer = csv.DictWriter(file, [*rows[0], *about])
            if not file.tell():
                writer.writeheader()
            writer.writerows(row | about for row in rows)


if __name__ == "__main__":
    main()
