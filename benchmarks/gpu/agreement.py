"""`agree` in each of its forms, and every routing made from it, on a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from benchmarks.gpu.routing import SMALL, Case, error_of, without_nan
from benchmarks.gpu.runner import Setting
from benchmarks.gpu.timing import Call, timed
from torch import Tensor

from capsnet._support import dispatch
from capsnet.layers import CapsuleLayer
from capsnet.routing import ROUTINGS
from capsnet.routing.agree import AGREE_BACKENDS, agree


def measure(setting: Setting) -> Any:
    """Return parity and times of the forms of `agree` that run here, and times of every routing, fast and plain."""
    case = SMALL[0] if setting.toy else Case()
    u, weight, _, dv = case.tensors(setting.device)
    parents = {"query": dv * 0.3, "precision": dv.square() * 0.1, "offset": dv[..., 0] * 0.1}
    calls = {name: _agree_call(u, weight, parents, name) for name in AGREE_BACKENDS if name != "cpu"}
    exact = _agree_call(u.double(), weight.double(), {n: x.double() for n, x in parents.items()})()
    rows, usable = [], {}
    for name, call in calls.items():
        try:
            error = max(error_of(x, y) for x, y in zip(call(), exact, strict=True))
        except Exception as problem:  # not on this device, or a kernel that does not compile
            rows.append({"agree": name, "ok": False, "why": f"{type(problem).__name__}: {problem}"[:300]})
        else:
            rows.append({"agree": name, "ok": error <= 1e-4, **without_nan({"error": error})})
            usable |= {name: call} if error <= 1e-4 else {}
        print(rows[-1], flush=True)
    times = [{"what": "agree", **row} for row in timed(usable, setting)]
    for name in ROUTINGS.names():
        times += [{"what": name, **row} for row in timed(_routing_calls(name, case, setting), setting)]
    for row in times:
        print(row, flush=True)
    return {"parity": rows, "times": times}


def _agree_call(u: Tensor, weight: Tensor, parents: dict[str, Tensor], name: str = "reference") -> Call:
    leaves = [x.clone().requires_grad_() for x in (u, weight, *parents.values())]

    def call() -> list[Tensor]:
        found = agree(*leaves[:2], **dict(zip(parents, leaves[2:], strict=True)), backend=name)
        outputs = [x for x in found if x is not None]
        return [*outputs, *torch.autograd.grad(sum(x.square().sum() for x in outputs), leaves)]

    return call


def _routing_calls(name: str, case: Case, setting: Setting) -> dict[str, Call]:
    """Return forward and backward of a layer with a routing, plain and fast."""
    torch.manual_seed(0)
    layer = CapsuleLayer(case.in_caps, case.in_dim, case.out_caps, case.out_dim, routing=name)
    layer.to(setting.device)
    u = case.tensors(setting.device)[0].requires_grad_()

    def call(plain: bool) -> Any:
        with dispatch.disabled() if plain else nullcontext():
            found = layer(u)
            poses = found if isinstance(found, Tensor) else found[0]
            return torch.autograd.grad(poses.square().sum(), (u, layer.weight))

    return {"reference": lambda: call(True), "fast": lambda: call(False)}
