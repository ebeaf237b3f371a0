"""Measure equivariance: how well Φ(Tx) ≈ T′ Φ(x) holds for a linear map T′.

Pooling makes features invariant: they stay the same when the image moves. Capsules should make features
equivariant: they change together with the image. The measure takes any features, so a CNN can be compared.
T′ is fitted on one set and tested on another. "No change", T′ = I, is tested in the same way.
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
    """Rotate counter-clockwise about the centre."""
    return lambda images: _affine(images, rotation=degrees)


def translation(across: float, down: float = 0.0) -> Transform:
    """Move by `across` pixels to the right and `down` pixels down."""
    return lambda images: _affine(images, across=across, down=down)


def scaling(factor: float) -> Transform:
    """Scale about the centre.

    Raises:
        ValueError: the factor is 0.
    """
    if factor == 0:
        raise ValueError("scaling: the factor must not be 0")
    return lambda images: _affine(images, scale=factor)


def thickness(pixels: int) -> Transform:
    """Thicken light strokes by `pixels` on each side; negative values thin them.

    Uses grey dilation and erosion.
    """
    size = 2 * abs(pixels) + 1

    def change(images: Images) -> Images:
        sign = 1 if pixels >= 0 else -1
        return sign * max_pool2d(sign * images, size, stride=1, padding=abs(pixels))

    return change


#: Small enough that a person still reads the same digit.
TRANSFORMS: dict[str, Transform] = {
    "rotation by 15°": rotation(15),
    "translation by 2 px": translation(2),
    "scale × 1.15": scaling(1.15),
    "strokes 1 px thicker": thickness(1),
}


def class_pose(model: HasPoses, batch_size: int = 250) -> Features:
    """Return Φ: the pose of the true class's capsule, (batch, dim)."""

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
    """Return Φ: the flattened output of a layer, such as a CNN's last hidden layer.

    Φ raises ValueError if the scores do not use the layer.
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
                f"layer_output: the scores of {type(model).__name__} do not use this {type(layer).__name__} layer; "
                "choose another layer"
            )
        return torch.cat(outputs)

    return features


@dataclass(frozen=True)
class Equivariance:
    """Hold how well the features follow one transformation, on held-out examples."""

    r2: float
    """Share of the within-class variance of Φ(Tx) that T′Φ(x) explains; 1 is perfect, ≤ 0 is nothing."""
    r2_unchanged: float
    """The same with T′ = I. A high value means that the features hardly change (invariance)."""
    length_change: float
    """Mean of ‖Φ(Tx)‖ − ‖Φ(x)‖. For a pose: the change of the class's presence."""
    examples: int
    """Number of held-out examples measured. Classes without a fitted map are not counted."""


def fit_equivariance(
    features: Features,
    transform: Transform,
    fit: tuple[Images, Labels],
    held_out: tuple[Float[Tensor, "tested channels height width"], Int[Tensor, " tested"]],
    *,
    ridge: float = 1e-4,
    components: int | None = None,
) -> Equivariance:
    """Fit one linear map T′ per class on `fit` and test it on `held_out`.

    Each class needs its own map, because the axes of two class capsules are unrelated.

    Args:
        features: Φ, for example from `class_pose` or `layer_output`.
        transform: T, for example `rotation(15)` or one of `TRANSFORMS`.
        fit, held_out: images and their classes; the two sets share no example.
        ridge: ridge penalty, as a share of the features' mean square.
        components: number of principal directions of Φ(x), per class, that T′ reads. With the same number,
            features of different sizes get maps of equal rank. T′ still predicts all of Φ(Tx).

    Raises:
        ValueError: no class has at least two examples in both sets, or `components` is below 1.
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
            # The mean is not subtracted: the features, like a pose, are mapped without a constant.
            directions = torch.linalg.svd(a, full_matrices=False).Vh[:components].T
            seen, seen_test = a @ directions, a_test @ directions
        moved = seen_test @ _least_squares(seen, b, ridge)
        residual += float((b_test - moved).square().sum())
        unchanged += float((b_test - a_test).square().sum())
        total += float((b_test - b_test.mean(dim=0)).square().sum())
        scored |= test_rows
    if not scored.any():
        raise ValueError("fit_equivariance: no class has at least two examples in both sets")
    change = (y_test.norm(dim=1) - x_test.norm(dim=1))[scored]
    total = total or float("nan")  # R² is undefined for constant features
    return Equivariance(
        1 - residual / total,
        1 - unchanged / total,
        float(change.mean()),
        len(change),
    )


def fit_maps(
    features: Features, transform: Transform, fit: tuple[Images, Labels], *, ridge: float = 1e-4
) -> dict[int, Float[Tensor, "features features"]]:
    """Return the linear map T′ of each class, as `fit_equivariance` fits it: Φ(Tx) ≈ Φ(x) @ map."""
    x, y = _pair(features, transform, *fit)
    return {
        number: _least_squares(x[fit[1] == number], y[fit[1] == number], ridge)
        for number in sorted(set(fit[1].tolist()))
    }


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
    like = at_least_float32(images.new_ones(len(images)))  # 16 bits are too few for coordinates
    matrices = affine_matrices(
        rotation=like * rotation,
        shear=like * 0,
        scale=torch.stack((like, like), dim=1) * scale,
        translation=torch.stack((like * across, like * down), dim=1),
    )
    return warp(images, matrices)
