"""Routing by agreement: from the children's votes to the parents. The heart of the package.

reference.py  the paper's Procedure 1, line by line; every fast path is compared with it
dynamic.py    dynamic routing: `route`, `trace_routing`, and the choice between reference and fast path
agree.py      one pass over the children, from which every other routing is made; agree_chunked.py its fast form
registry.py   routings by name, also from other packages
backends.py   what a fast backend must provide; they never store the votes
operators.py  a fast backend as a differentiable operation
chunked.py    the backend in plain PyTorch, for any device and dtype
cpu/, cuda/   the backends with Numba and Triton kernels; a README.md in each says why it exists

May import `functional` and `_support`. Begin with `reference.py`.
"""

from capsnet.routing.agree import Moments, agree, log_normaliser
from capsnet.routing.dynamic import BACKENDS, DynamicRouting, check_options, route, trace_routing
from capsnet.routing.reference import Gradient, RoutingTrace, softmax_over_parents
from capsnet.routing.registry import ROUTINGS, Routing, find_routing, register

__all__ = [
    "BACKENDS",
    "ROUTINGS",
    "DynamicRouting",
    "Gradient",
    "Moments",
    "Routing",
    "RoutingTrace",
    "agree",
    "check_options",
    "find_routing",
    "log_normaliser",
    "register",
    "route",
    "softmax_over_parents",
    "trace_routing",
]
