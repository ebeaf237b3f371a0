"""Write the main results: one sentence for each question, from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from capsnet.experiments.recipe import Measure
from capsnet.experiments.record_groups import Group
from capsnet.experiments.statistics import estimate
from capsnet.experiments.verdicts import Judgement, judgements

#: Verdict → words for our variant compared with the other.
WORDS = {
    "supported": "better",
    "contradicted": "worse",
    "equivalent": "no difference that matters",
    "undecided": "undecided",
}


@dataclass(frozen=True)
class Comparison:
    """Select one claim of an experiment at the quick scale, and name its two sides."""

    experiment: str
    where: str
    ours: str
    ours_named: str
    against: str
    against_named: str
    measure: str = "test"

    def matches(self, judgement: Judgement) -> bool:
        """Return whether a judgement is of this claim."""
        claim = judgement.claim
        return (claim.ours, claim.against, claim.measure) == (self.ours, self.against, self.measure)


@dataclass(frozen=True)
class Question:
    """Hold a question of users, and the claims that answer it."""

    text: str
    measured: str
    """Name of the measured quantity."""
    comparisons: tuple[Comparison, ...]


QUESTIONS = (
    Question(
        "Does routing help?",
        "Error",
        (
            Comparison("table1", "MNIST", "r3-reconstruction", "three iterations", "r1-reconstruction", "one"),
            Comparison("table1", "MNIST, authors' settings", "official-r3", "three", "official-r1", "one"),
            Comparison("cifar10", "CIFAR-10", "leaky-r3", "three", "leaky-r1", "one"),
            Comparison(
                "table1", "MNIST", "r3-reconstruction", "three", "cnn-same-stem", "a fully connected head instead"
            ),
        ),
    ),
    Question(
        "Which routing, in CapsNet?",
        "Error",
        tuple(
            Comparison("routings", "MNIST", f"mnist-{name}", named, "mnist-dynamic", "dynamic")
            for name, named in (
                ("self-attention", "self-attention"),
                ("inverted-attention", "inverted attention"),
                ("variational-bayes", "variational Bayes"),
                ("em", "EM"),
            )
        ),
    ),
    Question(
        "Do capsules beat a CNN of their size, with max pooling?",
        "Error",
        (
            Comparison("table1", "MNIST", "r3-reconstruction", "capsules", "cnn-max-pool", "CNN"),
            Comparison("multimnist", "overlapping digits", "r3", "capsules", "cnn-max-pool", "CNN"),
            Comparison("smallnorb", "smallNORB", "r3", "capsules", "cnn-max-pool", "CNN"),
            Comparison("cifar10", "CIFAR-10", "leaky-r3", "capsules", "cnn-max-pool", "CNN"),
        ),
    ),
    Question(
        "Do they need less training data?",
        "Error",
        (
            Comparison("data-efficiency", "10 digits per class", "r3-10", "capsules", "cnn-max-pool-10", "CNN"),
            Comparison(
                "data-efficiency", "10 per class", "r3-10", "capsules", "cnn-same-stem-10", "fully connected head"
            ),
            Comparison("data-efficiency", "all of MNIST", "r3-all", "capsules", "cnn-max-pool-all", "CNN"),
        ),
    ),
    Question(
        "Are they robust to affine change that they never saw?",
        "Error on transformed digits",
        (
            Comparison("affine", "MNIST", "r3", "capsules", "cnn-max-pool", "CNN", "familiar places"),
            Comparison("affine", "MNIST", "r3", "capsules", "r1", "one iteration", "familiar places"),
        ),
    ),
    Question(
        "Do they generalise to new viewpoints?",
        "Error on new viewpoints",
        (
            Comparison(
                "viewpoint", "azimuths", "azimuth-r3", "capsules", "azimuth-cnn-max-pool", "CNN", "novel"
            ),
            Comparison(
                "viewpoint", "elevations", "elevation-r3", "capsules", "elevation-cnn-max-pool", "CNN", "novel"
            ),
        ),
    ),
    Question(
        "Are poses equivariant?",
        "R² of a linear map that predicts the transformed pose",
        (
            Comparison("equivariance", "MNIST", "r3-reconstruction", "poses", "cnn-max-pool", "CNN", "R²"),
            Comparison(
                "equivariance", "MNIST", "r3-reconstruction", "poses", "cnn-average-pool", "averaged features", "R²"
            ),
        ),
    ),
    Question(
        "What is reconstruction for?",
        "Error, R² and |r| with the digit's slant",
        (
            Comparison(
                "table1", "MNIST error", "r3-reconstruction", "with", "r3-no-reconstruction", "without"
            ),
            Comparison(
                "equivariance", "R²", "r3-reconstruction", "with", "r3-no-reconstruction", "without", "R²"
            ),
            Comparison(
                "dimensions", "slant in one number", "r3-reconstruction", "with", "r3-no-reconstruction", "without",
                "follows slant",
            ),
        ),
    ),
    Question(
        "Do they notice images that are no digits?",
        "AUROC against MNIST's test digits",
        (
            Comparison(
                "unfamiliar", "garments", "capsule-drawing", "by reconstruction", "cnn-max-pool", "CNN by softmax",
                "fashion",
            ),
            Comparison(
                "unfamiliar", "letters", "capsule-drawing", "by reconstruction", "cnn-max-pool", "CNN by softmax",
                "letters",
            ),
        ),
    ),
    Question(
        "Is their confidence right?",
        "Expected calibration error",
        (
            Comparison("calibration", "as it is", "r3", "capsule lengths", "cnn-max-pool", "CNN's softmax", "ece"),
            Comparison(
                "calibration", "after temperature", "r3", "capsule lengths", "cnn-max-pool", "CNN's softmax",
                "ece scaled",
            ),
        ),
    ),
)  # fmt: skip


def findings(found: Sequence[Group]) -> str:
    """Return the questions and their answers at the quick scale, as a Markdown list.

    A question without records is left out. The last line counts the verdicts, and names what was contradicted.

    Args:
        found: groups of records, of `record_groups.groups`.
    """
    groups = {group.experiment.name: group for group in found if group.scale == "quick" and not group.label}
    judged = {name: judgements(group) for name, group in groups.items()}
    lines = []
    for question in QUESTIONS:
        answers = [
            (comparison, judgement)
            for comparison in question.comparisons
            for judgement in judged.get(comparison.experiment, ())
            if comparison.matches(judgement)
        ]
        if answers:
            seeds = " or ".join(sorted({str(judgement.difference.seeds) for _, judgement in answers}))
            told = "; ".join(_told(one, groups[one.experiment], judgement) for one, judgement in answers)
            lines.append(f"- **{question.text}** {question.measured}, {seeds} seeds. {told}.")
    if judged:
        counts = counted([judgement for several in judged.values() for judgement in several])
        lines.append(
            f"- **What is not shown?** {counts}. Undecided means that these seeds and this training cannot tell; it is "
            "not evidence for either side."
        )
    return "\n".join(lines)


def _told(comparison: Comparison, group: Group, judgement: Judgement) -> str:
    ours, theirs = (mean_of(group, name, judgement.measure) for name in (comparison.ours, comparison.against))
    word = WORDS[judgement.word.partition(",")[0]]
    small = ", but by less than matters" if judgement.is_small else ""
    return (
        f"{comparison.where}: {comparison.ours_named} {ours}, {comparison.against_named} {theirs} "
        f"(*{word}*{small})"
    )


def mean_of(group: Group, variant: str, measure: Measure) -> str:
    """Format a measure's mean over the seeds of a variant."""
    found = estimate(group.of(variant), measure.key)
    assert found is not None
    return (
        f"{100 * found.mean:.{measure.digits}f} %" if measure.percent else f"{found.mean:.{measure.digits}f}"
    )


def counted(judged: Sequence[Judgement]) -> str:
    """Count the verdicts, as "Of 65 claims 17 supported, …"."""
    counts = Counter(judgement.word.partition(",")[0] for judgement in judged)
    return f"Of {len(judged)} claims " + ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
