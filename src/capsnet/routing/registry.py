"""Routings by name, from this package and from others: `@capsnet.routing.register("name")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.registry import Registry
from capsnet.routing.trace import RoutingTrace

S = TypeVar("S")


class Capsules(NamedTuple):
    """Capsules whose activations are numbers of their own, not the lengths of their poses."""

    poses: Float[Tensor, "batch caps *rows dim"]
    activations: Float[Tensor, "batch caps"]


@runtime_checkable
class Routing(Protocol):
    """What `CapsuleLayer(routing=…)` needs: how the votes W_ij u_i become parents.

    A routing with parameters of its own is an `nn.Module`, and may have a method `build(weight)`: the layer calls it
    once with its W, whose shape, device and dtype are those that the parameters need. An object belongs to one layer.

    A routing whose capsules have activations beside their poses has the attribute `activates = True`. Its methods then
    take the children's as a keyword, `activations` (batch, in_caps) or None, and `route` returns `Capsules`.
    """

    def route(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
        bias: Float[Tensor, "out_caps out_dim"] | None = None,
    ) -> Float[Tensor, "batch out_caps out_dim"] | Capsules:
        """Route children to parents. bias: None, unless the layer was made with one."""
        ...

    def trace(
        self,
        u: Float[Tensor, "batch in_caps in_dim"],
        weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
        bias: Float[Tensor, "out_caps out_dim"] | None = None,
        iterations: int | None = None,
    ) -> RoutingTrace:
        """Logits, couplings and outputs of every iteration; of one, where the routing does not iterate.

        iterations: other than in `route`, for routings that iterate.
        """
        ...


_METHODS = ("route", "trace")
_BUILTIN = {
    "dynamic": "capsnet.routing.dynamic",
    "self-attention": "capsnet.routing.self_attention",
    "em": "capsnet.routing.em",
    "inverted-attention": "capsnet.routing.inverted_attention",
    "variational-bayes": "capsnet.routing.variational_bayes",
}
ROUTINGS: Registry[Callable[..., Routing]] = Registry(
    "routing", "capsnet.routings", needs=_METHODS, builtin=_BUILTIN
)


def register(name: str) -> Callable[[S], S]:
    """Register a class that fulfils `Routing`, for `CapsuleLayer(routing=name)`.

    Its constructor takes the routing's options, each with a default. Other packages name the module that does this in
    an entry point of the group `capsnet.routings`.

    Raises:
        CapsnetError: the name is taken or malformed, or a method is missing.
    """
    return ROUTINGS.register(name)


def has_option(name: str, option: str) -> bool:
    """Return whether the constructor of a routing takes an option.

    Raises:
        CapsnetError: no routing has that name.
    """
    return option in inspect.signature(ROUTINGS.get(name)).parameters


def name_of(routing: Routing) -> str:
    """Return the name under which a routing is registered, or its class's name."""
    return ROUTINGS.name_of(type(routing)) or type(routing).__name__


def refuse_bias(name: str, bias: object) -> None:
    """Refuse a layer's bias in a routing that has no place for it.

    Raises:
        CapsnetError: there is a bias.
    """
    if bias is not None:
        raise CapsnetError(f"routing {name!r} has no bias on s; make the layer with bias=False")


def check_iterations(name: str, iterations: int) -> None:
    """Refuse iterations that are not a whole number of at least 1.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"{name}: iterations is {iterations!r}; it must be a whole number, at least 1")


def find_routing(routing: str | Routing, **options: Any) -> Routing:
    """Make the routing of that name, or check one that is made already.

    Args:
        routing: a name, or an object that fulfils `Routing`.
        options: for the constructor; those that are None are left out.

    Raises:
        CapsnetError: an unknown name or option, options beside an object, or an object without the methods.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(routing, str):
        make = ROUTINGS.get(routing)
        try:
            inspect.signature(make).bind(**options)
        except TypeError as error:
            raise CapsnetError(f"routing {routing!r} cannot be made from these options: {error}") from None
        return make(**options)
    missing = [method for method in _METHODS if not callable(getattr(routing, method, None))]
    if missing or isinstance(routing, type):
        what = f"class {routing.__name__}" if isinstance(routing, type) else type(routing).__name__
        raise CapsnetError(
            f"routing ({what}) must be one of {', '.join(ROUTINGS.names())}, or an object with the methods route and "
            "trace"
        )
    if options:
        raise CapsnetError(
            f"routing is an object and has its own options; give {', '.join(options)} to its constructor"
        )
    return routing
