"""Memory that is reused: never by two tensors at once, and never without a bound."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from typing import Any

import pytest
import torch

from capsnet.convolution import FastConv2d, buffers


def test_a_buffer_lives_as_long_as_its_views() -> None:
    buffers.clear()
    lent = buffers.take(1 << 20)
    part = lent[:10]
    del lent
    assert buffers.idle_bytes() == 0
    del part
    gc.collect()
    assert buffers.idle_bytes() >= 4 << 20
    assert buffers.take(1 << 20).data_ptr() % 64 == 0
    buffers.clear()
    assert buffers.idle_bytes() == 0


def test_live_tensors_share_no_memory() -> None:
    buffers.clear()
    sizes = [1000, 1000, 3000, 1000, 2000]
    for _ in range(3):
        lent = [buffers.take(size).fill_(i) for i, size in enumerate(sizes)]
        assert all(bool((tensor == i).all()) for i, tensor in enumerate(lent))
        del lent


def test_memory_does_not_grow_with_the_steps() -> None:
    buffers.clear()
    conv, x = FastConv2d(64, 128, 9, 2), torch.rand(24, 64, 20, 20)

    def step() -> None:
        conv(x).sum().backward()
        with torch.no_grad():
            conv(x)

    for _ in range(3):
        step()
    gc.collect()
    before = buffers.idle_bytes()
    for _ in range(3):
        step()
    gc.collect()
    assert buffers.idle_bytes() == before > 0


def test_idle_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers.clear()
    monkeypatch.setattr(buffers, "KEEP", 1 << 24)
    for size in range(1 << 20, 1 << 22, 1 << 18):  # every size needs another buffer
        lent = [buffers.take(size), buffers.take(2 * size)]
        del lent
    gc.collect()
    assert 0 < buffers.idle_bytes() <= buffers.KEEP


def _take_in_child(connection: Any) -> None:
    connection.send(len(buffers.take(10)))


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_a_thread_takes_buffers() -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            buffers.take(1000)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            ours, theirs = multiprocessing.Pipe()
            child = multiprocessing.get_context("fork").Process(target=_take_in_child, args=(theirs,))
            child.start()
            try:
                assert ours.poll(60), "the forked process hangs"
                assert ours.recv() == 10
            finally:
                child.kill()
                child.join()
    finally:
        stop.set()
        thread.join()
