"""Register architectures by name, also those of other packages (`capsnet.models`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from capsnet._support.registry import Registry
from capsnet.models.base import Classifier

M = TypeVar("M", bound=type[Classifier])

#: Architectures by the name that config.json and `capsnet train --model` use.
MODELS: Registry[type[Classifier]] = Registry(
    "model",
    "capsnet.models",
    needs=("config_class", "scores", "loss", "predict", "from_saved"),
    builtin={
        "capsnet": "capsnet.models.capsnet",
        "cnn": "capsnet.models.cnn",
        "efficient-capsnet": "capsnet.models.efficient_capsnet",
        "inverted-attention": "capsnet.models.inverted_attention",
        "matrix-capsules": "capsnet.models.matrix_capsules",
        "variational-bayes": "capsnet.models.variational_bayes",
    },
)


def register(name: str) -> Callable[[M], M]:
    """Register a subclass of `Classifier` as an architecture (a decorator).

    Its `config_class` inherits from `ClassifierConfig`, is a `configuration`, and has `build()`.

    Raises:
        CapsnetError: the name is taken or malformed, or the class lacks a required attribute.
    """

    def add(model: M) -> M:
        MODELS.register(name)(model)
        model.architecture = name
        return model

    return add
