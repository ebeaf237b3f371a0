"""Work on PyTorch's own threads: errors, modes, operators inside a task."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from capsnet._support import threads


@pytest.fixture(params=["openmp", "alone"])
def with_or_without_openmp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "alone":
        monkeypatch.setattr(threads, "_openmp", lambda: None)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="other builds may come without OpenMP")
def test_tasks_run_on_pytorchs_own_threads(two_threads: None) -> None:
    both = threading.Barrier(2, timeout=60)  # passed by two threads at once
    threads.for_each(both.wait, [(), ()])


@pytest.mark.usefixtures("with_or_without_openmp")
def test_an_error_in_any_task_is_raised_after_the_others() -> None:
    done = []

    def fail(n: int) -> None:
        done.append(n)
        raise RuntimeError(f"task {n}")

    with pytest.raises(RuntimeError, match="task"):
        threads.for_each(fail, ((n,) for n in range(8)))
    assert sorted(done) == list(range(8))


@pytest.mark.usefixtures("with_or_without_openmp", "two_threads")
@pytest.mark.parametrize("inference", [True, False])
def test_tasks_see_the_callers_inference_mode_and_record_no_gradients(inference: bool) -> None:
    seen = []

    def look() -> None:
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with torch.inference_mode(inference):
        threads.for_each(look, [()] * 8)
    assert seen == [(inference, False)] * 8


@pytest.mark.usefixtures("with_or_without_openmp", "two_threads")
def test_operators_in_tasks_give_their_results() -> None:
    a, b = torch.randn(8, 60, 70), torch.randn(8, 70, 60)
    out = torch.empty(8, 60, 60)

    def multiply(x: Tensor, y: Tensor, into: Tensor) -> None:
        torch.mm(x, y, out=into)

    threads.for_each(multiply, zip(a, b, out, strict=True))
    torch.testing.assert_close(out, a @ b)


def test_no_tasks() -> None:
    threads.for_each(pytest.fail, [])


@pytest.mark.skipif(sys.platform != "linux", reason="other builds may come without OpenMP")
def test_denormal_numbers_count_as_0_in_all_tasks_and_only_there(two_threads: None) -> None:
    seen: list[Tensor] = []
    both, tiny = threading.Barrier(2, timeout=60), torch.tensor(2.0**-130)

    def look() -> None:
        both.wait()
        seen.append(tiny * 1)

    threads.for_each(look, [(), ()])
    assert [bool(value) for value in seen] == [False, False]
    assert tiny * 1 > 0
    with threads.without_denormals():
        threads.for_each(look, [(), ()])
        assert not tiny * 1, "as before the call"
    assert tiny * 1 > 0
