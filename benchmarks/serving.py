"""Measure `capsnet serve` on this machine, beside the same application with PyTorch.

    capsnet export capsnet-mnist model.onnx
    python benchmarks/serving.py model.onnx --torch capsnet-mnist --csv benchmarks/results/serving.csv

Start time is from the start of the process to the first answer. Clients are connections that send one image at a time
and wait for the answer. Both servers run in turn, round by round, so that other load affects both.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from capsnet._support.environment import processor

#: A server whose model is computed by PyTorch; all else is the same.
TORCH = """
import sys, torch
from capsnet.models import load_model
from capsnet.inference.serving import app, server
class TorchModel:
    def __init__(self, name):
        self.model, self.name = load_model(name), name
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--torch", default="capsnet-mnist", help="the same model for PyTorch")
    parser.add_argument("--requests", type=int, default=500, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=100_000, help="requests of the memory test; 0: none")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    commands = {
        "onnx": [sys.executable, "-m", "capsnet", "serve", str(options.onnx), "--port", "0"],
        "torch": [sys.executable, "-c", TORCH, options.torch, str(options.onnx)],
    }
    rows: list[dict[str, Any]] = []

    def add(server: str, what: str, clients: int, value: float) -> None:
        rows.append({"server": server, "what": what, "clients": clients, "value": round(value, 3)})
        print(*rows[-1].values(), flush=True)

    with served(commands["onnx"]) as ours, served(commands["torch"]) as other:
        found = {"onnx": ours, "torch": other}
        for name, (_, process, start) in found.items():
            add(name, "start, s", 0, start)
            add(name, "CPU time until the first answer, s", 0, sum(process.cpu_times()[:2]))
            add(name, "memory after the start, MB", 0, process.memory_info().rss / 1e6)
        for clients in (1, 8, 64):
            turns = [
                (name, measure(port, clients, options.requests))
                for _ in range(options.rounds)
                for name, (port, _, _) in found.items()
            ]
            for name in found:
                for key in ("per_second", "p99_ms"):
                    add(name, key, clients, statistics.median(one[key] for who, one in turns if who == name))
        port, process, _ = ours
        for part in range(10 if options.memory else 0):
            measure(port, 8, options.memory // 10)
            add(
                "onnx",
                f"memory after {(part + 1) * options.memory // 10} more, MB",
                8,
                process.memory_info().rss / 1e6,
            )
    if options.csv:
        with options.csv.open("w", newline="") as file:
            about = {"processor": processor(), "cores": psutil.cpu_count()}
            writer = csv.DictWriter(file, [*rows[0], *about])
            writer.writeheader()
            writer.writerows(row | about for row in rows)


if __name__ == "__main__":
    main()
