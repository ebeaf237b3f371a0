"""Explanations: measured on drawings whose answer is known, and on models built to have a known one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from capsnet.data import Examples
from capsnet.data.overlapping import Pairs
from capsnet.data.warping import affine_matrices, warp
from capsnet.explain import (
    MEASURES,
    OFFSETS,
    TRANSFORMS,
    Segmentation,
    class_pose,
    correlations,
    coupling_entropy,
    dead_share,
    dimension_effects,
    dimension_sheet,
    fit_equivariance,
    layer_output,
    logit_changes,
    measure,
    rotation,
    scaling,
    segment,
    segmentation_quality,
    thickness,
    translation,
)
from capsnet.explain.morphometrics import is_light_on_dark
from capsnet.explain.segment import intersection_over_union
from capsnet.models import CapsNet, CapsNetConfig
from capsnet.routing import RoutingTrace, trace_routing


def small(**changes: object) -> CapsNet:
    options: dict[str, object] = {
        "image_shape": (1, 14, 12),
        "num_classes": 3,
        "stem_channels": 8,
        "stem_kernel": 5,
        "primary_types": 4,
        "primary_dim": 4,
        "primary_kernel": 5,
        "class_dim": 6,
        "decoder": (8, 8),
    }
    torch.manual_seed(0)
    return CapsNet(CapsNetConfig(**{**options, **changes}))  # type: ignore[arg-type]


def bar(width: int, height: int, size: int = 40) -> Tensor:
    image = torch.zeros(1, 1, size, size)
    top, left = (size - height) // 2, (size - width) // 2
    image[..., top : top + height, left : left + width] = 1
    return image


def of(name: str, images: Tensor) -> float:
    return float(measure(images)[0, MEASURES.index(name)])


# Dimensions


def test_offsets_are_those_of_the_paper() -> None:
    assert len(OFFSETS) == 11
    assert OFFSETS[0] == -0.25
    assert OFFSETS[5] == 0
    np.testing.assert_allclose(np.diff(OFFSETS), 0.05)


@torch.no_grad()
def test_a_sheet_turns_one_number_of_one_capsule_only() -> None:
    model = small()
    capsules = model(torch.rand(1, 1, 14, 12))[0]
    sheet = dimension_sheet(model, capsules, 1)
    assert sheet.shape == (6, 11, 1, 14, 12)
    for dim, column in ((0, 0), (4, 9)):
        turned = capsules.clone()
        turned[1, dim] += OFFSETS[column]
        torch.testing.assert_close(sheet[dim, column], model.decode(turned[None], 1)[0])
    longest = int(capsules.norm(dim=-1).argmax())
    torch.testing.assert_close(dimension_sheet(model, capsules), dimension_sheet(model, capsules, longest))


@pytest.mark.misuse
def test_a_sheet_needs_a_decoder_and_one_example() -> None:
    with pytest.raises(ValueError, match="decoder"):
        dimension_sheet(small(decoder=None), torch.rand(3, 6), 0)
    with pytest.raises(ValueError, match="must be"):
        dimension_sheet(small(), torch.rand(2, 3, 6), 0)


class Painter(CapsNet):
    """Draws a bar whose thickness is dimension 0 and whose place is dimension 2; the others do nothing."""

    def decode(self, capsules: Tensor, classes: Tensor | int | None = None) -> Tensor:
        pose = capsules[:, classes] if isinstance(classes, int) else capsules[:, 0]
        base = bar(6, 24).expand(len(pose), -1, -1, -1).contiguous()
        still = pose[:, 0] * 0
        matrices = affine_matrices(
            rotation=still,
            shear=still,
            scale=torch.stack((1 + pose[:, 0], still + 1), dim=1),
            translation=torch.stack((still, -12 * pose[:, 2]), dim=1),
        )
        return warp(base, matrices)


@pytest.mark.quick
def test_effects_name_what_a_dimension_does() -> None:
    model = Painter(CapsNetConfig(stem_channels=8, primary_types=2, class_dim=4))
    generator = torch.Generator().manual_seed(0)
    capsules = 0.1 * torch.rand(4, 10, 4, generator=generator)
    effects = dimension_effects(model, capsules, torch.zeros(4, dtype=torch.long))
    thick, down = MEASURES.index("thickness"), MEASURES.index("down")
    meanings = effects.meanings()
    assert meanings[2] is not None
    assert meanings[2][0] == "down"
    assert meanings[2][1] == pytest.approx(-1, abs=0.01)
    assert meanings[1] is None
    assert meanings[3] is None
    assert effects.correlation[0, thick] > 0.9
    assert effects.change[0, thick] == pytest.approx(0.5 * 6, rel=0.2)
    assert effects.change[2, down] == pytest.approx(-6, rel=0.02)


# Measures


@given(width=st.integers(2, 9), height=st.integers(16, 30))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_measures_of_a_bar_are_those_it_was_drawn_with(width: int, height: int) -> None:
    image = bar(width, height)
    assert of("area", image) == pytest.approx(width * height, rel=0.03)
    assert of("thickness", image) == pytest.approx(width, abs=0.5)
    assert of("length", image) == pytest.approx(height, rel=0.3)
    assert of("width", image) == pytest.approx(width, abs=1)
    assert of("height", image) == pytest.approx(height, abs=2)
    assert of("slant", image) == pytest.approx(0, abs=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize("shear", [-0.5, 0.2, 0.4])
def test_slant_is_the_shear(shear: float) -> None:
    still = torch.zeros(1)
    matrices = affine_matrices(
        rotation=still, shear=still - shear, scale=torch.ones(1, 2), translation=torch.zeros(1, 2)
    )
    leaning = warp(bar(4, 24), matrices)
    assert of("slant", leaning) == pytest.approx(math.degrees(math.atan(shear)), abs=1)
    assert of("width", leaning) == pytest.approx(4, abs=2), "width is measured with the slant undone"


def test_place_does_not_depend_on_brightness_and_nothing_else_on_place() -> None:
    image = 0.3 * bar(5, 21)
    moved = image.roll((3, -4), dims=(2, 3))
    before, after = measure(image)[0], measure(moved)[0]
    across, down = MEASURES.index("across"), MEASURES.index("down")
    assert after[across] - before[across] == pytest.approx(-4)
    assert after[down] - before[down] == pytest.approx(3)
    others = [i for i in range(len(MEASURES)) if i not in (across, down)]
    np.testing.assert_allclose(before[others], after[others], atol=1e-9)


def test_a_blank_image_measures_nan_and_changes_no_other() -> None:
    both = measure(torch.cat([torch.zeros(1, 1, 40, 40), bar(4, 20)]))
    assert np.isnan(both[0]).all()
    np.testing.assert_array_equal(both[1], measure(bar(4, 20))[0])


def test_only_light_on_dark_is_measured() -> None:
    assert is_light_on_dark(torch.cat([bar(4, 20), bar(6, 20)]))
    assert not is_light_on_dark(1 - bar(4, 20))
    assert not is_light_on_dark(torch.zeros(2, 3, 8, 8))


def test_correlations_are_pearsons() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    y[:, 0] += x[:, 1]
    np.testing.assert_allclose(correlations(x, y), np.corrcoef(x.T, y.T)[:3, 3:], atol=1e-12)
    y[7] = np.nan
    kept = np.delete(np.arange(50), 7)
    np.testing.assert_allclose(correlations(x, y), correlations(x[kept], y[kept]))
    assert np.isnan(correlations(np.full((5, 1), 0.1), rng.normal(size=(5, 1)))).all()


# Routing


def trace_of(couplings: Tensor, leaky: bool = False) -> RoutingTrace:
    iterations, batch, _, parents = couplings.shape
    return RoutingTrace(couplings * 0, couplings, torch.zeros(iterations, batch, parents, 3), leaky)


def test_entropy_runs_from_1_to_0() -> None:
    even, decided = torch.full((1, 1, 4, 5), 0.2), torch.eye(5)[None, None, :4]
    entropy = coupling_entropy(trace_of(torch.cat([even, decided])))
    torch.testing.assert_close(entropy, torch.tensor([[1.0], [0.0]]))


def test_entropy_counts_the_leaked_share() -> None:
    quarter = torch.full((1, 1, 2, 3), 0.25)  # and a quarter leaks
    torch.testing.assert_close(coupling_entropy(trace_of(quarter, leaky=True)), torch.ones(1, 1))
    assert float(coupling_entropy(trace_of(quarter * 0, leaky=True))) == 0


@pytest.mark.parametrize("leaky", [False, True])
def test_the_entropy_of_an_example_is_the_same_in_any_batch(leaky: bool) -> None:
    """The leaked share is 0 in one example and most of the coupling in the other."""
    parts = [torch.full((1, 1, 1, 2), share) for share in (0.5, 0.1)]
    alone = [coupling_entropy(trace_of(part, leaky)) for part in parts]
    torch.testing.assert_close(
        coupling_entropy(trace_of(torch.cat(parts, 1), leaky)), torch.cat(alone, 1), rtol=0, atol=0
    )


@pytest.mark.quick
@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_trace_knows_whether_it_is_leaky(leaky: bool, backend: str) -> None:
    u, weight = torch.rand(2, 5, 3), torch.rand(5, 3, 4, 2)
    assert trace_routing(u, weight, 2, backend=backend, leaky=leaky).leaky is leaky


def test_results_that_hold_tensors_are_equal_only_to_themselves() -> None:
    model, images = small(routing_leaky=True), torch.rand(2, 1, 14, 12)
    trace, again = model.trace(images), model.trace(images)
    assert trace.routing.leaky
    for one, other in (
        (trace, again),
        (trace.routing, again.routing),
        (segment(model, images), segment(model, images)),
    ):
        assert one == one  # noqa: PLR0124
        assert one != other


@pytest.mark.quick
def test_routing_starts_even_and_its_logits_move() -> None:
    model = small()
    with torch.no_grad():
        model.class_capsules.weight.mul_(30)  # votes long enough to be heard
    trace = model.trace(torch.rand(5, 1, 14, 12)).routing
    entropy, changes = coupling_entropy(trace), logit_changes(trace)
    assert entropy.shape == (3, 5)
    torch.testing.assert_close(entropy[0], torch.ones(5))
    assert (entropy.diff(dim=0) < 0).all()
    assert changes.shape == (2, 5)
    torch.testing.assert_close(changes[0], trace.logits[1].abs().mean(dim=(1, 2)))


def test_dead_means_short_in_every_example() -> None:
    capsules = torch.zeros(3, 4, 2)
    capsules[2, 1] = 0.5
    assert dead_share(capsules) == 0.75


# Overlapping digits


class Reader(CapsNet):
    """Knows three bars, finds those whose corner pixel is lit, and draws them as they are."""

    shapes = torch.stack([bar(20, 4, 20)[0], bar(4, 20, 20)[0], bar(8, 8, 20)[0]])

    def forward(self, images: Tensor) -> Tensor:
        overlaps = torch.stack(
            [(images * shape).sum((1, 2, 3)) / shape.sum() for shape in self.shapes], dim=1
        )
        return (0.9 * overlaps)[..., None] * torch.tensor([1.0, 0.0])

    def decode(self, capsules: Tensor, classes: Tensor | int | None = None) -> Tensor:
        assert isinstance(classes, Tensor)
        return self.shapes[classes]


@pytest.fixture
def bars() -> tuple[Reader, Pairs]:
    model = Reader(
        CapsNetConfig(image_shape=(1, 20, 20), num_classes=3, class_dim=2, stem_channels=4, primary_types=2)
    )
    images = (Reader.shapes.repeat(4, 1, 1, 1) * 255).byte()
    return model, Pairs.of(Examples(images, torch.arange(3).repeat(4)), shift=0, canvas=20)


def test_perfect_drawings_are_distinguished_without_error(bars: tuple[Reader, Pairs]) -> None:
    from capsnet.data.fixed_random import freeze

    model, pairs = bars
    # The square lies inside the cross of the two bars' middles, so only pairs with it are told apart surely.
    quality = segmentation_quality(model, freeze(pairs, stream=9), batch_size=5)
    assert quality.digits == 24
    assert quality.iou_of_found == pytest.approx(1)
    assert quality.iou == pytest.approx(quality.found)
    assert quality.iou_of_drawings == pytest.approx(quality.found)
    assert quality.iou_of_everything < 0.9
    with pytest.raises(ValueError, match="fixed"):
        segmentation_quality(model, pairs)


def test_segments_are_the_longest_capsules_drawn_alone() -> None:
    model = small()
    images = torch.rand(4, 1, 14, 12)
    answer = segment(model, images, 2)
    with torch.no_grad():
        capsules = model(images)
        assert torch.equal(answer.classes, model.predict(images, 2))
        torch.testing.assert_close(answer.drawings[:, 1], model.decode(capsules, answer.classes[:, 1]))
    assert answer.masks().shape == (4, 2, 14, 12)
    with pytest.raises(ValueError, match="classes"):
        segment(model, images, 4)


def test_lit_pixels_belong_to_the_brightest_drawing_and_crossings_to_both() -> None:
    # Pixels: dark; lit, the first draws it brighter; both light it; lit, drawn faintly by the second alone.
    image = torch.tensor([0.1, 1.0, 1.0, 0.9]).reshape(1, 1, 1, 4)
    drawings = torch.tensor([[0.9, 0.4, 0.6, 0.0], [0.0, 0.2, 0.8, 0.1]]).reshape(1, 2, 1, 1, 4)
    answer = Segmentation(image, torch.tensor([[3, 5]]), torch.tensor([[0.9, 0.8]]), drawings)
    assert answer.masks().flatten(1).int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]
    assert answer.drawn().flatten(1).int().tolist() == [[1, 0, 1, 0, 0, 0, 1, 0]]


def test_intersection_over_union_of_known_masks() -> None:
    a, b = torch.zeros(3, 4, 4, dtype=torch.bool), torch.zeros(3, 4, 4, dtype=torch.bool)
    a[0, :2], b[0, 1:3] = True, True
    a[1] = True
    torch.testing.assert_close(intersection_over_union(a, b), torch.tensor([1 / 3, 0.0, 1.0]))


# Equivariance


def digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 6, 6, generator=generator), torch.arange(count) % 2


def test_a_linear_feature_of_a_linear_transform_is_equivariant() -> None:
    def pixels(images: Tensor, _: Tensor) -> Tensor:
        return images.flatten(1)

    result = fit_equivariance(pixels, lambda x: x.flip(3), digits(200, 0), digits(60, 1), ridge=1e-9)
    assert result.r2 > 0.999
    assert result.r2_unchanged < 0.2
    assert result.length_change == pytest.approx(0, abs=1e-6)
    assert result.examples == 60


def test_an_invariant_feature_is_known_by_staying_unchanged() -> None:
    def mean_and_more(images: Tensor, _: Tensor) -> Tensor:
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], dim=1)

    result = fit_equivariance(mean_and_more, lambda x: x.flip(3), digits(50, 0), digits(40, 1))
    assert result.r2_unchanged == pytest.approx(1)


def test_r2_is_low_where_a_transform_destroys_information() -> None:
    noise = torch.Generator().manual_seed(2)

    def pixels(images: Tensor, _: Tensor) -> Tensor:
        return images.flatten(1)

    result = fit_equivariance(
        pixels, lambda x: torch.rand(x.shape, generator=noise), digits(400, 0), digits(100, 1)
    )
    assert result.r2 < 0.1


def test_components_make_features_comparable() -> None:
    # Two directions hold nearly all the variance; the other dimensions are noise that no map predicts.
    def wide(images: Tensor, _: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(images.sum() * 1e4) % 2**31)
        noise = 1e-3 * torch.rand(len(images), 30, generator=generator)
        return torch.cat([images[:, 0, 0, :2], noise], dim=1)

    sets = digits(80, 0), digits(60, 1)
    assert fit_equivariance(wide, lambda x: -x, *sets, components=2).r2 > 0.99


def test_r2_counts_the_components_left_out() -> None:
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(200, 1, 2, 4, generator=chance)
    labels = torch.zeros(200, dtype=torch.long)
    sets = (images[:100], labels[:100]), (images[100:], labels[100:])

    def features(images: Tensor, _: Tensor) -> Tensor:
        return images.flatten(1) * torch.tensor([3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    # Two directions hold 18 of 24 parts of the variance, and tell nothing of the rest.
    found = fit_equivariance(features, lambda x: -x, *sets, components=2)
    assert found.r2 == pytest.approx(18 / 24, abs=0.05)
    assert fit_equivariance(features, lambda x: -x, *sets).r2 > 0.99


def test_examples_of_classes_without_a_map_are_left_out() -> None:
    def pixels(images: Tensor, _: Tensor) -> Tensor:
        return images.flatten(1)

    images, labels = digits(60, 1)
    stranger = torch.cat([100 * images[:1], images]), torch.cat([labels[:1] + 7, labels])
    with_it, without = (
        fit_equivariance(pixels, lambda x: x / 2, digits(200, 0), held_out)
        for held_out in (stranger, (images, labels))
    )
    assert with_it == without
    assert with_it.examples == 60


def test_no_common_class_is_refused() -> None:
    images, labels = digits(10, 0)
    with pytest.raises(ValueError, match="two examples"):
        fit_equivariance(lambda x, _: x.flatten(1), rotation(5), (images, labels), (images, labels + 7))


@torch.no_grad()
def test_features_of_models() -> None:
    model = small()
    images, labels = torch.rand(7, 1, 14, 12), torch.tensor([0, 1, 2, 0, 1, 2, 1])
    poses = class_pose(model, batch_size=3)(images, labels)
    torch.testing.assert_close(poses, model(images)[torch.arange(7), labels])
    hidden = layer_output(model, model.primary, batch_size=3)(images, labels)
    torch.testing.assert_close(hidden, model.primary(images).flatten(1))
    assert not model.primary._forward_hooks, "the hook must not stay"


def test_transforms_do_what_their_names_say() -> None:
    image = bar(5, 20)
    assert of("across", translation(2)(image)) - of("across", image) == pytest.approx(2, abs=0.01)
    assert of("height", scaling(1.2)(image)) == pytest.approx(24, abs=1.5)
    assert of("slant", rotation(15)(image)) == pytest.approx(-15, abs=1.5)
    assert of("thickness", thickness(1)(image)) == pytest.approx(7, abs=0.5)
    assert of("thickness", thickness(-1)(image)) == pytest.approx(3, abs=0.5)
    for transform in TRANSFORMS.values():
        assert transform(image).shape == image.shape
