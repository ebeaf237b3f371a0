"""One optimizer step: replayed from CUDA graphs on GPUs, eager on CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet.data.dataset import Batch, Source
from capsnet.distributed import pick_device
from capsnet.models.base import Classifier
from capsnet.training.average import Average
from capsnet.training.config import TrainConfig
from capsnet.training.gradients import SharedGradients

#: Eager steps before a CUDA graph is captured. They compile kernels and allocate buffers.
WARM_UP_STEPS = 3


class NonfiniteStep(NamedTuple):
    """A skipped step: it did not change weights and moments."""

    number: int
    """Index among the steps of one call of `Stepper.results`."""
    what: Literal["loss", "gradients"]
    """What was NaN or infinite."""


class StepResults(NamedTuple):
    """Losses of the last steps."""

    losses: dict[str, float]
    """Means of the loss and its parts over the finite steps and all processes; empty without such a step."""
    nonfinite: list[NonfiniteStep]


class Objective(nn.Module):
    """The model's loss as a module, which Accelerate can wrap for its precision."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor, originals: Tensor) -> dict[str, Tensor]:
        """Return the loss of a batch and its parts."""
        return self.model.loss(Batch(images, labels, originals))


class Stepper:
    """Train a model on a device, one global batch at a time.

    Args:
        model: is moved to the device.
        source: training examples. A copy is moved to the device: the attribute `source`.
        config: batch size, learning rate, precision.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: examples per step, over all processes.
        steps: number of all steps, for the average of the weights.

    Raises:
        CapsnetError: the device does not exist, a batch cannot be split evenly over the processes, or several launched
            processes are not connected.
    """

    def __init__(
        self,
        model: Classifier,
        source: Source,
        config: TrainConfig,
        batch_size: int,
        device: str = "auto",
        steps: int = 1,
    ) -> None:
        self.accelerator = _accelerator(config.precision, device)
        self.device: torch.device = self.accelerator.device
        self.processes: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        _check_launch(self.processes)
        if batch_size % self.processes:
            raise CapsnetError(
                f"a batch of {batch_size} cannot be split evenly over {self.processes} processes; "
                "choose another --batch-size or number of processes"
            )
        self.model = model
        self.source = source.to(self.device)
        on_gpu = self.device.type == "cuda"
        self.uses_graph = on_gpu
        if on_gpu:
            model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = torch.tensor(config.learning_rate, device=self.device) if on_gpu else config.learning_rate
        self._fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(
            model.to(self.device).parameters(), lr=rate, fused=self._fused, capturable=on_gpu
        )
        self._objective = self.accelerator.prepare_model(Objective(model), evaluation_mode=True)
        # After `prepare_model`, whose `model.to` gives the weights other gradients.
        self._shared = SharedGradients(model, self.processes) if self.processes > 1 else None
        self._average = Average(model, config.average, steps) if config.average else None
        self._before: list[tuple[Tensor, Tensor]] = []
        self._graph: _Graph | None = None
        self._eager_steps = 0
        self._names: list[str] = []
        self._rows: list[Tensor] = []

    def step(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"], rate: float
    ) -> None:
        """Train on one global batch. Each process takes its share of the batch.

        A step with a non-finite loss or gradient changes nothing; `results` reports it.
        """
        share = slice(self.accelerator.process_index, None, self.processes)
        self._set_rate(rate)
        if not self.uses_graph or self._eager_steps < WARM_UP_STEPS:
            with _without_denormals(self.device):
                row = self._eager_step(indices[share], uniforms[share])
            self._eager_steps += 1
        else:
            if self._graph is None:
                self._graph = _Graph(self, indices[share], uniforms[share])
            row = self._graph.replay(indices[share], uniforms[share])
        self._rows.append(row.clone())
        if self._average is not None:
            self._average.update(self.model)

    @torch.no_grad()
    def drop_denormals(self) -> None:
        """Set the moments of Adam that are below the smallest normal number, 1.2e-38, to 0; on a CPU only.

        Moments of units that never fire shrink until they stay just above 0. Arithmetic with such numbers takes ten times
        as long on some processors; a whole step took 1.5 times as long. They are too small to change a weight.
        """
        if self.device.type != "cpu":
            return
        for moments in self.optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                moment = moments[name]
                moment.masked_fill_(moment.abs() < torch.finfo(moment.dtype).tiny, 0)

    @property
    def result(self) -> Classifier:
        """Return the model that is measured: the average of the weights, if there is one."""
        return self.model if self._average is None else self._average.model

    def finish(self) -> None:
        """Give the trained model the averaged weights, after the last step."""
        self.model.load_state_dict(self.result.state_dict())

    def is_known_nonfinite(self) -> bool:
        """Return whether the last step was non-finite. Always False on a GPU: no sync."""
        return self.device.type == "cpu" and bool(self._rows[-1][-2:].any())

    def maximum(self, number: int) -> int:
        """Return the maximum of a number over all processes. Synchronises with the device.

        Every process must call this in the same step.
        """
        if self.processes == 1:
            return number
        greatest = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX)
        return int(greatest)

    def results(self) -> StepResults:
        """Return the losses since the last call. Synchronises with the device."""
        rows = torch.stack(self._rows)
        self._rows = []
        flags = rows[:, -2:].bool()
        nonfinite = [
            NonfiniteStep(number, "loss" if loss else "gradients")
            for number, (loss, gradients) in enumerate(flags.tolist())
            if loss or gradients
        ]
        if len(nonfinite) == len(rows):
            return StepResults({}, nonfinite)
        finite = rows[~flags.any(dim=1), :-2]
        # divided before they are added, since a sum may overflow where the mean does not
        shares = (finite / (len(finite) * self.processes)).sum(dim=0)
        means = self.accelerator.reduce(shares, reduction="sum")
        return StepResults(dict(zip(self._names, means.tolist(), strict=True)), nonfinite)

    def check_weights(self) -> None:
        """Raise if a weight is not finite, for example after a diverging update.

        Raises:
            NotFinite: a weight is NaN or infinite.
        """
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            raise NotFinite("the weights are not finite")

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of a checkpoint: weights, Adam's moments, random state.

        Raises:
            NotFinite: a weight or a moment is NaN or infinite; such a state is not saved.
        """
        self.check_weights()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self._average is not None:
            averaged = self._average.model.state_dict()
            tensors |= {f"average.{name}": tensor for name, tensor in averaged.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            if not all(bool(torch.isfinite(moment).all()) for moment in moments.values()):
                raise NotFinite("the optimizer's moments are not finite")
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore a saved `state`.

        Raises:
            CapsnetError: the state does not fit this model.
        """
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
        try:
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                if kind in weights:
                    weights[kind][rest] = tensor
                elif kind == "optimizer":
                    index, _, key = rest.partition(".")
                    moments.setdefault(int(index), {})[key] = tensor
            self.model.load_state_dict(weights["model"])
            if self._average is not None:
                self._average.model.load_state_dict(weights["average"])
            self._check_moments(moments)
            parameters = list(self.model.parameters())
            for number, of_one in moments.items():
                for moment in ("exp_avg", "exp_avg_sq"):  # fused Adam needs the weight's own memory format
                    of_one[moment] = torch.empty_like(parameters[number]).copy_(of_one[moment])
            groups: list[dict[str, Any]] = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = shown(str(error).partition("\n")[0])[:200]
            raise CapsnetError(f"the checkpoint does not fit the run's config.json: {reason}") from error

    def _check_moments(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Raise if the moments do not fit; Adam does not check this itself."""
        weights = list(self.model.parameters())
        for index, of_one in moments.items():
            shapes = {name: tuple(moment.shape) for name, moment in of_one.items()}
            shape = tuple(weights[index].shape) if 0 <= index < len(weights) else None
            if shapes != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
                raise ValueError(f"the optimizer's moments of parameter {index} are not Adam's")

    def _eager_step(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        """Return the loss, its parts, and two flags: loss and gradients not finite."""
        parts = self._backward(indices, uniforms)
        if self._shared is not None:
            self._shared.average()
        return self._finish(parts)

    def _backward(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        """Compute the gradients of this process's share; return the loss and its parts."""
        batch = self.source.batch(indices, uniforms)
        self._before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        if self._shared is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self._shared.clear()
        losses = self._objective(batch.images, batch.labels, batch.originals)
        self.accelerator.backward(losses["loss"])
        parts = torch.stack([part.detach() for part in losses.values()])
        self._names = list(losses)
        if self._shared is not None:  # NaN in one process skips the step in all
            self._shared.flag.copy_(~parts.isfinite().all())
        return parts

    def _finish(self, parts: Tensor) -> Tensor:
        """Update the weights, unless something is not finite; return the parts and the two flags."""
        # A norm that overflows counts as non-finite: Adam would keep an infinite second moment forever.
        norm = nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None])
        bad_loss = ~parts.isfinite().all() if self._shared is None else self._shared.flag != 0
        flags = torch.stack([bad_loss, ~norm.isfinite()]).float()
        self._update(flags.amax())
        for buffer, old in self._before:  # batch statistics of a skipped step
            buffer.copy_(torch.where(flags.amax() > 0, old, buffer))
        return torch.cat([parts, flags])

    def _update(self, is_nonfinite: Tensor) -> None:
        """Do the optimizer's step, unless `is_nonfinite` (0 or 1).

        Fused Adam decides this on the device, without a sync.
        """
        if self._fused:
            self.optimizer.found_inf = is_nonfinite  # type: ignore[attr-defined]
        elif is_nonfinite:
            return
        self.optimizer.step()

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


class _Graph:
    """A step captured once and replayed; it replaces about 200 small kernel launches.

    With several processes it is two graphs. Gradients are averaged between them, outside of any graph, so that capture
    does not depend on the communication library.
    """

    def __init__(self, stepper: Stepper, indices: Tensor, uniforms: Tensor) -> None:
        self._indices, self._uniforms = indices.clone(), uniforms.clone()
        self._shared = stepper._shared
        self._graph, self._second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        if self._shared is None:
            with torch.cuda.graph(self._graph):
                self._row: Tensor = stepper._eager_step(self._indices, self._uniforms)
            return
        # Another thread watches NCCL's events meanwhile, which a global capture would not permit.
        mode = "thread_local"
        with torch.cuda.graph(self._graph, capture_error_mode=mode):
            parts = stepper._backward(self._indices, self._uniforms)
        with torch.cuda.graph(self._second, pool=self._graph.pool(), capture_error_mode=mode):
            self._row = stepper._finish(parts)

    def replay(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        self._indices.copy_(indices)
        self._uniforms.copy_(uniforms)
        self._graph.replay()
        if self._shared is not None:
            self._shared.average()
            self._second.replay()
        return self._row


@contextmanager
def _without_denormals(device: torch.device) -> Iterator[None]:
    """Let a CPU take numbers below 1.2e-38 for 0 in this thread: some processors need ten times as long for them."""
    flushes = device.type == "cpu" and torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(False)


def _check_launch(processes: int) -> None:
    """Raise if launched processes are not connected; each would write the run."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if processes != launched:
        raise CapsnetError(
            f"{launched} processes were launched and are not connected; launch with torchrun, or add --device cpu"
        )


def _accelerator(precision: str, device: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    cpu = pick_device(device).type == "cpu"
    # Accelerate's state is a singleton, but a process may train several models with different settings.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(mixed_precision={"fp32": "no", "bf16": "bf16"}[precision], cpu=cpu)
