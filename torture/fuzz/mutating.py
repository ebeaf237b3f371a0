"""Mutate seeds without a fuzzer, reproducibly, for tests without Atheris."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

#: Values that often break parsers.
ODD = (b"\0", b"\xff", b"\x7f", b"\xff" * 4, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"-1", b"1e999", b"[" * 70)


def mutants(seeds: Sequence[bytes], words: Sequence[str], count: int) -> Iterator[bytes]:
    """Yield the seeds, then `count` inputs with a few changes each."""
    yield from seeds
    chance = random.Random(0)
    pieces = [*ODD, *(word.encode() for word in words)]
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            _change(data, chance, seeds, pieces)
        yield bytes(data)


def _change(data: bytearray, chance: random.Random, seeds: Sequence[bytes], pieces: Sequence[bytes]) -> None:
    start = chance.randrange(len(data) + 1)
    stop = min(len(data), start + chance.choice((1, 1, 2, 4, 8, 64)))
    kind = chance.randrange(6)
    if kind == 0:
        data[start:stop] = chance.randbytes(stop - start)
    elif kind == 1:
        del data[start:stop]
    elif kind == 2:
        del data[start:]
    elif kind == 3:
        data[start:start] = chance.choice(pieces)
    elif kind == 4:
        piece = chance.choice(pieces)
        data[start : start + len(piece)] = piece
    else:
        data[start:] = chance.choice(seeds)[start:]
