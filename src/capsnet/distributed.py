"""Devices, ranks, and work shared by the processes of one `torchrun` launch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import Enum
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from capsnet._support.errors import CapsnetError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

Item = TypeVar("Item")
Result = TypeVar("Result")


def pick_device(device: str) -> torch.device:
    """Return the device with this name. "auto" is the device that Accelerate finds.

    Raises:
        CapsnetError: this machine has no such device.
    """
    import torch
    from accelerate import PartialState

    if device == "cuda" and not torch.cuda.is_available():
        raise CapsnetError("no CUDA device is available here; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise CapsnetError("no MPS device is available here; use --device cpu or auto")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise CapsnetError(f"there is no device {device!r}; choose one of auto, cpu, cuda, mps")
    if device == "auto":
        # On a machine without an accelerator, PartialState() without `cpu=True` would not connect the ranks.
        if not torch.accelerator.is_available():
            return torch.device("cpu")
        found: torch.device = PartialState().device
        return found
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one GPU for each process of a launch
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)


def accelerator(device: str, **options: Any) -> Accelerator:
    """Return a new `Accelerator` for a device, which connects the processes of a launch; options are its own.

    Accelerate's state is a singleton, but one process may train several models with different settings.

    Raises:
        CapsnetError: this machine has no such device.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    cpu = pick_device(device).type == "cpu"
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(cpu=cpu, **options)


def has_fast_bf16() -> bool:
    """Return whether this machine's arithmetic in bfloat16 is faster than in float32."""
    import torch

    if torch.accelerator.is_available():
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def is_main_process() -> bool:
    """Return whether this process is rank 0, the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


class ConnectionLost(CapsnetError):
    """Another process of the launch has ended, or cannot be reached."""


def require_single_process(command: str, instead: str) -> None:
    """Raise if several processes were launched; they would write the same files.

    Args:
        command: the command that needs a single process.
        instead: how to use more of the machine.

    Raises:
        CapsnetError: this process is one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CapsnetError(f"`capsnet {command}` runs in one process; start it without torchrun{instead}")


@contextmanager
def connected(advice: str = "give the same command again") -> Iterator[None]:
    """Turn PyTorch's errors about a lost connection into `ConnectionLost`.

    Args:
        advice: how to continue, for the message.

    Raises:
        ConnectionLost: the connection to another process was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_a_connection(error):
            raise
        raise ConnectionLost(
            f"another process of this launch has ended or cannot be reached; {advice}"
        ) from error


def _is_of_a_connection(error: RuntimeError) -> bool:
    from torch import distributed

    # Gloo raises plain RuntimeErrors; their messages name a file of Gloo's source.
    if "/gloo/" in str(error):
        return True
    return distributed.is_available() and isinstance(error, distributed.DistError)


@contextmanager
def joint_shutdown() -> Iterator[None]:
    """Wait for all ranks at the end of the block, then close the connection.

    Without this, the launcher could kill a rank that is still saving, and open connections could abort the exit of a
    process. Also applies to `sys.exit`; after other errors the process ends at once.
    """
    try:
        yield
    except SystemExit:
        _shut_down()
        raise
    _shut_down()


def _shut_down() -> None:
    from accelerate import PartialState
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        with suppress(RuntimeError):  # another rank was killed, so there is nothing to wait for
            PartialState().wait_for_everyone()
        distributed.destroy_process_group()


class _Signal(Enum):
    """What rank 0 sends in place of a share of the work."""

    DONE = "this call of map is finished"
    OVER = "there will be no more calls"


class WorkerGroup(AbstractContextManager["WorkerGroup"]):
    """Distribute work over the processes of a launch and gather results in order.

    The launcher is `torchrun`. Rank 0 has the work items and gets the results. A single process does everything itself.

    Use in a with statement. All ranks must make the same calls of `map` in the same order. If rank 0 fails between
    calls, the other ranks get no more work and return.
    """

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self._group: Any = None
        self._over = self.size == 1
        self._in_step = True
        if self.size > 1:
            from torch import distributed

            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
            self._group = distributed.new_group(backend="gloo")  # results are in main memory, not on a GPU

    @property
    def is_main(self) -> bool:
        """Return whether this process is rank 0, which gets the results."""
        return self.rank == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut all ranks down together.

        A rank that failed during work ends at once; the others notice.
        """
        if self.size == 1 or not self._in_step or (error is not None and not self.is_main):
            return
        # The other ranks may have failed for the same reason. Report this rank's own error.
        with suppress(*(() if error is None else (ConnectionLost,))):
            if not self._over:
                self._scatter([_Signal.OVER] * self.size if self.is_main else None)
            self._shut_down()

    def map(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        """Yield work(item) for every item, in order; only in rank 0.

        The other ranks work too, but yield nothing. Each rank works on one item at a time. Only rank 0 reads `items`.
        An error in `work` ends that process, and so the launch.

        Raises:
            ConnectionLost: another process has ended.
        """
        if self.size == 1:
            yield from map(work, items)
        elif self.is_main:
            yield from self._lead(work, items)
        elif not self._over:
            while not isinstance(share := self._scatter(None), _Signal):
                self._gather([work(item) for item in share])
            self._over = share is _Signal.OVER

    def _lead(self, work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
        try:
            while chunk := list(islice(items, self.size)):
                own = self._scatter([chunk[rank : rank + 1] for rank in range(self.size)])
                assert not isinstance(own, _Signal)
                for results in self._gather([work(item) for item in own]):
                    yield from results
        finally:  # also when `items` fails, or the caller stops reading results
            if self._in_step and not self._over:
                self._scatter([_Signal.DONE] * self.size)

    def _shut_down(self) -> None:
        """Wait for all ranks, then close the connection: an open one could abort the exit."""
        from torch import distributed

        self._over = True
        self._gather([])
        distributed.destroy_process_group()

    def _scatter(self, shares: Sequence[Any] | None) -> list[Any] | _Signal:
        """Return this rank's share of the work.

        The ranks are out of step until results are gathered.
        """
        from torch import distributed

        share: list[Any] = [None]
        self._in_step = False
        with connected():
            distributed.scatter_object_list(share, list(shares) if shares else None, src=0, group=self._group)
        own: list[Any] | _Signal = share[0]
        if isinstance(own, _Signal):  # there will be no results
            self._in_step = True
            self._over = own is _Signal.OVER
        return own

    def _gather(self, results: list[Result]) -> list[list[Result]]:
        """Return the results of all ranks; in rank 0 only."""
        from torch import distributed

        gathered: list[Any] | None = [None] * self.size if self.is_main else None
        with connected():
            distributed.gather_object(results, gathered, dst=0, group=self._group)
        self._in_step = True
        return gathered or []
