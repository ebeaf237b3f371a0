"""Two digits on top of each other, told apart: each winning capsule draws its own (section 6, figure 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capsnet.data.dataset import Source
from capsnet.models.capsnet import lengths_of
from capsnet.models.protocols import Decodes

#: A pixel belongs to a digit if it is at least half lit.
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The strongest classes of each image, and what each of their capsules draws alone."""

    images: Float[Tensor, "batch channels height width"]
    classes: Int[Tensor, "batch count"]
    """Longest capsules, the longest first."""
    lengths: Float[Tensor, "batch count"]
    drawings: Float[Tensor, "batch count channels height width"]

    def drawn(self, threshold: float = THRESHOLD) -> Bool[Tensor, "batch count height width"]:
        """What each drawing lights, whatever the image holds there."""
        return masks_of(self.drawings, threshold)

    def masks(self, threshold: float = THRESHOLD) -> Bool[Tensor, "batch count height width"]:
        """The image's lit pixels, shared out: which of them belong to each capsule.

        To the one that draws a pixel brightest, and, where strokes cross, to every other that lights it too. So each
        lit pixel has an owner, and a pixel that is not lit has none: drawings are blurred, the image is not.
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
        ValueError: the model has no decoder, or `count` is no number of classes.
    """
    capsules = model.class_poses(images)
    if not 1 <= count <= capsules.shape[1]:
        raise ValueError(f"segment: {count} of {capsules.shape[1]} classes")
    lengths, classes = lengths_of(capsules).topk(count, dim=1)
    drawings = model.decode(capsules.repeat_interleave(count, dim=0), classes.flatten())
    return Segmentation(images, classes, lengths, drawings.unflatten(0, (-1, count)))  # type: ignore[no-untyped-call]


def masks_of(
    images: Float[Tensor, "*batch channels height width"], threshold: float = THRESHOLD
) -> Bool[Tensor, "*batch height width"]:
    """Pixels whose brightest channel is at least `threshold`."""
    return images.amax(dim=-3) >= threshold


def intersection_over_union(
    masks: Bool[Tensor, "*batch height width"], truth: Bool[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch"]:
    """|A ∩ B| / |A ∪ B|; 1 where both are empty."""
    both = (masks & truth).flatten(-2).sum(dim=-1)
    either = (masks | truth).flatten(-2).sum(dim=-1)
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


@dataclass(frozen=True)
class SegmentationQuality:
    """How well the true digits of a test set were told apart, as means over its digits."""

    iou: float
    """Intersection over union of `Segmentation.masks` with the true digit; 0 for a digit that was not found."""
    iou_of_found: float
    """The same over the digits that were found; NaN if none was."""
    iou_of_drawings: float
    """As `iou`, of `Segmentation.drawn`: the drawing itself has to fit, pixel by pixel."""
    iou_of_everything: float
    """The control: all the digits' ink taken for each of them."""
    found: float
    """Share of digits among the strongest classes."""
    digits: int


@torch.no_grad()
def segmentation_quality(
    model: Decodes, source: Source, examples: int = 1000, batch_size: int = 250, threshold: float = THRESHOLD
) -> SegmentationQuality:
    """Compare each capsule's drawing with the true digit, for the first `examples` of a test source.

    Raises:
        ValueError: the source is random (freeze it), or the model has no decoder.
    """
    if source.draws:
        raise ValueError("segmentation_quality: the examples must be fixed; see capsnet.data.fixed_random")
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
        # (batch, true digit, answer): whose capsule is the digit's?
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
