"""Decode class capsules whose numbers are given."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.explain import OFFSETS, dimension_sheet
from capsnet.explorer.programs.program import Outputs, Program
from capsnet.explorer.schemas import DecodeResponse, SheetResponse
from capsnet.models.protocols import Decodes

Number = Int[Tensor, ""]
Pose = Float[Tensor, " dim"]


class _OneCapsule(Program):
    def __init__(self, model: Decodes) -> None:
        super().__init__()
        self.model = model

    def capsules(self, number: Number, pose: Pose) -> Float[Tensor, "classes dim"]:
        """Return class capsules of which all but one are zero."""
        return (torch.arange(self.model.config.num_classes) == number)[:, None] * pose


class Decode(_OneCapsule):
    """Decode a class capsule with the given values."""

    answer = DecodeResponse

    def forward(self, number: Number, pose: Pose) -> Outputs:
        """Return the drawing and the capsule's length."""
        drawn = self.model.decode(self.capsules(number, pose)[None], number[None])
        return {"image": drawn[0], "length": pose.norm()}


class Sheet(_OneCapsule):
    """Decode a capsule with each dimension changed from −0.25 to 0.25 (figure 4)."""

    answer = SheetResponse

    def forward(self, number: Number, pose: Pose) -> Outputs:
        """Return one row of drawings for each dimension."""
        images = dimension_sheet(self.model, self.capsules(number, pose), number)
        return {"offsets": torch.tensor(OFFSETS), "images": images}
