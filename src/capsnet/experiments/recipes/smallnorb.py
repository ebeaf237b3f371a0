"""Classify smallNORB: toys from many viewpoints, in 5 classes (section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capsnet.experiments.figures import dots
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Variant
from capsnet.experiments.scales import AVERAGED, NARROW, Steps, capsnet, controls, training

STEPS = Steps(quick=6000, full=50_000, quick_batch=32)
#: For a short training: images turned and scaled, except in the last twentieth of the steps, and the weights' average.
QUICK: dict[str, Any] = {"rotation": 15.0, "scale": 0.2, "settle": 0.05, "average": 0.05}
#: The smallest difference that would matter to a user.
MARGIN = Margin(0.01, "one pair of photographs in 100, a quarter of the views of one of the 25 toys")


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with and without routing, and the controls."""
    plan = training(scale, "smallnorb", STEPS, quick=QUICK)
    shape = {"image_shape": (2, 32, 32), "num_classes": 5, "standardize": scale == "quick"}
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
        "quick": (
            *NARROW,
            "batches of 32",
            "each image scaled to mean 0 and standard deviation 1",
            "training images also rotated by up to 15° and scaled by up to 20 %, except in the last twentieth of the "
            "steps",
            AVERAGED,
        ),
        "full": ("the number of steps is ours; the paper does not give it",),
    },
    cost={
        "quick": "an hour and a half on 2 cores, with 5 seeds and the choice of the rates",
        "full": "an hour on one data-centre GPU; see --steps",
    },
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 5, "full": 3},
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
