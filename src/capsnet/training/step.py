"""One optimizer step, as fast as the device allows: eager on CPUs and many processes, a CUDA graph on one GPU."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet.data.dataset import Batch, Source
from capsnet.distributed import pick_device
from capsnet.models.base import Classifier
from capsnet.training.config import TrainConfig

#: Steps run eagerly before a CUDA graph is captured: kernels are compiled and buffers allocated in them.
WARM_UP_STEPS = 3


class BrokenStep(NamedTuple):
    """A step that was left out: its update was not made, weights and moments are as they were before."""

    number: int
    """From 0, of the steps that were looked at together."""
    what: Literal["loss", "gradients"]
    """What was NaN or infinite."""


class Looked(NamedTuple):
    """What came of the last steps."""

    losses: dict[str, float]
    """Means of the loss and its parts over the sound steps and all processes; empty if there was none."""
    broken: list[BrokenStep]


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
        CapsnetError: no such device; a batch that cannot be split evenly over the processes; several
            processes that were launched but do not know of each other.
    """

    def __init__(
        self, model: Classifier, source: Source, config: TrainConfig, batch_size: int, device: str = "auto"
    ) -> None:
        self.accelerator = _accelerator(config.precision, device)
        self.device: torch.device = self.accelerator.device
        self.processes: int = self.accelerator.num_processes
        self.is_main: bool = self.accelerator.is_main_process
        _check_launch(self.processes)
        if batch_size % self.processes:
            raise CapsnetError(
                f"a batch of {batch_size} cannot be split evenly over {self.processes} processes; "
                "choose a --batch-size or a number of processes that can"
            )
        self.model = model
        self.source = source.to(self.device)
        on_gpu = self.device.type == "cuda"
        self.uses_graph = on_gpu and self.processes == 1
        if on_gpu:
            model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        rate = torch.tensor(config.learning_rate, device=self.device) if on_gpu else config.learning_rate
        self._fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(
            model.to(self.device).parameters(), lr=rate, fused=self._fused, capturable=on_gpu
        )
        self._objective = self.accelerator.prepare(Objective(model))
        self._graph: _Graph | None = None
        self._eager_steps = 0
        self._names: list[str] = []
        self._rows: list[Tensor] = []

    def step(
        self, indices: Int[Tensor, " batch"], uniforms: Float[Tensor, "batch draws"], rate: float
    ) -> None:
        """Train on one global batch; each process takes its share of it.

        A step whose loss or gradients are not finite changes nothing; `look` tells.
        """
        share = slice(self.accelerator.process_index, None, self.processes)
        self._set_rate(rate)
        if not self.uses_graph or self._eager_steps < WARM_UP_STEPS:
            row = self._eager_step(indices[share], uniforms[share])
            self._eager_steps += 1
        else:
            if self._graph is None:
                self._graph = _Graph(self._eager_step, indices, uniforms)
            row = self._graph.replay(indices, uniforms)
        self._rows.append(row.clone())

    def is_known_broken(self) -> bool:
        """Whether the last step was broken, as far as can be said without waiting for the device."""
        return self.device.type == "cpu" and bool(self._rows[-1][-2:].any())

    def agreed(self, number: int) -> int:
        """The greatest of all processes' numbers; every process must ask in the same step. Waits for the device."""
        if self.processes == 1:
            return number
        greatest = torch.tensor(number, device=self.device)
        torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX)
        return int(greatest)

    def look(self) -> Looked:
        """What came of the steps since the last call. Waits for the device."""
        rows = torch.stack(self._rows)
        self._rows = []
        flags = rows[:, -2:].bool()
        broken = [
            BrokenStep(number, "loss" if loss else "gradients")
            for number, (loss, gradients) in enumerate(flags.tolist())
            if loss or gradients
        ]
        if len(broken) == len(rows):
            return Looked({}, broken)
        sound = rows[~flags.any(dim=1), :-2]
        # divided before they are added: a sum may overflow where the mean does not
        shares = (sound / (len(sound) * self.processes)).sum(dim=0)
        means = self.accelerator.reduce(shares, reduction="sum")
        return Looked(dict(zip(self._names, means.tolist(), strict=True)), broken)

    def check_weights(self) -> None:
        """Refuse weights that are no numbers, as an update of absurd size makes them.

        Raises:
            NotFinite: there are some.
        """
        if not all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            raise NotFinite("the weights are not finite")

    def state(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on: weights, Adam's moments, PyTorch's random state.

        Raises:
            NotFinite: a weight or a moment is no number any more; such a state is not worth keeping.
        """
        self.check_weights()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            if not all(bool(torch.isfinite(moment).all()) for moment in moments.values()):
                raise NotFinite("the optimizer's moments are not finite")
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
        try:
            for name, tensor in tensors.items():
                kind, _, rest = name.partition(".")
                if kind == "model":
                    weights[rest] = tensor
                elif kind == "optimizer":
                    index, _, key = rest.partition(".")
                    moments.setdefault(int(index), {})[key] = tensor
            self.model.load_state_dict(weights)
            self._check_moments(moments)
            groups: list[dict[str, Any]] = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            torch.set_rng_state(tensors["random.cpu"])
            if self.device.type == "cuda" and "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = shown(str(error).partition("\n")[0])[:200]
            raise CapsnetError(f"the saved state does not fit the run's config.json: {reason}") from error

    def _check_moments(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Adam itself takes whatever it is given, and fails in the next step or computes nonsense."""
        weights = list(self.model.parameters())
        for index, of_one in moments.items():
            shapes = {name: tuple(moment.shape) for name, moment in of_one.items()}
            shape = tuple(weights[index].shape) if 0 <= index < len(weights) else None
            if shapes != {"step": (), "exp_avg": shape, "exp_avg_sq": shape}:
                raise ValueError(f"the optimizer's moments of parameter {index} are not Adam's")

    def _eager_step(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        """The loss, its parts, and two flags: whether the loss and whether the gradients are not finite."""
        batch = self.source.batch(indices, uniforms)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._objective(batch.images, batch.labels, batch.originals)
        self.accelerator.backward(losses["loss"])
        parts = torch.stack([part.detach() for part in losses.values()])
        self._names = list(losses)
        # A norm that overflows is refused too: Adam would keep an infinite second moment for good.
        norm = nn.utils.get_total_norm([w.grad for w in self.model.parameters() if w.grad is not None])
        broken = torch.stack([~parts.isfinite().all(), ~norm.isfinite()]).float()
        if self.processes > 1:  # one process's NaN stops the step of all
            broken = self.accelerator.reduce(broken, reduction="sum").clamp(max=1)
        self._update(broken.amax())
        return torch.cat([parts, broken])

    def _update(self, is_broken: Tensor) -> None:
        """The optimizer's step, unless `is_broken` (0 or 1). Fused Adam decides on the device, without a wait."""
        if self._fused:
            self.optimizer.found_inf = is_broken  # type: ignore[attr-defined]
        elif is_broken:
            return
        self.optimizer.step()

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
            self._row: Tensor = step(self._indices, self._uniforms)

    def replay(self, indices: Tensor, uniforms: Tensor) -> Tensor:
        self._indices.copy_(indices)
        self._uniforms.copy_(uniforms)
        self._graph.replay()
        return self._row


def _check_launch(processes: int) -> None:
    """Each of several processes that train alone would take itself for the one that writes the run."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if processes != launched:
        raise CapsnetError(
            f"{launched} processes were launched and are not connected; launch with torchrun, or add --device cpu"
        )


def _accelerator(precision: str, device: str) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    cpu = pick_device(device).type == "cpu"
    # A process may train several models, each with its own settings; Accelerate's state is a singleton.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(mixed_precision={"fp32": "no", "bf16": "bf16"}[precision], cpu=cpu)
