"""A routing from outside the package through `CapsuleLayer(routing=…)`, as docs/extending.md describes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import capsnet
from capsnet import CapsnetError, CapsuleLayer, RoutingTrace, squash
from capsnet.routing import ROUTINGS, DynamicRouting, register, route

ROOT = Path(__file__).parents[2]
#: The example of docs/extending.md: the routing "mean".
EXAMPLE = next(
    block
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text("utf-8"), re.DOTALL
    )
    if "routing.register" in block
)


@pytest.fixture(autouse=True)
def forget_what_a_test_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ROUTINGS, "_things", dict(ROUTINGS._things))


def mean() -> type:
    """Run the example of docs/extending.md."""
    namespace: dict[str, Any] = {"__name__": "my_package.mean"}
    exec(EXAMPLE, namespace)
    return namespace["Mean"]


class Gated(nn.Module):
    """With parameters of its own: a gate for every pair of child and parent."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.start = start

    def build(self, weight: Tensor) -> None:
        self.gate = nn.Parameter(weight.new_full((weight.shape[0], weight.shape[2]), self.start))

    def route(self, u: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        s = torch.einsum("bic,icjd,ij->bjd", u, weight, self.gate.sigmoid())
        return squash(s if bias is None else s + bias)

    def trace(
        self, u: Tensor, weight: Tensor, bias: Tensor | None = None, iterations: int | None = None
    ) -> RoutingTrace:
        couplings = self.gate.sigmoid().expand(1, len(u), -1, -1)
        return RoutingTrace(couplings.logit(), couplings, self.route(u, weight, bias)[None])


def children(batch: int = 4) -> Tensor:
    return torch.randn(batch, 11, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bias", [False, True])
def test_the_example_trains_and_is_traced(bias: bool) -> None:
    mean()
    layer = CapsuleLayer(11, 5, 4, 6, routing="mean", bias=bias)
    losses = []
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(3):
        loss = (layer(children()).norm(dim=-1) - 0.9).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    torch.testing.assert_close(layer(children()), route(children(), layer.weight, 1, bias=layer.bias))
    trace = layer.trace(children())
    torch.testing.assert_close(trace.outputs[-1], layer(children()))
    torch.testing.assert_close(trace.couplings, torch.full((1, 4, 11, 4), 0.25))


def test_a_routing_may_own_parameters() -> None:
    register("gated")(Gated)
    layer = CapsuleLayer(11, 5, 4, 6, routing="gated", dtype=torch.float64)
    assert sorted(layer.state_dict()) == ["routing.gate", "weight"]
    assert layer.routing.gate.dtype == torch.float64
    layer(children().double()).sum().backward()
    assert layer.routing.gate.grad.abs().max() > 0
    other = CapsuleLayer(11, 5, 4, 6, routing=Gated(start=3.0), dtype=torch.float64)
    assert other.routing.gate.min() == 3
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(children().double()), layer(children().double()))
    assert layer.trace(children().double()).outputs.shape == (1, 4, 4, 6)


def test_dynamic_routing_is_the_default_by_name_and_as_an_object() -> None:
    torch.manual_seed(0)
    layer = CapsuleLayer(11, 5, 4, 6, iterations=2, leaky=True)
    for routing in (layer.routing, DynamicRouting(iterations=2, leaky=True)):
        same = CapsuleLayer(11, 5, 4, 6, routing=routing)
        same.load_state_dict(layer.state_dict())
        assert torch.equal(same(children()), layer(children()))
    assert list(layer.state_dict()) == ["weight"]
    assert torch.equal(layer(children()), route(children(), layer.weight, 2, leaky=True))
    assert len(layer.trace(children()).outputs) == 2
    assert len(layer.trace(children(), 5).outputs) == 5
    assert "DynamicRouting(iterations=2, leaky=True" in str(layer)


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"routing": "dynamc"}, r"no routing 'dynamc'; choose one of dynamic.*; did you mean 'dynamic'\?"),
        ({"routing": "mean", "iterations": 2}, "'mean' cannot be made from these options: .*'iterations'"),
        (
            {"routing": DynamicRouting(), "iterations": 2},
            "has its own options; give iterations to its construct",
        ),
        (
            {"routing": Gated},
            r"routing \(class Gated\) must be .*or an object with the methods route and trace",
        ),
        ({"routing": nn.Sequential(nn.Linear(1, 1))}, r"routing \(Sequential\) must be one of dynamic, "),
    ],
)
def test_a_wrong_routing_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    mean()
    with pytest.raises(CapsnetError, match=message) as error:
        CapsuleLayer(11, 5, 4, 6, **options)
    assert "\n" not in str(error.value)


def test_a_routing_that_lacks_a_method_is_refused() -> None:
    with pytest.raises(CapsnetError, match=r"routing 'half' \(.*\) lacks trace; add what is missing"):
        register("half")(type("Half", (), {"route": Gated.route}))
    with pytest.raises(
        CapsnetError, match=r"name 'dynamic' is taken by capsnet\.routing\.dynamic\.DynamicRouting"
    ):
        register("dynamic")(Gated)


def test_an_installed_package_adds_a_routing(tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/mean.py").write_text(EXAMPLE, encoding="utf-8")
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[capsnet.routings]\nmean = my_package.mean\n")
    code = "import capsnet; print(capsnet.CapsuleLayer(3, 2, 2, 4, routing='mean'))"
    path = os.pathsep.join([str(tmp_path), str(Path(capsnet.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "my_package.mean.Mean" in done.stdout
