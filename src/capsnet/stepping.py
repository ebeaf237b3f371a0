"""One optimizer step, as fast as the device allows: eager on CPUs and many processes, a CUDA graph on one GPU."""

from __future__ import annotations

import os
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet.config import TrainConfig
from capsnet.data.dataset import Batch, Source
from capsnet.errors import CapsnetError
from capsnet.models.base import Classifier

#: Steps run eagerly before a CUDA graph is captured: kernels are compiled and buffers allocated in them.
WARM_UP_STEPS = 3


class NotFinite(CapsnetError):
    """The loss became NaN or infinite."""


class Objective(nn.Module):
    """The model's loss as a module, so that Accelerate can wrap it for many processes."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, originals: Tensor) -> dict[str, Tensor]:
        """Loss and its parts for a batch."""
        return self.model.loss(Batch(images, labels, originals))


class Stepper:
    """Model, optimizer and device, moved forward one global batch at a time.

    Args:
        model: is moved to the device.
        source: training examples; are moved to the device, see `source`.
        config: batch size, rate, precision.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: examples in a step, over all processes.

    Raises:
        CapsnetError: no such device; a batch that cannot be split evenly over the processes.
    """

    def __init__(
        self, model: Classifier, source: Source, config: TrainConfig, batch_size: int, device: str = "auto"
    ) -> None:
        self.accelerator = _accelerator(config.precision, device)
        self.device: torch.device = self.accelerator.device
        self.processes: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        if batch_size % self.processes:
            raise CapsnetError(
                f"a batch of {batch_size} cannot be split evenly over {self.processes} processes; "
                "choose a --batch-size that can"
            )
        self.model = model
        self.source = source.to(self.device)
        on_gpu = self.device.type == "cuda"
        self.uses_graph = on_gpu and self.processes == 1
        if on_gpu:
            model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = torch.tensor(config.learning_rate, device=self.device) if on_gpu else config.learning_rate
        self.optimizer = torch.optim.Adam(
            model.to(self.device).parameters(),
            lr=rate,
            fused=self.device.type in ("cpu", "cuda"),
            capturable=on_gpu,
        )
        self._objective = self.accelerator.prepare(Objective(model))
        self._graph: _Graph | None = None
        self._eager_steps = 0
        self._sums: Tensor | None = None
        self._names: list[str] = []
        self._count = 0

    def step(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"], rate: float
    ) -> None:
        """Train on one global batch; each process takes its share of it.

        Raises:
            NotFinite: the loss is no number any more (on GPUs noticed by `take_losses`). The weights are as
                they were before the step.
        """
        share = slice(self.accelerator.process_index, None, self.processes)
        self._set_rate(rate)
        if not self.uses_graph or self._eager_steps < WARM_UP_STEPS:
            losses = self._eager_step(indices[share], uniforms[share])
            self._eager_steps += 1
        else:
            if self._graph is None:
                self._graph = _Graph(self._eager_step, indices, uniforms)
            losses = self._graph.replay(indices, uniforms)
        self._sums = losses.clone() if self._sums is None else self._sums.add_(losses)
        self._count += 1

    def take_losses(self) -> dict[str, float]:
        """Means of the loss and its parts since the last call, over all processes.

        Raises:
            NotFinite: they are no numbers any more.
        """
        assert self._sums is not None
        means = self.accelerator.reduce(self._sums / self._count, reduction="mean").tolist()
        self._sums, self._count = None, 0
        if not all(isfinite(mean) for mean in means):
            raise NotFinite("the loss is not finite")
        return dict(zip(self._names, means, strict=True))

    def state(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on: weights, Adam's moments, PyTorch's random state.

        Raises:
            NotFinite: a weight is no number any more; such a state is not worth keeping.
        """
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            raise NotFinite("the weights are not finite")
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take up a saved `state`.

        Raises:
            CapsnetError: it belongs to another model.
        """
        moments: dict[int, dict[str, Tensor]] = {}
        weights = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = tensor
            elif kind == "optimizer":
                index, _, key = rest.partition(".")
                moments.setdefault(int(index), {})[key] = tensor
        try:
            self.model.load_state_dict(weights)
            groups: list[dict[str, Any]] = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise CapsnetError(f"the saved state does not fit the run's config.json: {reason}") from error
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)

    def _eager_step(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        batch = self.source.batch(indices, uniforms)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._objective(batch.images, batch.labels, batch.originals)
        if self.device.type == "cpu" and not torch.isfinite(losses["loss"]):
            raise NotFinite("the loss is not finite")
        self.accelerator.backward(losses["loss"])
        self.optimizer.step()
        self._names = list(losses)
        return torch.stack([part.detach() for part in losses.values()])

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


class _Graph:
    """A step captured once and replayed: a GPU step is some two hundred small launches otherwise."""

    def __init__(self, step: Any, indices: Tensor, uniforms: Tensor) -> None:
        self._indices, self._uniforms = indices.clone(), uniforms.clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses: Tensor = step(self._indices, self._uniforms)

    def replay(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        self._indices.copy_(indices)
        self._uniforms.copy_(uniforms)
        self._graph.replay()
        return self._losses


def pick_device(device: str) -> torch.device:
    """The device that a name stands for; "auto" is what Accelerate finds.

    Raises:
        CapsnetError: no such device here.
    """
    from accelerate import PartialState

    if device == "cuda" and not torch.cuda.is_available():
        raise CapsnetError("no CUDA device is available here; use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise CapsnetError("no MPS device is available here; use --device cpu or auto")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise CapsnetError(f"device {device!r} is none of auto, cpu, cuda, mps")
    if device == "auto":
        found: torch.device = PartialState().device
        return found
    return torch.device(device)


def is_main_process() -> bool:
    """Whether this process is the one that writes (the only one, unless launched as several)."""
    return os.environ.get("RANK", "0") == "0"


def _accelerator(precision: str, device: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    cpu = pick_device(device).type == "cpu"
    # A process may train several models, each with its own settings; Accelerate's state is a singleton.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(mixed_precision={"fp32": "no", "bf16": "bf16"}[precision], cpu=cpu)
