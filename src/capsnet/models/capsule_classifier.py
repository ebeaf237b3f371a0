"""The base of models whose class capsules are as long as their class is likely: margin loss and decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.functional import margin_loss, reconstruction_loss
from capsnet.layers.decoder import Decoder
from capsnet.models.base import Classifier

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch


class CapsuleClassifier(Classifier):
    """Base of CapsNet and Efficient-CapsNet: `forward` returns class capsules, whose lengths are the scores.

    The configuration has margin_weight and reconstruction_weight.
    """

    decoder: Decoder | None

    def class_poses(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes class_dim"]:
        """Return the class capsules v, as `forward`."""
        capsules: Tensor = self(images)
        return capsules

    def scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the lengths of the class capsules."""
        return lengths_of(self(images))

    def decode(
        self,
        capsules: Float[Tensor, "batch num_classes class_dim"],
        labels: Int[Tensor, " batch"] | int | None = None,
    ) -> Float[Tensor, "batch channels height width"]:
        """Reconstruct each image from one class capsule; the others are set to zero.

        Args:
            capsules: class capsules.
            labels: which capsule to decode: one class per example, one for all, or None for the longest.

        Raises:
            ValueError: the model has no decoder, or the labels are out of range (not checked when compiled), are not
                integers, or are not one for each example.
        """
        if self.decoder is None:
            raise ValueError("decode: this model has no decoder (its config's decoder is None)")
        if labels is None:
            labels = lengths_of(capsules).argmax(dim=1)
        elif isinstance(labels, int):
            if not 0 <= labels < capsules.shape[1]:
                raise ValueError(
                    f"decode: class {labels} is out of range; this model has {capsules.shape[1]} classes"
                )
            labels = torch.full(capsules.shape[:1], labels, device=capsules.device)
        elif labels.shape != capsules.shape[:1]:
            raise ValueError(
                f"decode: labels {tuple(labels.shape)} must be one for each of {len(capsules)} examples"
            )
        else:
            _check_labels(labels, capsules.shape[1])
        images: Tensor = self.decoder(capsules, labels)
        return images

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the margin loss plus the reconstruction loss (section 4.1).

        Each present digit is reconstructed alone.
        """
        capsules = self(batch.images)
        lengths = lengths_of(capsules)
        margin = margin_loss(lengths, batch.targets(self.config.num_classes))
        loss = self.config.margin_weight * margin
        parts = {"margin": margin}
        if self.decoder is not None:
            digits = batch.labels.shape[1]
            # Not `decode`, which forces a device sync to check the labels.
            decoded = self.decoder(capsules.repeat_interleave(digits, dim=0), batch.labels.flatten())
            # The mean over all B·K decoded images, times K, is the sum over an example's digits, averaged over B.
            reconstruction = digits * reconstruction_loss(decoded, batch.originals.flatten(0, 1))
            loss = loss + self.config.reconstruction_weight * reconstruction
            parts["reconstruction"] = reconstruction
        return {"loss": loss, **parts}


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if labels.dtype == torch.bool or labels.is_floating_point():
        raise ValueError(f"decode: labels are {labels.dtype}; they must be integers")
    if torch.compiler.is_compiling():
        return
    outside = (labels < 0) | (labels >= num_classes)
    if bool(outside.any()):
        raise ValueError(
            f"decode: class {int(labels[outside][0])} is out of range; this model has {num_classes} classes"
        )


def lengths_of(capsules: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Return ‖v‖ of each capsule."""
    lengths: Tensor = torch.linalg.vector_norm(capsules, dim=-1)
    return lengths
