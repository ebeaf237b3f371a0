"""Routing by agreement: from the children's votes to the parents. The heart of the package.

reference.py  the paper's Procedure 1, line by line; every fast path is compared with it
trace.py      `RoutingTrace`: what happened in each iteration
dynamic.py    dynamic routing: `route`, `trace_routing`, and the choice between reference and fast path
agree.py      one pass over the children, from which every other routing is made
agree_reference.py, agree_backends.py, agree_chunked.py   its equations; its fast backends; the one in plain PyTorch
self_attention.py, em.py, inverted_attention.py, variational_bayes.py   one routing each, named like its paper
layer.py, mixture.py   what the layers of self-attention and inverted attention share; of EM and variational Bayes
concurrent.py    all layers of a stack routed at once
windows.py    convolutional capsules: windows as a batch
registry.py   routings by name, also from other packages
backends.py   what a fast backend must provide; they never store the votes
operators.py  a fast backend as a differentiable operation
chunked.py    the backend in plain PyTorch, for any device and dtype
cpu/, cuda/   the backends with Numba and Triton kernels; a README.md in each says why it exists

May import `functional` and `_support`. Begin with `reference.py`.
"""

from capsnet.routing.agree import Moments, agree, log_normaliser
from capsnet.routing.concurrent import route_concurrently
from capsnet.routing.dynamic import BACKENDS, DynamicRouting, check_options, route, trace_routing
from capsnet.routing.em import EM, em
from capsnet.routing.inverted_attention import InvertedAttention, attend, inverted_attention
from capsnet.routing.reference import Gradient, softmax_over_parents
from capsnet.routing.registry import ROUTINGS, Capsules, Routing, find_routing, name_of, register
from capsnet.routing.self_attention import SelfAttention, self_attention
from capsnet.routing.trace import RoutingTrace
from capsnet.routing.variational_bayes import VariationalBayes, variational_bayes
from capsnet.routing.windows import Windows, add_coordinates

__all__ = [
    "BACKENDS",
    "EM",
    "ROUTINGS",
    "Capsules",
    "DynamicRouting",
    "Gradient",
    "InvertedAttention",
    "Moments",
    "Routing",
    "RoutingTrace",
    "SelfAttention",
    "VariationalBayes",
    "Windows",
    "add_coordinates",
    "agree",
    "attend",
    "check_options",
    "em",
    "find_routing",
    "inverted_attention",
    "log_normaliser",
    "name_of",
    "register",
    "route",
    "route_concurrently",
    "self_attention",
    "softmax_over_parents",
    "trace_routing",
    "variational_bayes",
]
