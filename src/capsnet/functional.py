"""Squash and the losses: the `torch.nn.functional` of capsules.

Imports nothing else of capsnet.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

#: Weight of the reconstruction's *sum* of squared pixel errors (section 4.1). For a mean over 784 pixels: 0.392.
RECONSTRUCTION_WEIGHT = 0.0005


def squash(s: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Shrink short vectors to almost 0 and long ones to just below length 1 (eq. 1).

        v = ‖s‖² / (1 + ‖s‖²) · s / ‖s‖

    The direction stays. Computed as s · ‖s‖ / (1 + ‖s‖²), which is equal and does not divide by zero. No epsilon is
    needed, and value and gradient at s = 0 are 0. The second derivative at s = 0 is NaN.

    Args:
        s: vectors along `dim`.
        dim: the axis of a vector's components.

    Returns:
        Vectors of the same shape and of length below 1 (rounding may give 1). NaN where ‖s‖² overflows: in float32
        beyond ‖s‖ = 1e19.

    >>> squash(torch.tensor([3.0, 4.0])).norm()
    tensor(0.9615)
    """
    # In float16 the square of 256 is infinite, so the result would be 0. In bfloat16 each of four roundings has an
    # error of up to half a per cent.
    wide = at_least_float32(s)
    length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    v: Tensor = wide * (length / (1 + length.square()))
    return v.to(s.dtype)


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert float16 and bfloat16 to float32; keep float64."""
    return x if x.dtype == torch.float64 else x.float()


def margin_loss(
    lengths: Float[Tensor, "batch classes"],
    targets: Shaped[Tensor, "batch classes"],
    *,
    present: float = 0.9,
    absent: float = 0.1,
    down_weight: float = 0.5,
) -> Float[Tensor, ""]:
    """Compute the margin loss: long capsules for present classes only (eq. 4).

        L_k = T_k max(0, m⁺ − ‖v_k‖)² + λ (1 − T_k) max(0, ‖v_k‖ − m⁻)²

    Args:
        lengths: ‖v_k‖ in [0, 1), shape (batch, classes).
        targets: T_k, 1 where the class is present and 0 elsewhere, shape (batch, classes), of any type. Several
            classes may be present.
        present: m⁺, the length beyond which a present class costs nothing.
        absent: m⁻, the length below which an absent class costs nothing.
        down_weight: λ; weights absent classes less, so that they do not shrink all capsules at the start.

    Returns:
        The loss summed over classes, averaged over the batch; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ, or are not (batch, classes). The usual cause: class indices in place of 0/1
            targets.
    """
    if lengths.shape != targets.shape or lengths.ndim != 2:
        raise ValueError(
            f"margin_loss: lengths {tuple(lengths.shape)} and targets {tuple(targets.shape)} are not both "
            "(batch, classes); targets are 0/1 per class (torch.nn.functional.one_hot), not class indices"
        )
    return _mean_over_batch(margin_terms(lengths, targets, present, absent, down_weight).sum(dim=1))


def margin_terms(
    lengths: Float[Tensor, "*batch"],
    targets: Shaped[Tensor, "*batch"],
    present: float | Float[Tensor, ""],
    absent: float | Float[Tensor, ""],
    down_weight: float | Float[Tensor, ""],
) -> Float[Tensor, "*batch"]:
    """Return L_k of each class (eq. 4), before the sum. Arguments as for `margin_loss`."""
    targets = targets.to(lengths.dtype)
    too_short = (present - lengths).clamp(min=0).square()
    too_long = (lengths - absent).clamp(min=0).square()
    terms: Tensor = targets * too_short + down_weight * (1 - targets) * too_long
    return terms


def spread_loss(
    activations: Float[Tensor, "batch classes"],
    targets: Shaped[Tensor, "batch classes"],
    margin: float | Float[Tensor, ""] = 0.9,
) -> Float[Tensor, ""]:
    """Compute the spread loss: present classes ahead of absent ones (matrix capsules, section 3).

        L = Σ_{i≠t} max(0, m − (a_t − a_i))²

    Args:
        activations: a in [0, 1], shape (batch, classes).
        targets: 1 where the class is present and 0 elsewhere, shape (batch, classes). With several classes present,
            each must be ahead of all absent ones.
        margin: m; from 0.2 to 0.9 during training in the paper.

    Returns:
        The loss summed over pairs of classes, averaged over the batch; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ, or are not (batch, classes).
    """
    if activations.shape != targets.shape or activations.ndim != 2:
        raise ValueError(
            f"spread_loss: activations {tuple(activations.shape)} and targets {tuple(targets.shape)} are not both "
            "(batch, classes); targets are 0/1 per class (torch.nn.functional.one_hot), not class indices"
        )
    targets = targets.to(activations.dtype)
    lead = activations[:, :, None] - activations[:, None, :]
    pairs = targets[:, :, None] * (1 - targets)[:, None, :]
    return _mean_over_batch((pairs * (margin - lead).clamp(min=0).square()).sum(dim=(1, 2)))


def shared_cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Shaped[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Compute the cross entropy; with several classes present, each has the same share of the target.

    Args:
        logits: shape (batch, classes).
        targets: 1 where the class is present and 0 elsewhere, shape (batch, classes).

    Returns:
        The mean over the batch.
    """
    shares = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.nn.functional.cross_entropy(logits, shares)


def reconstruction_loss(
    reconstructions: Float[Tensor, "batch *image"], images: Float[Tensor, "batch *image"]
) -> Float[Tensor, ""]:
    """Sum the squared pixel errors per image and average over the batch (section 4.1).

    The result is not yet multiplied by `RECONSTRUCTION_WEIGHT`.

    Returns:
        The loss; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ or have no batch axis, or a type is not floating point.
    """
    if reconstructions.shape != images.shape:
        raise ValueError(
            f"reconstruction_loss: reconstructions {tuple(reconstructions.shape)} and images "
            f"{tuple(images.shape)} differ in shape"
        )
    if images.ndim < 2:
        raise ValueError(f"reconstruction_loss: images {tuple(images.shape)} must be a batch, (batch, …)")
    if not (images.is_floating_point() and reconstructions.is_floating_point()):
        # Otherwise bytes up to 255 would be compared with pixels up to 1.
        raise ValueError(
            f"reconstruction_loss: reconstructions are {reconstructions.dtype} and images {images.dtype}; "
            "convert to float in [0, 1]: images.float() / 255"
        )
    return _mean_over_batch((reconstructions - images).square().flatten(1).sum(dim=1))


def _mean_over_batch(losses: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    # The mean of an empty batch would be NaN.
    return losses.mean() if len(losses) else losses.sum()


def digamma(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ψ(x) for x ≥ 1. Exported programs get its asymptotic series, since ONNX has no such operator."""
    if not torch.compiler.is_exporting():
        return torch.digamma(x)
    far = x + 6
    y = far.square().reciprocal()
    series = far.log() - 1 / (2 * far) - y * (1 / 12 - y * (1 / 120 - y / 252))
    for step in range(6):
        series = series - 1 / (x + step)
    return series
