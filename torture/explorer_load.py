"""Load the explorer with valid, malformed and aborted requests."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, quantiles
from urllib.parse import urlsplit

import httpx
import psutil

from torture.explorer_visitors import HangUp, Question, Visitors
from torture.part import Part, Trial

#: Seconds after which a request counts as stuck.
STUCK = 60.0
#: Share of visits with a malformed request, and share of visits that hang up.
BAD, RUDE = 0.1, 0.1
#: Numbers of simultaneous clients to try. The smallest one with this share of the best rate is taken.
CROWDS, ENOUGH = (1, 2, 4, 8, 16), 0.95
#: Largest growth of the server's memory, in MB per 1,000 requests. A growth of this size is visible in 30 minutes.
SLOPE = 0.1


@dataclass
class Tally:
    """Count the server's answers."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Kind of question → seconds of each answer."""
    wrong: list[str] = field(default_factory=list)
    """Valid requests with a wrong answer or none."""
    bad: int = 0
    wrongly_taken: list[str] = field(default_factory=list)
    """Invalid requests that were not refused correctly."""
    rude: int = 0
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(visits so far, the server's resident memory in MB)."""

    @property
    def good(self) -> int:
        """Return the number of valid requests."""
        return sum(map(len, self.seconds.values())) + len(self.wrong)

    @property
    def visits(self) -> int:
        """Return the number of all visits."""
        return self.good + self.bad + self.rude


async def ask(client: httpx.AsyncClient, question: Question) -> str:
    """Send one request; return what is wrong with the answer, or ""."""

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    body = pieces(question.body) if question.in_pieces and question.body else question.body
    method = "GET" if question.body is None else "POST"
    try:
        answer = await client.request(method, question.path, content=body, headers=question.headers)
    except httpx.TimeoutException:
        return f"{question.path}: no answer in {STUCK:.0f} s"
    except httpx.TransportError as error:
        # The server refuses a large body early and closes, and the answer may be lost.
        return "" if 413 in question.right else f"{question.path}: {error!r}"
    return "" if answer.status_code in question.right else f"{question.path}: {answer.status_code}"


async def hang_up(port: int, visit: HangUp) -> None:
    """Send a part of a request and hang up."""
    with suppress(ConnectionError):  # the server may refuse before everything is sent
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(visit.sent)
        await writer.drain()
        await asyncio.sleep(visit.after)
        writer.transport.abort()


async def crowd(
    address: str, clients: int, seconds: float, seed: int, server: psutil.Process, visits: int = 1_000_000
) -> Tally:
    """Run simultaneous clients without pauses, for a time or a number of visits."""
    tally, until = Tally(), time.monotonic() + seconds
    parts = urlsplit(address)
    assert parts.port is not None
    sampled = 0.0

    async def one(number: int) -> None:
        nonlocal sampled
        visitors, chance = Visitors(parts.netloc, seed * 1000 + number), random.Random(number)
        async with httpx.AsyncClient(base_url=address, timeout=STUCK, trust_env=False) as client:
            while (now := time.monotonic()) < until and tally.visits < visits:
                if now > sampled + seconds / 400:
                    sampled = now
                    tally.memory.append((tally.visits, server.memory_info().rss / 1e6))
                which = chance.random()
                if which < RUDE:
                    await hang_up(parts.port or 0, visitors.rude())
                    tally.rude += 1
                elif which < RUDE + BAD:
                    wrong = await ask(client, visitors.bad())
                    tally.bad += 1
                    tally.wrongly_taken += [wrong] * bool(wrong)
                else:
                    kind, question = visitors.good()
                    wrong = await ask(client, question)
                    if wrong:
                        tally.wrong.append(wrong)
                    else:
                        tally.seconds.setdefault(kind, []).append(time.monotonic() - now)

    await asyncio.gather(*(one(number) for number in range(clients)))
    return tally


@contextmanager
def explorer(log: Path) -> Iterator[tuple[str, psutil.Popen]]:
    """Start `capsnet explore`; yield its address and its process."""
    command = [sys.executable, "-m", "capsnet", "explore", "--no-browser", "--port", "0"]
    with log.open("w") as errors:
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://\S+/", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the explorer did not start: {log.read_text()}")
            time.sleep(0.05)
        yield found.group(), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def open_connections(process: psutil.Process) -> int:
    """Count the connections still open 30 seconds after all clients left."""
    deadline = time.monotonic() + 30
    while True:
        states = [connection.status for connection in process.net_connections("tcp")]
        left = len(states) - states.count(psutil.CONN_LISTEN)
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def make(work: Path, short: bool) -> Sequence[Trial]:
    """Find the best number of clients, load the server for 30 minutes, check it."""
    ramp_seconds, seconds, visits = (2, 60, 150) if short else (15, 1800, 1_000_000)
    log = work / "explorer.log"
    with explorer(log) as (address, process):
        rates = {}
        for clients in CROWDS[1:2] if short else CROWDS:
            rates[clients] = asyncio.run(crowd(address, clients, ramp_seconds, 1, process)).visits
        clients = min(n for n, rate in rates.items() if rate >= ENOUGH * max(rates.values()))
        stuck, files = open_connections(process), process.num_fds()
        began = time.monotonic()
        tally = asyncio.run(crowd(address, clients, seconds, 2, process, visits))
        took = time.monotonic() - began
        stuck += open_connections(process)
        files = max(0, process.num_fds() - files)
        answer = asyncio.run(last_visit(address))
        process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired):
            process.wait(20)
        ended = process.poll() == 0
    tracebacks = log.read_text(encoding="utf-8").count("Traceback")
    first, last, slope = growth(tally.memory)
    return [
        Trial(
            f"{clients} clients without pause: every question of a visitor is answered within {STUCK:.0f} s",
            tally.good,
            len(tally.wrong),
            f"{tally.visits / took:.0f} requests per second; {latencies(tally)}"
            + "".join(f"; {wrong}" for wrong in tally.wrong[:3]),
        ),
        Trial(
            "malformed, oversized, foreign requests among them: refused with the right status",
            tally.bad,
            len(tally.wrongly_taken),
            "; ".join(tally.wrongly_taken[:3]),
        ),
        Trial(
            "clients among them that hang up in the middle: no connection or file left open, nothing computing",
            tally.rude,
            stuck + files + bool(answer),
            answer,
        ),
        Trial(
            f"the server's memory after warming up: less than {SLOPE} MB more per 1,000 requests",
            1,
            int(slope > SLOPE and not short),
            f"{slope:+.3f} MB per 1,000 requests; {first:.0f} MB, in the end {last:.0f} MB",
        ),
        Trial(
            "Ctrl-C afterwards: exit code 0, no traceback on its screen", 1, int(not ended or tracebacks > 0)
        ),
    ]


async def last_visit(address: str) -> str:
    """Send one more stroke; return what is wrong with the answer, or ""."""
    visitors = Visitors(urlsplit(address).netloc, 0)
    async with httpx.AsyncClient(base_url=address, timeout=STUCK, trust_env=False) as client:
        return await ask(client, next(q for kind, q in iter(visitors.good, None) if kind == "stroke"))


def latencies(tally: Tally) -> str:
    """Format median, 95th and 99th percentile of the seconds of each kind of request."""
    texts = []
    for kind, seconds in sorted(tally.seconds.items(), key=lambda item: -len(item[1])):
        if len(seconds) > 1:
            at = quantiles(seconds, n=100, method="inclusive")
            texts.append(f"{kind} {at[49] * 1000:.0f} / {at[94] * 1000:.0f} / {at[98] * 1000:.0f} ms")
    return f"median, 95 %, 99 %: {', '.join(texts)}"


def growth(memory: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Return MB after a third of the visits and at the end, and MB per 1,000."""
    warm = [sample for sample in memory if sample[0] >= memory[-1][0] / 3]
    fit = linear_regression([visits / 1000 for visits, _ in warm], [size for _, size in warm])
    return warm[0][1], warm[-1][1], fit.slope


PART = Part(
    "explorer",
    "The explorer under load",
    "A short ramp finds the number of clients that `capsnet explore` serves at the highest rate. These clients send "
    "requests for 30 minutes without pauses: strokes, sliders, pages and details. One visit in ten is malformed, and "
    "one in ten hangs up.",
    make,
)
