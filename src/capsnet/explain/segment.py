"""Separate overlapping digits: decode each winning capsule alone (figure 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capsnet.data.dataset import Source
from capsnet.models.capsnet import lengths_of
from capsnet.models.protocols import Decodes

#: A pixel belongs to a digit if its brightness is at least one half.
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Hold the longest class capsules of each image and the drawing of each one alone."""

    images: Float[Tensor, "batch channels height width"]
    classes: Int[Tensor, "batch count"]
    """Classes of the longest capsules, the longest first."""
    lengths: Float[Tensor, "batch count"]
    drawings: Float[Tensor, "batch count channels height width"]

    def drawn(self, threshold: float = THRESHOLD) -> Bool[Tensor, "batch count height width"]:
        """Return the bright pixels of each drawing, independent of the image."""
        return masks_of(self.drawings, threshold)

    def masks(self, threshold: float = THRESHOLD) -> Bool[Tensor, "batch count height width"]:
        """Assign the image's bright pixels to the capsules.

        A pixel belongs to the capsule that draws it brightest. Where strokes cross, it also belongs to every
        other capsule that draws it bright. Dark pixels of the image belong to no capsule: the drawings are
        blurred, the image is not.
        """
        strength = self.drawings.amax(dim=-3)
        brightest = strength >= strength.amax(dim=1, keepdim=True)
        return (brightest | self.drawn(threshold)) & masks_of(self.images, threshold)[:, None]


@torch.no_grad()
def segment(
    model: Decodes, images: Float[Tensor, "batch channels height width"], count: int = 2
) -> Segmentation:
    """Decode each of the `count` longest capsules alone.

    Raises:
        ValueError: the model has no decoder, or `count` is not between 1 and the number of classes.
    """
    capsules = model.class_poses(images)
    if not 1 <= count <= capsules.shape[1]:
        raise ValueError(
            f"segment: count is {count}; it must be from 1 to the number of classes, {capsules.shape[1]}"
        )
    lengths, classes = lengths_of(capsules).topk(count, dim=1)
    drawings = model.decode(capsules.repeat_interleave(count, dim=0), classes.flatten())
    return Segmentation(images, classes, lengths, drawings.unflatten(0, (-1, count)))  # type: ignore[no-untyped-call]


def masks_of(
    images: Float[Tensor, "*batch channels height width"], threshold: float = THRESHOLD
) -> Bool[Tensor, "*batch height width"]:
    """Return the pixels whose brightest channel is at least `threshold`."""
    return images.amax(dim=-3) >= threshold


def intersection_over_union(
    masks: Bool[Tensor, "*batch height width"], truth: Bool[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch"]:
    """Return |A ∩ B| / |A ∪ B|; 1 where both masks are empty."""
    both = (masks & truth).flatten(-2).sum(dim=-1)
    either = (masks | truth).flatten(-2).sum(dim=-1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


@dataclass(frozen=True)
class SegmentationQuality:
    """Hold how well overlapping digits are separated, as means over the true digits."""

    iou: float
    """Intersection over union of `Segmentation.masks` and the true digit; 0 for a digit that was not found."""
    iou_of_found: float
    """The same, over the digits found; NaN if none was found."""
    iou_of_drawings: float
    """The same as `iou` for `Segmentation.drawn`: the drawing itself is compared, pixel by pixel."""
    iou_of_everything: float
    """The control: the ink of all digits is used as the mask of each digit."""
    found: float
    """Share of digits whose class is among the longest capsules."""
    digits: int


@torch.no_grad()
def segmentation_quality(
    model: Decodes, source: Source, examples: int = 1000, batch_size: int = 250, threshold: float = THRESHOLD
) -> SegmentationQuality:
    """Compare each capsule's drawing with the true digit, on the first `examples`.

    Raises:
        ValueError: the source is random (fix it with `fixed_random`), or the model has no decoder.
    """
    if source.draws:
        raise ValueError("segmentation_quality: the source is random; fix it with capsnet.data.fixed_random")
    device = next(model.parameters()).device
    source = source.to(device)
    own: list[Tensor] = []
    drawn: list[Tensor] = []
    everything: list[Tensor] = []
    found: list[Tensor] = []
    for start in range(0, min(examples, len(source)), batch_size):
        stop = min(start + batch_size, examples, len(source))
        batch = source.batch(torch.arange(start, stop, device=device))
        count = batch.labels.shape[1]
        answer = segment(model, batch.images, count)
        truth = masks_of(batch.originals, threshold)
        # (batch, true digit, answer): which answer, if any, is the digit's class.
        matches = batch.labels[:, :, None] == answer.classes[:, None, :]
        there = matches.any(dim=2)
        place = matches.int().argmax(dim=2)[:, :, None, None].expand_as(truth)
        ink = truth.any(dim=1, keepdim=True).expand_as(truth)
        for ious, masks in ((own, answer.masks(threshold)), (drawn, answer.drawn(threshold))):
            ious.append(intersection_over_union(masks.gather(1, place), truth) * there)
        found.append(there)
        everything.append(intersection_over_union(ink, truth))
    shared, theres = torch.cat(own), torch.cat(found)
    return SegmentationQuality(
        float(shared.mean()),
        float(shared[theres].mean()),
        float(torch.cat(drawn).mean()),
        float(torch.cat(everything).mean()),
        float(theres.float().mean()),
        theres.numel(),
    )
