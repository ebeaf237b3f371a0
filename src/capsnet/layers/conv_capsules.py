"""Convolutional capsules: maps of capsules in, maps of capsules out, with any routing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet.routing import Capsules, Routing, RoutingTrace, Windows, add_coordinates, find_routing

#: Parents among which a child's couplings add up to 1: those of one window, or of all windows that hold the child.
Normalise = Literal["window", "all"]
Coordinates = Literal["child", "parent"]

Poses = Float[Tensor, "batch types height width *pose"]
Activations = Float[Tensor, "batch types height width"]
Parents = Float[Tensor, "batch out_types rows columns *out_pose"]


class ConvCapsules(nn.Module):
    """Convolutional capsules: each K × K window of a map votes for the parents at one place.

    All windows share W. Vectors, or matrix poses whose rows share W, as for `CapsuleLayer`.

    Args:
        in_types: capsule types at each place of the map.
        in_dim: last size of a child's pose.
        out_types: types of parents.
        out_dim: last size of a parent's pose.
        kernel: K.
        stride: places from one window to the next.
        routing: a name in `capsnet.routing.ROUTINGS`, or an object that implements `capsnet.routing.Routing`.
        normalise: "window": a child's couplings add up to 1 in each window, as most code has it. "all": over all
            windows that hold the child, as the papers of EM and variational Bayes routing mean it. A child that many
            windows hold then does not count more often than one at the border. None: as the routing's paper has it.
        init_std: standard deviation of W at the start; by default votes are as large as poses.

    Shape:
        poses (batch, in_types, height, width, *rows, in_dim), and activations (batch, in_types, height, width) for
        routings that have them → the same for the parents, on the map of windows

    Raises:
        CapsnetError: the routing is unknown, or cannot be normalised over all windows.
    """

    def __init__(
        self,
        in_types: int,
        in_dim: int,
        out_types: int,
        out_dim: int,
        *,
        kernel: int,
        stride: int = 1,
        routing: str | Routing = "em",
        normalise: Normalise | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.routing: Any = find_routing(routing)
        self.kernel, self.stride = kernel, stride
        can_fold = getattr(self.routing, "folds", False)
        self.normalise: Normalise = normalise or ("all" if can_fold else "window")
        if self.normalise == "all" and not can_fold:
            raise CapsnetError(
                f"routing {type(self.routing).__name__} normalises over the parents of a window; use "
                "normalise='window'"
            )
        self.weight = nn.Parameter(torch.empty(kernel**2 * in_types, in_dim, out_types, out_dim))
        nn.init.normal_(self.weight, std=in_dim**-0.5 if init_std is None else init_std)
        if hasattr(self.routing, "build"):
            self.routing.build(self.weight)

    def forward(self, poses: Poses, activations: Activations | None = None) -> Parents | Capsules:
        """Route the children of every window to the parents at its place.

        Raises:
            ValueError: the window is larger than the map.
        """
        windows = Windows(poses.shape[2], poses.shape[3], self.kernel, self.stride)
        extra: dict[str, Any] = {"fold": windows.fold} if self.normalise == "all" else {}
        if activations is not None:
            extra["activations"] = windows.gather(activations)
        found = self.routing.route(windows.gather(poses), self.weight, **extra)
        if isinstance(found, Capsules):
            return Capsules(*(windows.spread(x.to(self.weight.dtype)) for x in found))
        return windows.spread(found.to(self.weight.dtype))

    def update(self, poses: Poses, parents: Parents | None) -> Parents:
        """Update a map of parents once, for routings with an `update`; the first time from none."""
        windows = Windows(poses.shape[2], poses.shape[3], self.kernel, self.stride)
        flat = None if parents is None else parents.movedim(1, 3).flatten(0, 2)
        return windows.spread(self.routing.update(windows.gather(poses), self.weight, flat))

    def extra_repr(self) -> str:
        """Return sizes and options, for print(model)."""
        children, in_dim, out_types, out_dim = self.weight.shape
        types = children // self.kernel**2
        return (
            f"{types}×{in_dim} → {out_types}×{out_dim}, kernel={self.kernel}, stride={self.stride}, "
            f"normalise={self.normalise!r}"
        )


class PooledCapsules(nn.Module):
    """Class capsules: children of one type share W over all positions, and all vote for the same few parents.

    So that positions are not lost, each vote gets the coordinates of its child (matrix capsules, section 4.4).

    Args:
        in_types, in_dim, out_types, out_dim, routing, init_std: as for `ConvCapsules`.
        coordinates: "child": the centre of the child's place, from 0 to 1, is added to the first two entries of the
            vote's last column. "parent": the authors' code of variational Bayes routing, which adds 0.1 everywhere.

    Shape:
        poses (batch, in_types, height, width, rows, in_dim), activations (batch, in_types, height, width) → parents
    """

    def __init__(
        self,
        in_types: int,
        in_dim: int,
        out_types: int,
        out_dim: int,
        *,
        routing: str | Routing = "em",
        coordinates: Coordinates = "child",
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.routing: Any = find_routing(routing)
        self.coordinates = coordinates
        self.weight = nn.Parameter(torch.empty(in_types, in_dim, out_types, out_dim))
        nn.init.normal_(self.weight, std=in_dim**-0.5 if init_std is None else init_std)
        if hasattr(self.routing, "build"):
            self.routing.build(self.weight)

    def forward(self, poses: Poses, activations: Activations | None = None) -> Tensor | Capsules:
        """Route all children to the parents."""
        u, weight, extra = self.votes_from(poses, activations)
        found = self.routing.route(u, weight, **extra)
        if isinstance(found, Capsules):
            return Capsules(*(x.to(self.weight.dtype) for x in found))
        return found.to(self.weight.dtype)  # type: ignore[no-any-return]

    def trace(
        self, poses: Poses, iterations: int | None = None, activations: Activations | None = None
    ) -> RoutingTrace:
        """Return logits, couplings and outputs of every routing iteration."""
        u, weight, extra = self.votes_from(poses, activations)
        trace: RoutingTrace = self.routing.trace(u, weight, None, iterations, **extra)
        return replace(trace, children=u, weight=weight, child_activations=extra.get("activations"))

    def votes_from(
        self, poses: Poses, activations: Activations | None
    ) -> tuple[Float[Tensor, "batch in_caps rows wider"], Tensor, dict[str, Any]]:
        """Return what the routing takes: children with their coordinates, W for each child, activations."""
        height, width = poses.shape[2:4]
        u, weight = poses.movedim(1, 3).flatten(1, 3), self.weight.repeat(height * width, 1, 1, 1)
        u, weight = add_coordinates(u, weight, self._places(height, width, u))
        extra = {} if activations is None else {"activations": activations.movedim(1, 3).flatten(1, 3)}
        return u, weight, extra

    def _places(self, height: int, width: int, like: Tensor) -> Float[Tensor, "in_caps 2"]:
        if self.coordinates == "parent":
            return like.new_full((height * width * len(self.weight), 2), 0.1)
        rows, columns = ((torch.arange(n, device=like.device) + 0.5) / n for n in (height, width))
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
        return places.repeat_interleave(len(self.weight), dim=0).to(like.dtype)

    def extra_repr(self) -> str:
        """Return sizes and options, for print(model)."""
        in_types, in_dim, out_types, out_dim = self.weight.shape
        return f"{in_types}×{in_dim} → {out_types}×{out_dim}, coordinates={self.coordinates!r}"
