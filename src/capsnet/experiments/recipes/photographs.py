"""Classify CIFAR-10, with leaky routing and an ensemble, and SVHN (section 7)."""

from __future__ import annotations

from collections.abc import Sequence

from capsnet.experiments.ensemble import ensembles, with_scores
from capsnet.experiments.figures import dots
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Variant
from capsnet.experiments.scales import NARROW, SIZES, Steps, capsnet, controls, training

CIFAR10_STEPS = Steps(quick=1000, full=100_000)
SVHN_STEPS = Steps(quick=1000, full=100_000)
#: The smallest difference that would matter to a user.
CIFAR10_MARGIN = Margin(
    0.01, "one photograph in 100; less is not noticed in a model that is wrong on every third"
)
SVHN_MARGIN = Margin(
    0.005, "one house number in 200, about a tenth of the errors that the paper's network makes"
)


def cifar10_variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with and without leaky routing, and the controls."""
    plan = training(scale, "cifar10", CIFAR10_STEPS)
    options = {"image_shape": (3, 24, 24), "primary_types": 2 * SIZES[scale].primary_types}
    like = capsnet(scale, routing_leaky=True, **options)
    return (
        Variant("leaky-r3", "CapsNet, leaky routing, 3 iterations, with reconstruction", like, plan),
        Variant("r3", "the same, every child must choose a parent", capsnet(scale, **options), plan),
        Variant(
            "leaky-r1",
            "as leaky-r3 without routing",
            capsnet(scale, routing_leaky=True, routing_iterations=1, **options),
            plan,
        ),
        *controls(like, plan),
    )


def svhn_variants(scale: Scale) -> Sequence[Variant]:
    """Return the paper's smaller network, and the controls."""
    plan = training(scale, "svhn", SVHN_STEPS)
    sizes = {"image_shape": (3, 32, 32), "primary_dim": 6, "class_dim": 8}
    if scale == "full":
        sizes |= {"stem_channels": 64, "primary_types": 16}
    like = capsnet(scale, **sizes)
    return (
        Variant("r3", "CapsNet, 6-D primary and 8-D class capsules, with reconstruction", like, plan),
        Variant("r1", "the same without routing", capsnet(scale, routing_iterations=1, **sizes), plan),
        *controls(like, plan),
    )


CIFAR10 = Experiment(
    name="cifar10",
    number=9,
    title="CIFAR-10: an ensemble with leaky routing",
    source="Section 7: 10.6 % test error, an ensemble of 7",
    protocol=(
        "Train on standardised images with random 24×24 crops, flips, brightness and contrast; test on the centre "
        "crop. The network has 64 types of primary capsules and a none-of-the-above logit in the routing softmax. "
        "Several seeds are also evaluated as an ensemble."
    ),
    deviations={
        "quick": (
            "32 of 256 stem channels and 16 of 64 capsule types; every control narrowed in the same way",
            NARROW[1],
        ),
        "full": ("the number of steps is ours; the paper does not give it",),
    },
    cost={"quick": "about 15 minutes on 2 cores", "full": "hours on one data-centre GPU; see --steps"},
    margins_commit="0f69141",
    seeds={"smoke": 2, "quick": 2, "full": 7},
    variants=cifar10_variants,
    measures=(Measure("test", "test error, single models", published={"leaky-r3": "10.6 (ensemble of 7)"}),),
    claims=(
        Claim(
            "CapsNet is better than a CNN of its own size", "test", "leaky-r3", "cnn-max-pool", CIFAR10_MARGIN
        ),
        Claim(
            "Routing is better than a fully connected head",
            "test",
            "leaky-r3",
            "cnn-same-stem",
            CIFAR10_MARGIN,
        ),
        Claim("Leaky routing helps", "test", "leaky-r3", "r3", CIFAR10_MARGIN),
        Claim("Three routing iterations are better than one", "test", "leaky-r3", "leaky-r1", CIFAR10_MARGIN),
    ),
    measure=with_scores,
    notes=ensembles,
    figures=lambda records: [dots("cifar10", records, "test", "CIFAR-10 test error, %")],
)

SVHN = Experiment(
    name="svhn",
    number=9,
    title="SVHN: a small network",
    source="Section 7: 4.3 % test error, trained on the 73,257 training images only",
    protocol=(
        "The network has 64 stem channels, 16 types of 6-D primary capsules and 8-D class capsules. Training shifts "
        "the images by up to 2 px. Test on 26,032 images."
    ),
    deviations={
        "quick": (
            "32 of 64 stem channels and 8 of 16 capsule types; every control narrowed in the same way",
            NARROW[1],
        ),
        "full": ("the number of steps is ours; the paper does not give it",),
    },
    cost={"quick": "about 15 minutes on 2 cores", "full": "an hour on one data-centre GPU; see --steps"},
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 1, "full": 3},
    variants=svhn_variants,
    measures=(Measure("test", "test error", published={"r3": "4.3"}),),
    claims=(
        Claim("CapsNet is better than a CNN of its own size", "test", "r3", "cnn-max-pool", SVHN_MARGIN),
        Claim("Routing is better than a fully connected head", "test", "r3", "cnn-same-stem", SVHN_MARGIN),
        Claim("Three routing iterations are better than one", "test", "r3", "r1", SVHN_MARGIN),
    ),
    figures=lambda records: [dots("svhn", records, "test", "SVHN test error, %")],
)
