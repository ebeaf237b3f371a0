"""Generate valid and invalid requests with their expected statuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

JSON = {"content-type": "application/json"}
#: Statuses of refusals; 400 means that the body is not JSON or the request not HTTP.
REFUSED = frozenset({400, 403, 404, 405, 413, 415, 422})
PAGES = ("/", "/main.js", "/style.css", "/views/routing.js", "/openapi.json", "/api/model", "/api/examples")


@dataclass(frozen=True)
class Question:
    """Hold one request and its expected statuses."""

    path: str
    body: bytes | None = None
    """None for a GET request."""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    right: frozenset[int] = frozenset({200})
    in_pieces: bool = False
    """Whether to send it chunked, without its length. The server may hang up before it has read everything."""


@dataclass(frozen=True)
class HangUp:
    """Hold the bytes that a client sends before it hangs up."""

    sent: bytes
    after: float
    """Seconds between the last byte and the end."""


class Visitors:
    """Draw random visits. The same seed gives the same visits.

    Args:
        authority: host and port of the server.
        seed: random seed.
    """

    def __init__(self, authority: str, seed: int) -> None:
        self.authority = authority
        self._random = random.Random(seed)

    def good(self) -> tuple[str, Question]:
        """Return a valid request, as the page sends it: mostly strokes and sliders."""
        kinds: dict[str, tuple[int, Callable[[], Question]]] = {
            "stroke": (45, self._stroke),
            "slider": (30, self._slider),
            "page": (15, lambda: Question(self._random.choice(PAGES))),
            "detail": (10, self._detail),
        }
        kind = self._random.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        return kind, kinds[kind][1]()

    def bad(self) -> Question:
        """Return an invalid request of a random kind."""
        chance = self._random
        good = self._stroke().body
        assert good is not None
        stranger = {"host": "evil.example"} if chance.random() < 0.5 else {"origin": "http://evil.example"}
        return chance.choice(
            [
                Question("/api/trace", good[: chance.randrange(len(good))], right=REFUSED),
                Question("/api/trace", chance.randbytes(chance.randrange(5000)), right=REFUSED),
                Question("/api/trace", b"[" * 50_000, right=REFUSED),
                Question("/api/trace", good.replace(b"0.0", b"NaN", 1), right=REFUSED),
                Question("/api/trace", b'{"layers": [{"pixels": [0.5]}]}', right=REFUSED),
                Question("/api/trace", b" " * 2_500_000, right=frozenset({413})),
                Question("/api/trace", b" " * 2_500_000, right=frozenset({413}), in_pieces=True),
                Question("/api/trace", good, {"content-type": "text/plain"}, frozenset({415})),
                Question("/api/trace", good, {**JSON, **stranger}, frozenset({403})),
                Question(
                    "/api/picture", chance.randbytes(9000), {"content-type": "image/png"}, frozenset({422})
                ),
                Question("/..%2fapp.py", None, {}, REFUSED),
            ]
        )

    def rude(self) -> HangUp:
        """Return a request that is aborted in its header, in its body or later."""
        body = self._stroke().body
        assert body is not None
        head = f"POST /api/trace HTTP/1.1\r\nHost: {self.authority}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        cut = self._random.choice([self._random.randrange(1, len(request)), len(request)])
        return HangUp(request[:cut], self._random.choice([0.0, self._random.uniform(0, 0.1)]))

    def _scene(self) -> dict[str, object]:
        """One digit, sometimes two: a wandering pen's line, moved."""
        chance = self._random
        layers = []
        for _ in range(1 + (chance.random() < 0.2)):
            pixels = [0.0] * 784
            row, column = chance.randrange(28), chance.randrange(28)
            for _ in range(60):
                pixels[row * 28 + column] = round(chance.uniform(0.4, 1), 3)
                row = min(27, max(0, row + chance.choice((-1, 0, 1))))
                column = min(27, max(0, column + chance.choice((-1, 0, 1))))
            layers.append({"pixels": pixels, "transform": {"rotation": round(chance.uniform(-40, 40), 1)}})
        return {"layers": layers}

    def _stroke(self) -> Question:
        return _asked("trace", {**self._scene(), "iterations": self._random.choice((3, 3, 3, 1, 10))})

    def _slider(self) -> Question:
        pose = [round(self._random.uniform(-0.5, 0.5), 3) for _ in range(16)]
        return _asked("decode", {"number": self._random.randrange(10), "pose": pose})

    def _detail(self) -> Question:
        """Return a request of one of the stages' detail views."""
        chance, scene = self._random, self._scene()
        choices: list[tuple[str, dict[str, object]]] = [
            ("child", {**scene, "child": chance.randrange(1152), "parent": chance.randrange(10)}),
            ("pixel", {**scene, "channel": chance.randrange(256), "row": 5, "column": 7}),
            ("pool", {**scene, "channel": chance.randrange(256)}),
            ("maps", scene),
            ("sweep", {**scene, "parameter": chance.choice(("rotation", "shift_x", "scale"))}),
            ("ablation", scene),
            ("sheet", {"number": chance.randrange(10), "pose": [0.2] * 16}),
        ]
        return _asked(*chance.choice(choices))


def _asked(path: str, body: dict[str, object]) -> Question:
    return Question(f"/api/{path}", json.dumps(body).encode())
