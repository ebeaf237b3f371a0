"""The training step on a GPU: where its time goes, and what each option of it changes."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.gpu.runner import Setting
from torch import Tensor

from capsnet.data import load
from capsnet.models import CapsNet, CapsNetConfig
from capsnet.training.batches import BatchSchedule, augmented
from capsnet.training.config import TrainConfig, learning_rate
from capsnet.training.gradients import SharedGradients
from capsnet.training.step import Stepper

#: What a kernel's name says about it; the first that matches.
KINDS = {
    "routing": r"sum_votes|finish_iteration|start_backward|step_backward|input_gradients|route",
    "optimizer": r"adam|multi_tensor",
    "convolution": r"conv|fprop|dgrad|wgrad|im2col|cudnn",
    "matrix product": r"gemm|nvjet|cutlass|addmm|::mm|bmm",
    "copies": r"memcpy|memset|copy",
}


@dataclass(frozen=True)
class Variant:
    """Options of the training step. Each is off in the product, or as it is there."""

    precision: Any = "bf16"
    seed: int = 0
    layout: torch.memory_format = torch.channels_last
    cudnn_benchmark: bool = False
    tf32: bool = False
    compiled: bool = False
    """torch.compile of the convolutions and of the decoder."""
    fused_adam: bool = True
    steps_per_graph: int = 1
    several_processes: bool = False
    """The step of several processes, with gradients in one tensor and two graphs, in this one process."""


VARIANTS = {
    "bf16": Variant(),
    "fp32": Variant("fp32"),
    "fp32-seed1": Variant("fp32", seed=1),
    "fp32-seed2": Variant("fp32", seed=2),
    "fp32-tf32": Variant("fp32", tf32=True),
    "cudnn-benchmark": Variant(cudnn_benchmark=True),
    "compiled": Variant(compiled=True),
    "10-steps-per-graph": Variant(steps_per_graph=10),
    "all-together": Variant(cudnn_benchmark=True, compiled=True, steps_per_graph=10),
    "contiguous": Variant(layout=torch.contiguous_format),
    "adam-not-fused": Variant(fused_adam=False),
    "as-several-processes": Variant(several_processes=True),
    "bf16-again": Variant(),
}


class Training:
    """The published network on MNIST, step by step."""

    def __init__(self, setting: Setting, variant: Variant, batch: int, steps: int) -> None:
        torch.backends.cudnn.benchmark = variant.cudnn_benchmark
        torch.set_float32_matmul_precision("high" if variant.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = variant.tf32
        toy: dict[str, Any] = {"stem_channels": 4, "primary_types": 1, "decoder": (16,)}
        self.config = TrainConfig(
            data="mnist", batch_size=batch, steps=steps, seed=variant.seed, precision=variant.precision
        )
        torch.manual_seed(variant.seed)
        model = CapsNet(CapsNetConfig(**(toy if setting.toy else {})))
        self.source = augmented(load(self.config.data).train, self.config)
        self.stepper = Stepper(model, self.source, self.config, batch, setting.device)
        model.to(memory_format=variant.layout)  # type: ignore[call-overload]
        if variant.compiled:
            assert model.decoder is not None
            for part in (model.primary, model.decoder):
                part.compile(backend="aot_eager" if setting.toy else "inductor")
        if variant.several_processes:
            self.stepper._shared = SharedGradients(model, 1)
        if not variant.fused_adam:
            options = {**self.stepper.optimizer.defaults, "fused": False, "foreach": True}
            self.stepper.optimizer = torch.optim.Adam(model.parameters(), **options)
            self.stepper._fused = False
        self.together = variant.steps_per_graph
        self.batches = self._batches(steps)
        self._several: Callable[[Tensor, Tensor, list[float]], None] | None = None

    def _batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor, float]]:
        schedule = BatchSchedule.of(self.config, self.source)
        for step, indices, uniforms in schedule.batches(0, self.stepper.device):
            yield indices, uniforms, learning_rate(self.config, step, steps)

    def run(self, steps: int) -> None:
        """Do this number of steps; a multiple of the steps per graph, once that is captured."""
        while steps >= self.together > 1 and self.stepper._eager_steps >= 3:
            indices, uniforms, rates = zip(*(next(self.batches) for _ in range(self.together)), strict=True)
            stacked = torch.stack(indices), torch.stack(uniforms)
            self._several = self._several or self._capture(*stacked)
            self._several(*stacked, list(rates))
            steps -= self.together
        for _ in range(steps):
            self.stepper.step(*next(self.batches))

    def _capture(self, indices: Tensor, uniforms: Tensor) -> Callable[[Tensor, Tensor, list[float]], None]:
        """Capture several steps as one graph; on a CPU, do them one by one."""
        stepper, groups = self.stepper, self.stepper.optimizer.param_groups
        rates = torch.zeros(len(indices), device=stepper.device)

        def body() -> Tensor:
            rows = []
            for index, uniform, rate in zip(indices, uniforms, rates, strict=True):
                if stepper.device.type == "cuda":
                    groups[0]["lr"].copy_(rate)
                else:
                    groups[0]["lr"] = float(rate)
                rows.append(stepper._eager_step(index, uniform))
            return torch.stack(rows)

        graph = None
        if stepper.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = body()

        def replay(new_indices: Tensor, new_uniforms: Tensor, new_rates: list[float]) -> None:
            indices.copy_(new_indices)
            uniforms.copy_(new_uniforms)
            rates.copy_(torch.tensor(new_rates))
            if graph is None:
                rows = body()
            else:
                graph.replay()
                rows = kept.clone()
            stepper._rows += rows.unbind()

        return replay


def profile(setting: Setting, _: Any) -> Any:
    """Return the device time of each kernel of a step, by batch size."""
    found = {}
    for batch in (2, 4) if setting.toy else (128, 512, 2048):
        warm, steps = (4, 2) if setting.toy else (20, 50)
        training = Training(setting, Variant(), batch, warm + 2 * steps)
        training.run(warm)
        training.stepper.results()
        start = time.perf_counter()
        training.run(steps)
        training.stepper.results()  # waits for the device
        wall = (time.perf_counter() - start) / steps
        kind = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kind.CPU if setting.toy else kind.CUDA]) as watch:
            training.run(steps)
            training.stepper.results()
        key = "self_cpu_time_total" if setting.toy else "self_device_time_total"
        kernels = {event.key: getattr(event, key) / steps for event in watch.key_averages()}
        kinds = dict.fromkeys([*KINDS, "other"], 0.0)
        for name, us in kernels.items():
            kinds[next((kind for kind in KINDS if re.search(KINDS[kind], name, re.I)), "other")] += us
        top = sorted(kernels.items(), key=lambda pair: -pair[1])[:40]
        found[str(batch)] = {
            "wall_us": round(1e6 * wall, 1),
            "busy_us": round(sum(kernels.values()), 1),
            "kinds_us": {name: round(us, 1) for name, us in kinds.items()},
            "kernels_us": [(name[:120], round(us, 1)) for name, us in top],
        }
        print(f"profile, batch {batch}: {found[str(batch)]['wall_us']} µs a step, {kinds}", flush=True)
    return found


def measure(name: str, setting: Setting) -> Any:
    """Return the speed of a variant of the step and its loss curve."""
    variant, batch = VARIANTS[name], 4 if setting.toy else 128
    block, blocks = (10, 2) if setting.toy else (50, 24)
    training = Training(setting, variant, batch, 10 + block * blocks)
    training.run(10)  # compiles, allocates and captures
    training.stepper.results()
    losses, speeds = [], []
    for _ in range(blocks):
        start = time.perf_counter()
        training.run(block)
        losses.append(round(training.stepper.results().losses["loss"], 6))
        speeds.append(block * batch / (time.perf_counter() - start))
    speeds = speeds[1:]  # the graph of several steps is captured in the first block
    print(f"{name}: {statistics.median(speeds):,.0f} images/s, loss {losses[-1]}", flush=True)
    memory = 0 if setting.toy else torch.cuda.max_memory_allocated()
    return {
        "images_per_second": round(statistics.median(speeds), 1),
        "slowest": round(min(speeds), 1),
        "fastest": round(max(speeds), 1),
        "peak_MiB": round(memory / 2**20, 1),
        "steps_per_loss": block,
        "losses": losses,
    }
