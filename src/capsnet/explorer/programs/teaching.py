"""What the tutorial computes: routing of a small world, and the margin loss."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.explorer.programs.program import Outputs, Program
from capsnet.explorer.schemas import MarginResponse, RouteResponse
from capsnet.functional import margin_terms
from capsnet.models.capsnet import lengths_of
from capsnet.routing import trace_routing


class Route(Program):
    """Route given capsules with given matrices: Procedure 1 on a world that fits on a page."""

    answer = RouteResponse

    def forward(
        self,
        capsules: Float[Tensor, "in_caps in_dim"],
        weight: Float[Tensor, "in_caps in_dim out_caps out_dim"],
        iterations: Int[Tensor, ""],
    ) -> Outputs:
        """Return the votes, and every iteration's logits, couplings, sums and outputs."""
        whole = trace_routing(capsules[None], weight, self.steps(iterations), backend="reference")
        trace = self.kept(whole, iterations)
        votes = torch.einsum("ic,icjd->ijd", capsules, weight)
        return {
            "votes": votes,
            "logits": trace.logits[:, 0],
            "couplings": trace.couplings[:, 0],
            "sums": torch.einsum("tij,ijd->tjd", trace.couplings[:, 0], votes),
            "outputs": trace.outputs[:, 0],
            "lengths": lengths_of(trace.outputs[:, 0]),
        }


class Margin(Program):
    """The margin loss of each class (equation 4)."""

    answer = MarginResponse

    def forward(
        self,
        lengths: Float[Tensor, " classes"],
        targets: Float[Tensor, " classes"],
        margins: Float[Tensor, " 3"],
    ) -> Outputs:
        """Return L_k for each length; `margins` are m⁺, m⁻ and λ."""
        return {"terms": margin_terms(lengths, targets, *margins.unbind())}
