"""The report's sections, and the sentences that tell a learner what each figure shows."""

from __future__ import annotations

from capsnet.explain.segment import segmentation_quality
from capsnet.models.protocols import Decodes, Traceable
from capsnet.report import capsules, curves, predictions
from capsnet.report.facts import result
from capsnet.report.material import Material
from capsnet.report.page import Section

#: Test pairs on which overlapping digits are told apart.
PAIRS = 500
NO_DECODER = (
    "This model was trained without a decoder, so its capsules cannot be drawn: "
    "reconstructions and the meaning of dimensions are left out."
)


def sections(material: Material) -> list[Section]:
    """All that can be told of this run, in order."""
    told = [result(material), training(material), mistakes(material), examples(material)]
    if (model := material.traceable) is not None:
        told.append(lengths(material))
        if material.decoding is not None:
            told.append(dimensions(material, model))
        told.append(routing(material, model))
    return told


def training(material: Material) -> Section:
    """Curves."""
    pictures = curves.learning_curves(material)
    if not pictures:
        return Section("Training", ["This run has no metrics.jsonl, so there are no curves."])
    return Section(
        "Training",
        [
            "The network is shown images and changes its weights so that the loss falls. The margin part asks "
            "the right class's capsule to be long and all others short; the reconstruction part asks the capsule "
            "to know enough to draw the image again."
            if material.decoding is not None
            else "The network is shown images and changes its weights so that the loss falls."
        ],
        pictures,
    )


def mistakes(material: Material) -> Section:
    """The confusion matrix, and the commonest confusions."""
    matrix = predictions.confusions(material)
    common = predictions.commonest(material, matrix)
    table = [("true class", "answer", "times"), *common] if common else []
    text = [
        "Which class is taken for which. Mistakes are seldom random: they gather where classes look alike."
    ]
    if material.present > 1:
        text.append("A class that was missed is counted under the one that was found in its place.")
    if not common:
        text.append(f"There is no mistake among the {material.evaluation.n:,} test examples.")
    return Section("Confusions", text, [predictions.confusion_picture(material, matrix)], table)


def examples(material: Material) -> Section:
    """Inputs beside reconstructions."""
    count = predictions.columns(material)
    right, wrong = material.right(count), material.wrong(count)
    text = []
    if material.decoding is not None:
        whose = "the winning capsule" if material.present == 1 else "each of the winning capsules"
        text.append(
            f"Below each input is what the network draws from {whose} alone: "
            f"{material.model.config.class_dim} numbers. Pooling in ordinary networks forgets where things were; "
            "the more of it these numbers keep, the closer the drawing comes to the input."
        )
        if material.present > 1 and not material.test.draws:
            text.append(_overlap(material, material.decoding))
    elif material.traceable is not None:
        text.append(NO_DECODER)
    else:
        text.append("Test images with the model's answers. This architecture has no capsules to look into.")
    if material.present == 1:
        text.append("Numbers in brackets say how strongly the model believes in a class, from 0 to 1.")
    if wrong:
        text.append("The mistakes shown are those that it was surest of.")
    else:
        text.append("It makes no mistakes on this test set, so none are shown.")
    if not right:
        text.append("It gets nothing right on this test set, so no such examples are shown.")
    pictures = [
        predictions.examples(material, chosen, name)
        for chosen, name in ((right, "examples-right"), (wrong, "examples-wrong"))
        if chosen
    ]
    return Section("Right and wrong", text, pictures)


def _overlap(material: Material, model: Decodes) -> str:
    quality = segmentation_quality(model, material.test, PAIRS)
    found = f"{quality.iou_of_found:.2f} for the {quality.found:.1%} of digits that were found; "
    return (
        "In colour: the two digits, and what their two capsules draw, each on its own. The image's pixels, given "
        "to the capsule that draws them brightest, or to both, overlap with the true "
        f"digits (intersection over union, {quality.digits:,} digits) by {quality.iou:.2f} on average, "
        f"{found if quality.found else 'none was found; '}"
        f"taking all the ink for each digit would give {quality.iou_of_everything:.2f}."
    )


def lengths(material: Material) -> Section:
    """Bars."""
    chosen = material.right(3)
    chosen += material.wrong(6 - len(chosen))
    chosen += [index for index in material.right(12) if index not in chosen][: 6 - len(chosen)]
    return Section(
        "Length says whether",
        [
            "Each class has one capsule: a vector. Its length, between 0 and 1, is how sure the network is that "
            "the class is there. Lengths need not add up to 1, so two classes can be there at once, or none."
        ],
        [predictions.lengths_picture(material, chosen)],
    )


def dimensions(material: Material, model: Traceable) -> Section:
    """Sheets."""
    some = len(material.classes_shown) < len(material.names)
    words = (
        "Words at the right are measured, not guessed: what changes most from left to right, in several "
        "examples alike. No word: nothing that was measured follows the number clearly."
        if material.is_light_on_dark
        else "Each row is one number of the capsule."
    )
    return Section(
        "Direction says how",
        [
            "The direction of a capsule describes how its class appears. Here one number at a time is changed by "
            "up to ±0.25 (left to right) while the others stay, and the capsule is drawn. Nobody told the network "
            "what the numbers should mean.",
            words + (" Ten classes are shown." if some else ""),
        ],
        capsules.sheets(material, model),
    )


def routing(material: Material, model: Traceable) -> Section:
    """Couplings."""
    iterations = model.config.routing_iterations
    text = [
        "Every primary capsule sees a small part of the image and votes for the pose of every class. Votes that "
        "agree strengthen each other: in each iteration a capsule's coupling moves towards the class whose "
        "vector its vote fits. Routing is a vote by agreement.",
    ]
    if iterations == 1:
        text.append(
            "This model routes once only, so all couplings stay as they begin: the same for every class."
        )
    else:
        text.append(
            "All couplings begin equal (dashed line; the pale colour). The maps show, for the two longest "
            "capsules, which parts of the image come to send them more or less. Below are the couplings to each class: "
            "thin line 5 to 95 %, thick line the middle half, dot the median."
        )
    chosen = material.right(2)
    chosen += material.wrong(3 - len(chosen))
    table, note = capsules.routing_numbers(material, model)
    return Section(
        "Routing: a vote by agreement",
        text,
        [
            capsules.couplings_picture(material, model, index, f"couplings-{place}")
            for place, index in enumerate(chosen, start=1)
        ],
        table,
        notes=[note],
    )
