"""Classify smallNORB: toys from many viewpoints, in 5 classes (section 7)."""

from __future__ import annotations

from collections.abc import Sequence

from capsnet.experiments.figures import dots
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Variant
from capsnet.experiments.scales import NARROW, Steps, capsnet, controls, training

STEPS = Steps(quick=700, full=50_000)
#: The smallest difference that would matter to a user.
MARGIN = Margin(0.01, "one pair of photographs in 100, a quarter of the views of one of the 25 toys")


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with and without routing, and the controls."""
    plan = training(scale, "smallnorb", STEPS)
    shape = {"image_shape": (2, 32, 32), "num_classes": 5}
    return (
        Variant("r3", "CapsNet, 3 routing iterations, with reconstruction", capsnet(scale, **shape), plan),
        Variant("r1", "the same without routing", capsnet(scale, routing_iterations=1, **shape), plan),
        *controls(capsnet(scale, **shape), plan),
    )


EXPERIMENT = Experiment(
    name="smallnorb",
    number=8,
    title="smallNORB: toys from many viewpoints",
    source="Section 7: 2.7 % test error with the architecture of MNIST",
    protocol=(
        "Train on random 32×32 crops of 24,300 stereo pairs of 25 toys at 48×48. Test on the centre crops of 24,300 "
        "pairs of 25 other toys. The two cameras are the two channels."
    ),
    deviations={
        "quick": NARROW,
        "full": ("the number of steps is ours; the paper does not give it",),
    },
    cost={"quick": "about 15 minutes on 2 cores", "full": "an hour on one data-centre GPU; see --steps"},
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 3, "full": 3},
    variants=variants,
    measures=(Measure("test", "test error", published={"r3": "2.7"}),),
    claims=(
        Claim("CapsNet is better than a CNN of its own size", "test", "r3", "cnn-max-pool", MARGIN),
        Claim("Routing is better than a fully connected head", "test", "r3", "cnn-same-stem", MARGIN),
        Claim("Three routing iterations are better than one", "test", "r3", "r1", MARGIN),
    ),
    shows="toys",
    figures=lambda records: [dots("smallnorb", records, "test", "smallNORB test error, %", shows="toys")],
)
