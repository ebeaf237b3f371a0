"""Write the report's sections, with sentences that explain each figure."""

from __future__ import annotations

from capsnet.explain.segment import segmentation_quality
from capsnet.models.protocols import Decodes, Routed
from capsnet.report import capsules, curves, predictions
from capsnet.report.certainty import certainty
from capsnet.report.facts import result
from capsnet.report.material import Material
from capsnet.report.page import Section
from capsnet.routing import name_of

#: Test pairs on which the separation of overlapping digits is measured.
PAIRS = 500
NO_DECODER = (
    "This model was trained without a decoder, so its capsules cannot be drawn. "
    "The report therefore has no reconstructions and no sheets of dimensions."
)


def sections(material: Material) -> list[Section]:
    """Return all sections that this run allows, in order."""
    told = [result(material), training(material), mistakes(material), examples(material)]
    if material.present == 1 and bool(material.evaluation.scores.isfinite().all()):
        told.append(certainty(material))
    if (model := material.routed) is not None:
        told.append(lengths(material))
        if material.decoding is not None:
            told.append(dimensions(material, material.decoding))
        told.append(routing(material, model))
    return told


def training(material: Material) -> Section:
    """Write the section on the training curves."""
    pictures = curves.learning_curves(material)
    if not pictures:
        return Section("Training", ["This run has no metrics.jsonl, so there are no curves."])
    return Section(
        "Training",
        [
            "Training changes the network's weights so that the loss falls. The margin loss makes the capsule of "
            "the true class long and all others short. The reconstruction loss makes the capsule keep enough "
            "information to draw the image again."
            if material.decoding is not None
            else "Training changes the network's weights so that the loss falls."
        ],
        pictures,
    )


def mistakes(material: Material) -> Section:
    """Write the section with the confusion matrix and the most frequent confusions."""
    if material.evaluation.is_multi_label:
        return Section(
            "Classes",
            [
                "Each image may show any number of classes. A class counts as found if its score is at least 0.5. "
                "Recall is the share of its images in which it is found, specificity the share of the others in which "
                "it is not. AUC is the chance that an image with the class scores higher than one without."
            ],
            table=predictions.per_class(material),
        )
    matrix = predictions.confusions(material)
    common = predictions.commonest(material, matrix)
    table = [("true class", "predicted class", "count"), *common] if common else []
    text = [
        "The matrix shows which classes the model confuses. Most mistakes are between classes that look similar."
    ]
    if material.present > 1:
        text.append("A missed class is counted in the column of the class that was predicted instead.")
    if material.evaluation.tally.is_imbalanced:
        text.append(
            "The classes have different numbers of test examples. The balanced accuracy, which is the mean recall of "
            f"the classes, is {material.evaluation.balanced_accuracy:.2%}."
        )
    if not common:
        text.append(f"All {material.evaluation.n:,} test examples are classified correctly.")
    return Section("Confusions", text, [predictions.confusion_picture(material, matrix)], table)


def examples(material: Material) -> Section:
    """Write the section with inputs and reconstructions."""
    count = predictions.columns(material)
    right, wrong = material.right(count), material.wrong(count)
    text = []
    if material.decoding is not None:
        whose = "the winning capsule" if material.present == 1 else "each of the winning capsules"
        text.append(
            f"Below each input is the drawing that the network makes from {whose} alone: "
            f"{material.model.config.class_dim} numbers. Pooling in ordinary networks loses the positions of things. "
            "The more of this information the capsule keeps, the more similar are drawing and input."
        )
        if material.present > 1 and not material.test.draws:
            text.append(_overlap(material, material.decoding))
    elif isinstance(material.model, Decodes):
        text.append(NO_DECODER)
    elif material.routed is not None:
        text.append(
            "Test images with the model's predictions. This architecture has no decoder, so it cannot draw."
        )
    else:
        text.append("Test images with the model's predictions. This architecture has no capsules.")
    if material.present == 1:
        text.append("The number in brackets is the score of the class, from 0 to 1.")
    if wrong:
        text.append("The mistakes shown are the most confident ones.")
    else:
        text.append("The model makes no mistakes on this test set.")
    if not right:
        text.append("The model classifies no example of this test set correctly.")
    pictures = [
        predictions.examples(material, chosen, name)
        for chosen, name in ((right, "examples-right"), (wrong, "examples-wrong"))
        if chosen
    ]
    return Section("Examples: right and wrong", text, pictures)


def _overlap(material: Material, model: Decodes) -> str:
    quality = segmentation_quality(model, material.test, PAIRS)
    found = (
        f"For the {quality.found:.1%} of digits that were found it is {quality.iou_of_found:.2f}. "
        if quality.found
        else "No digit was found. "
    )
    return (
        "The coloured rows show the two digits, and the drawings of the two winning capsules, each decoded alone. "
        "Each bright pixel of the image is assigned to the capsule that draws it brightest, or to both. The overlap "
        f"with the true digits (intersection over union, {quality.digits:,} digits) is {quality.iou:.2f} on average. "
        f"{found}For comparison: with the ink of both digits as the mask of each digit it is "
        f"{quality.iou_of_everything:.2f}."
    )


def lengths(material: Material) -> Section:
    """Write the section on the lengths of the class capsules."""
    chosen = material.right(3)
    chosen += material.wrong(6 - len(chosen))
    chosen += [index for index in material.right(12) if index not in chosen][: 6 - len(chosen)]
    text = (
        "Each class has one capsule: a vector. Its length, between 0 and 1, is the network's confidence that "
        "the class is present. Lengths do not have to sum to 1, so two classes can be present at once, or none."
        if material.measure == "length"
        else "Each class has one capsule: a pose, and an activation between 0 and 1. The activation is the network's "
        "confidence that the class is present."
    )
    return Section(
        f"{material.measure.capitalize()}: is the class present?",
        [text],
        [predictions.lengths_picture(material, chosen)],
    )


def dimensions(material: Material, model: Decodes) -> Section:
    """Write the section with the dimension sheets."""
    some = len(material.classes_shown) < len(material.names)
    words = (
        "The words at the right are measured: they name what changes most from left to right, in the same way in "
        "several examples. A row without a word changes no measured property clearly."
        if material.is_light_on_dark
        else "Each row is one dimension of the capsule."
    )
    return Section(
        "Direction: how does it look?",
        [
            "The direction of a capsule describes how its class appears. Each row changes one dimension by up to "
            "±0.25 (left to right), keeps the others, and decodes the capsule. The network learned the meaning of "
            "the dimensions without labels for them.",
            words + (" Ten classes are shown." if some else ""),
        ],
        capsules.sheets(material, model),
    )


#: What each routing does with the votes.
ROUTINGS = {
    "dynamic": "In each iteration its coupling moves towards the classes whose vector agrees with its vote. Votes that "
    "agree therefore gain weight together.",
    "self-attention": "The product of its vote with the sum of all votes for the class, through a softmax over the "
    "classes, is its coupling.",
    "em": "Each class is a Gaussian. An iteration fits the Gaussians to the votes, weighted by the couplings, and then "
    "each child couples more to the classes under which its vote is likely.",
    "variational-bayes": "Each class is a Gaussian with priors. An iteration fits the Gaussians to the votes, weighted "
    "by the couplings, and then each child couples more to the classes under which its vote is likely.",
    "inverted-attention": "The product of its vote with the class's pose of the iteration before, through a softmax "
    "over the classes, is its coupling.",
}


def routing(material: Material, model: Routed) -> Section:
    """Write the section on the couplings."""
    name = name_of(model.class_capsules.routing)
    iterations = len(model.class_routing(material.batch([0]).images).couplings)
    child = (
        "Every primary capsule sees a small part of the image and"
        if material.traceable
        else "Every child capsule"
    )
    text = [
        f"{child} votes for the pose of every class. {ROUTINGS.get(name, f'The routing {name!r} weighs the votes.')}"
    ]
    spread = (
        "the couplings to each class: the thin line spans the 5th to 95th percentile, the thick line the middle half, "
        "the dot is the median."
    )
    even = "All couplings start equal (dashed line, pale colour). "
    if iterations == 1 and name == "dynamic":
        text.append(
            "This model routes once only, so all couplings keep their initial value: equal for every class."
        )
    elif iterations == 1:
        text.append(f"This routing is one pass. Below are {spread} The dashed line is an equal share.")
    elif material.traceable is not None:
        text.append(
            f"{even}The maps show, for the two longest capsules, which parts of the image send them more or less after "
            f"each iteration. Below are {spread}"
        )
    else:
        text.append(f"{even}Below are {spread}")
    chosen = material.right(2)
    chosen += material.wrong(3 - len(chosen))
    table, note = capsules.routing_numbers(material, model)
    return Section(
        "Routing by agreement" if name == "dynamic" else f"Routing: {name}",
        text,
        [
            capsules.couplings_picture(material, model, index, f"couplings-{place}")
            for place, index in enumerate(chosen, start=1)
        ],
        table,
        notes=[note],
    )
