"""The two losses of the paper, and their sum."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor

#: Weight of the reconstruction's *sum* of squared pixel errors (section 4.1). A mean over 784 pixels wants 0.392.
RECONSTRUCTION_WEIGHT = 0.0005


def margin_loss(
    lengths: Float[Tensor, "batch classes"],
    targets: Shaped[Tensor, "batch classes"],
    *,
    present: float = 0.9,
    absent: float = 0.1,
    down_weight: float = 0.5,
) -> Float[Tensor, ""]:
    """Equation 4: each class capsule is long exactly if its class is there.

        L_k = T_k max(0, m⁺ − ‖v_k‖)² + λ (1 − T_k) max(0, ‖v_k‖ − m⁻)²

    Args:
        lengths: ‖v_k‖ in [0, 1), shape (batch, classes).
        targets: T_k, 1 where the class is present and 0 elsewhere, shape (batch, classes), of any type. Any number
            of ones.
        present: m⁺, the length beyond which a present class costs nothing.
        absent: m⁻, the length below which an absent class costs nothing.
        down_weight: λ, keeps the many absent classes from shrinking all capsules at the start.

    Returns:
        The loss summed over classes, averaged over the batch; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ or are no (batch, classes) (class indices instead of 0/1 targets, most often).
    """
    if lengths.shape != targets.shape or lengths.ndim != 2:
        raise ValueError(
            f"margin_loss: lengths {tuple(lengths.shape)} and targets {tuple(targets.shape)} are not both "
            "(batch, classes); targets are 0/1 per class (torch.nn.functional.one_hot), not class indices"
        )
    targets = targets.to(lengths.dtype)
    too_short = (present - lengths).clamp(min=0).square()
    too_long = (lengths - absent).clamp(min=0).square()
    loss = targets * too_short + down_weight * (1 - targets) * too_long
    return _mean_over_batch(loss.sum(dim=1))


def reconstruction_loss(
    reconstructions: Float[Tensor, "batch *image"], images: Float[Tensor, "batch *image"]
) -> Float[Tensor, ""]:
    """Sum of squared pixel errors per image, averaged over the batch (section 4.1; not scaled by 0.0005).

    Returns:
        The loss; 0 for an empty batch.

    Raises:
        ValueError: the shapes differ or are no (batch, …); images that are not of a floating type.
    """
    if reconstructions.shape != images.shape:
        raise ValueError(
            f"reconstruction_loss: reconstructions {tuple(reconstructions.shape)} and images "
            f"{tuple(images.shape)} differ in shape"
        )
    if images.ndim < 2:
        raise ValueError(f"reconstruction_loss: images {tuple(images.shape)} must be a batch, (batch, …)")
    if not (images.is_floating_point() and reconstructions.is_floating_point()):
        # Bytes up to 255 would be compared with pixels up to 1.
        raise ValueError(
            f"reconstruction_loss: reconstructions are {reconstructions.dtype} and images {images.dtype}; "
            "convert to float in [0, 1]: images.float() / 255"
        )
    return _mean_over_batch((reconstructions - images).square().flatten(1).sum(dim=1))


def _mean_over_batch(losses: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    # The mean of nothing would be NaN, and so would every sum that it is part of.
    return losses.mean() if len(losses) else losses.sum()
