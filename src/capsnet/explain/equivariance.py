"""Does the pose change with the image in a way that can be read off? Φ(Tx) ≈ T′ Φ(x), T′ linear.

Pooling makes features that stay the same when the image moves; capsules are meant to make features that
move along. Measured for any features, so that a CNN's can stand beside: T′ is fitted on one set and judged on
another, and so is "no change at all", T′ = I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from capsnet.data.warping import affine_matrices, warp
from capsnet.functional import at_least_float32
from capsnet.models.base import Classifier
from capsnet.models.protocols import HasPoses

Images = Float[Tensor, "batch channels height width"]
Labels = Int[Tensor, " batch"]
Features = Callable[[Images, Labels], Float[Tensor, "batch features"]]
Transform = Callable[[Images], Images]


def rotation(degrees: float) -> Transform:
    """Turn counter-clockwise about the centre."""
    return lambda images: _affine(images, rotation=degrees)


def translation(across: float, down: float = 0.0) -> Transform:
    """Move by so many pixels."""
    return lambda images: _affine(images, across=across, down=down)


def scaling(factor: float) -> Transform:
    """Enlarge about the centre.

    Raises:
        ValueError: the factor is 0.
    """
    if factor == 0:
        raise ValueError("scaling: a factor of 0 leaves nothing to look at")
    return lambda images: _affine(images, scale=factor)


def thickness(pixels: int) -> Transform:
    """Make light strokes thicker by `pixels` on each side, or thinner if negative (grey dilation, erosion)."""
    size = 2 * abs(pixels) + 1

    def change(images: Images) -> Images:
        sign = 1 if pixels >= 0 else -1
        return sign * max_pool2d(sign * images, size, stride=1, padding=abs(pixels))

    return change


#: Of the size that a reader still takes for the same digit.
TRANSFORMS: dict[str, Transform] = {
    "rotation by 15°": rotation(15),
    "translation by 2 px": translation(2),
    "scale × 1.15": scaling(1.15),
    "strokes 1 px thicker": thickness(1),
}


def class_pose(model: HasPoses, batch_size: int = 250) -> Features:
    """Φ: the pose of the true class's capsule, (batch, dim)."""

    @torch.no_grad()
    def features(images: Images, labels: Labels) -> Tensor:
        return torch.cat(
            [
                model.class_poses(part)[torch.arange(len(part), device=part.device), numbers]
                for part, numbers in zip(images.split(batch_size), labels.split(batch_size), strict=True)  # type: ignore[no-untyped-call]
            ]
        )

    return features


def layer_output(model: Classifier, layer: nn.Module, batch_size: int = 250) -> Features:
    """Φ: what a layer inside `model` puts out, flattened: a CNN's last hidden layer, say.

    Φ raises ValueError if the layer takes no part in the scores.
    """

    @torch.no_grad()
    def features(images: Images, _: Labels) -> Tensor:
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001
            outputs.append(output.flatten(1))

        hook = layer.register_forward_hook(keep)
        try:
            for part in images.split(batch_size):  # type: ignore[no-untyped-call]
                model.scores(part)
        finally:
            hook.remove()
        if not outputs:
            raise ValueError(
                f"layer_output: the scores of a {type(model).__name__} do not pass through this {type(layer).__name__}"
            )
        return torch.cat(outputs)

    return features


@dataclass(frozen=True)
class Equivariance:
    """How the features follow one transformation, on examples that the maps were not fitted to."""

    r2: float
    """Share of the variance of Φ(Tx) within the classes that T′Φ(x) explains; 1 is perfect, ≤ 0 nothing."""
    r2_unchanged: float
    """The same with T′ = I. If this is high, the features hardly change: invariance."""
    length_change: float
    """Mean of ‖Φ(Tx)‖ − ‖Φ(x)‖; for a pose, how much less certain the class's presence becomes."""
    length_change_std: float
    examples: int
    """Held-out examples that all of this was measured on: those of the classes that a map could be fitted for."""


def fit_equivariance(
    features: Features,
    transform: Transform,
    fit: tuple[Images, Labels],
    held_out: tuple[Float[Tensor, "tested channels height width"], Int[Tensor, " tested"]],
    *,
    ridge: float = 1e-4,
    components: int | None = None,
) -> Equivariance:
    """Fit one linear map T′ per class on `fit` (images, labels), and judge it on `held_out`.

    One map per class, because each class's capsule has axes of its own.

    Args:
        features: Φ, `class_pose` or `layer_output` or any other.
        transform: T, `rotation(15)` for instance, or one of `TRANSFORMS`.
        fit, held_out: images and their classes, no example in both.
        ridge: least squares are damped by this share of the features' mean square.
        components: T′ sees so many directions of Φ(x), those that hold most of each class, so that features of
            different sizes get maps of as many numbers. What it predicts, and is judged by, is all of Φ(Tx).

    Raises:
        ValueError: no class has at least two examples in both sets; fewer than one component.
    """
    if components is not None and components < 1:
        raise ValueError(f"fit_equivariance: components is {components}; it must be at least 1")
    (x, y), (x_test, y_test) = _pair(features, transform, *fit), _pair(features, transform, *held_out)
    residual = unchanged = total = 0.0
    scored = torch.zeros_like(held_out[1], dtype=torch.bool)
    for number in sorted(set(fit[1].tolist())):
        rows, test_rows = fit[1] == number, held_out[1] == number
        if rows.sum() < 2 or test_rows.sum() < 2:
            continue
        a, b, a_test, b_test = x[rows], y[rows], x_test[test_rows], y_test[test_rows]
        seen, seen_test = a, a_test
        if components is not None and components < a.shape[1]:
            # Not about the mean: like a pose, the features must be mapped without a constant.
            directions = torch.linalg.svd(a, full_matrices=False).Vh[:components].T
            seen, seen_test = a @ directions, a_test @ directions
        moved = seen_test @ _least_squares(seen, b, ridge)
        residual += float((b_test - moved).square().sum())
        unchanged += float((b_test - a_test).square().sum())
        total += float((b_test - b_test.mean(dim=0)).square().sum())
        scored |= test_rows
    if not scored.any():
        raise ValueError("fit_equivariance: no class has two examples in both sets")
    change = (y_test.norm(dim=1) - x_test.norm(dim=1))[scored]
    total = total or float("nan")  # features that do not vary at all have no R²
    return Equivariance(
        1 - residual / total,
        1 - unchanged / total,
        float(change.mean()),
        float(change.std()),
        len(change),
    )


def _pair(features: Features, transform: Transform, images: Images, labels: Labels) -> tuple[Tensor, Tensor]:
    return features(images, labels).double(), features(transform(images), labels).double()


def _least_squares(
    x: Float[Tensor, "n seen"], y: Float[Tensor, "n features"], ridge: float
) -> Float[Tensor, "seen features"]:
    gram = x.T @ x
    damping = ridge * gram.diagonal().mean() + torch.finfo(x.dtype).tiny
    damped = gram + damping * torch.eye(len(gram), dtype=x.dtype, device=x.device)
    solution: Tensor = torch.linalg.solve(damped, x.T @ y)
    return solution


def _affine(
    images: Images, rotation: float = 0.0, scale: float = 1.0, across: float = 0.0, down: float = 0.0
) -> Images:
    like = at_least_float32(images.new_ones(len(images)))  # the geometry of 16-bit images is not in 16 bits
    matrices = affine_matrices(
        rotation=like * rotation,
        shear=like * 0,
        scale=torch.stack((like, like), dim=1) * scale,
        translation=torch.stack((like * across, like * down), dim=1),
    )
    return warp(images, matrices)
