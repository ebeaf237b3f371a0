"""scikit-learn's interface: `CapsNetClassifier().fit(X, y).predict(X)`.

Glue around `capsnet.training.fit.train`: arrays become a `Dataset`, and a trained model answers. The class is imported
when it is first used, since it needs scikit-learn.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import ceil
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from capsnet.data.arrays import held_out, image_tensor, pixel_range, shape_of_rows, to_bytes
from capsnet.data.dataset import Dataset, Examples
from capsnet.inference.confidence import calibrated, fit_temperature
from capsnet.inference.evaluation import BATCH_SIZE, evaluate
from capsnet.models.base import Classifier
from capsnet.models.capsnet import CapsNetConfig
from capsnet.models.protocols import HasFeatures, HasPoses
from capsnet.models.registry import MODELS
from capsnet.training.config import Schedule, usual_epochs
from capsnet.training.early_stopping import EarlyStopping
from capsnet.training.fit import train
from capsnet.training.loop import Interrupted, Silent, StopTraining
from capsnet.training.progress import Bar

#: Images of every class that a held-out part needs, to be worth its images.
LEAST_OF_CLASS = 10


class CapsNetClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A capsule network as a scikit-learn classifier.

    Args:
        model: an architecture of `capsnet.models`, such as "capsnet" or "cnn".
        model_options: fields of the model's configuration. By default a CapsNet is small (64 channels, 8 types of
            primary capsules), and its kernels fit the size of the images.
        image_shape: (height, width) or (height, width, channels) of the rows, if X is flat. None: a square, from 8×8
            on; else each row is an image of height 1.
        epochs: passes over the training images. None: what the architecture proposes; else 10, and at least 500 steps.
        batch_size: images per step.
        learning_rate: peak of the schedule. None: what the architecture proposes; else 0.002.
        schedule: "one-cycle", "paper" or "constant".
        shift: random shifts of up to this many pixels. None: up to 2, fewer for images below 24 pixels.
        class_weight: how often images of each class are trained on: "balanced", a dict, or None.
        validation_fraction: share of the training images that are not trained on. They calibrate `predict_proba` and
            decide early stopping. Nothing is held out if a class has fewer than 10 images.
        calibrate: fit the temperature of `predict_proba` on the held-out images.
        early_stopping: stop when the error on the held-out images has not fallen for `n_iter_no_change` epochs, and
            keep the weights with the lowest error. Suits schedule="constant".
        n_iter_no_change: see `early_stopping`.
        warm_start: `fit` continues from the present weights.
        training_options: other fields of `capsnet.training.config.TrainConfig`.
        device: "auto", "cpu", "cuda" or "mps".
        random_state: an int gives the same bits each time (on a GPU with
            training_options={"deterministic": True}).
        verbose: 1 shows a progress bar.

    Attributes:
        classes_: the labels, sorted.
        model_: the trained network, a `capsnet.models.Classifier`.
        temperature_: temperature of `predict_proba`; 1 without held-out images.
        n_iter_: epochs trained.
        validation_scores_: accuracy on the held-out images after each epoch, if `early_stopping`.
        n_features_in_, feature_names_in_: as in scikit-learn.

    X is (n, height, width), (n, height, width, channels) or flat rows (n, features); arrays, data frames or tensors.
    Bytes are pixels from 0 to 255 and floats within [0, 1] are pixels too; otherwise the range of the training images
    is scaled to [0, 1]. The network gets 256 levels.

    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> CapsNetClassifier(random_state=0).fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])  # doctest: +SKIP
    """

    classes_: NDArray[Any]
    model_: Classifier

    def __init__(
        self,
        model: str = "capsnet",
        *,
        model_options: Mapping[str, Any] | None = None,
        image_shape: Sequence[int] | None = None,
        epochs: int | None = None,
        batch_size: int = 64,
        learning_rate: float | None = None,
        schedule: Schedule = "one-cycle",
        shift: int | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        validation_fraction: float = 0.1,
        calibrate: bool = True,
        early_stopping: bool = False,
        n_iter_no_change: int = 10,
        warm_start: bool = False,
        training_options: Mapping[str, Any] | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.shift = shift
        self.class_weight = class_weight
        self.validation_fraction = validation_fraction
        self.calibrate = calibrate
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.training_options = training_options
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on images and their labels.

        Args:
            X: images, see the class.
            y: a label for each image; numbers or text.
            sample_weight: how often each image is trained on, relative to the others. Weight 0 leaves it out.

        Raises:
            ValueError: NaN or infinity in X, one class only, rows that do not fit `image_shape`, or a wrong option.
        """
        continues = self.warm_start and hasattr(self, "model_")
        images, labels, weights = self._checked(X, y, sample_weight, first=not continues)
        if not continues:
            self._begin(labels)
        elif unknown := set(np.unique(labels)) - set(self.classes_):
            raise ValueError(
                f"warm_start: class {unknown.pop()} was not in the first y; fit a new classifier"
            )
        return self._train(images, labels, weights, self.epochs, hold_out=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on some of the images, to learn from data that do not fit in memory.

        Nothing is held out, so `predict_proba` is not calibrated. The first call decides the range of the pixels.

        Args:
            X, y, sample_weight: as for `fit`.
            classes: all labels that will occur; needed in the first call.
        """
        first = not hasattr(self, "model_")
        if first and classes is None:
            raise ValueError("partial_fit: give all classes in the first call")
        images, labels, weights = self._checked(X, y, sample_weight, first=first)
        if first:
            self._begin(np.asarray(classes))
        if unknown := set(np.unique(labels)) - set(self.classes_):
            raise ValueError(f"partial_fit: class {unknown.pop()} is not among the classes of the first call")
        return self._train(images, labels, weights, epochs=1, hold_out=False)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of each image."""
        chosen = self._scores(X).argmax(axis=1)
        return self.classes_[chosen]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the calibrated probability of each class, (n, classes)."""
        return calibrated(self._scores(X), self.temperature_)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return the length of each class capsule, (n, classes).

        Of two classes: the difference of the lengths, divided by their sum, (n,); positive for the second class.
        """
        scores = self._scores(X)
        if len(self.classes_) > 2:
            return scores
        difference: NDArray[np.float64] = (scores[:, 1] - scores[:, 0]) / scores.sum(axis=1).clip(1e-12)
        return difference

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the poses of all class capsules side by side, (n, classes × dim).

        A network without capsules gives the input of its last layer.
        """
        images = self._images(X)
        parts = []
        with torch.no_grad():
            for part in torch.split(images, BATCH_SIZE):
                pixels = part.to(self._device) / 255
                if isinstance(self.model_, HasPoses):
                    values = self.model_.class_poses(pixels)
                elif isinstance(self.model_, HasFeatures):
                    values = self.model_.features(pixels)
                else:
                    raise ValueError(f"transform: the model {self.model!r} has neither poses nor features")
                parts.append(values.flatten(1).float().cpu())
        return torch.cat(parts).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:  # noqa: ARG002
        """Return names for the columns of `transform`, such as "3_pose0"."""
        check_is_fitted(self)
        if not isinstance(self.model_, HasPoses):
            width = self.transform(np.zeros((1, *self.input_shape_), np.uint8)).shape[1]
            return np.array([f"feature{number}" for number in range(width)], dtype=object)
        dim = self.model_.config.class_dim
        return np.array([f"{label}_pose{k}" for label in self.classes_ for k in range(dim)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> dict[str, Any]:
        # The machine that reads the pickle may have no GPU.
        state: dict[str, Any] = super().__getstate__()
        if "model_" in state and self._device.type != "cpu":
            state = {**state, "model_": copy.deepcopy(self.model_).cpu()}
        return state

    # Arrays → images

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, first: bool
    ) -> tuple[Tensor, NDArray[Any], NDArray[np.float64] | None]:
        """Return the images, labels and weights of a training."""
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        pixels, labels = validate_data(self, _on_cpu(X), _on_cpu(y), allow_nd=True, reset=first)
        check_classification_targets(labels)
        if first:
            self.input_shape_ = pixels.shape[1:]
            self.pixel_range_ = pixel_range(pixels)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, pixels, dtype=np.float64, ensure_non_negative=True)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, labels)
            weights = of_class if weights is None else weights * of_class
        if weights is not None and not weights.any():
            raise ValueError(
                "sample_weight and class_weight: every weight is zero; give at least one image a weight above 0"
            )
        images = self._laid_out(pixels)
        if weights is not None and not weights.all():
            kept = weights > 0
            images, labels, weights = images[torch.from_numpy(kept)], labels[kept], weights[kept]
        return images, labels, weights

    def _images(self, X: Any) -> Tensor:
        """Return the images of a prediction, as bytes (n, channels, height, width)."""
        check_is_fitted(self)
        return self._laid_out(validate_data(self, _on_cpu(X), allow_nd=True, reset=False))

    def _laid_out(self, pixels: NDArray[Any]) -> Tensor:
        if pixels.shape[1:] != tuple(self.input_shape_):
            raise ValueError(
                f"images are {pixels.shape[1:]}; this classifier was fitted to {self.input_shape_}"
            )
        if pixels.ndim > 4:
            raise ValueError(
                f"images have shape {pixels.shape}; give (n, height, width) or (n, height, width, channels)"
            )
        pixels = to_bytes(pixels, *self._range_of(pixels))
        if pixels.ndim == 2:
            pixels = pixels.reshape(len(pixels), *shape_of_rows(pixels.shape[1], self.image_shape))
        return image_tensor(pixels, "X")

    def _range_of(self, pixels: NDArray[Any]) -> tuple[float, float]:
        """Return the range of `fit`; of pixels, bytes and floats may stand for each other."""
        fitted: tuple[float, float] = self.pixel_range_
        if fitted not in ((0.0, 1.0), (0.0, 255.0)) or not pixels.size:
            return fitted
        given = pixel_range(pixels)
        return given if given in ((0.0, 1.0), (0.0, 255.0)) else fitted

    # Training

    def _begin(self, labels: NDArray[Any]) -> None:
        classes = np.unique(labels)
        if len(classes) < 2:
            raise ValueError(f"y has one class only, {classes[0]}; a classifier needs at least 2 classes")
        self.classes_ = classes
        self._seeds = check_random_state(self.random_state)
        self._split_seed: int | None = None
        self.temperature_, self.n_iter_ = 1.0, 0
        if hasattr(self, "model_"):
            del self.model_

    def _train(
        self,
        images: Tensor,
        labels: NDArray[Any],
        weights: NDArray[np.float64] | None,
        epochs: int | None,
        hold_out: bool,
    ) -> Self:
        numbers = torch.from_numpy(np.searchsorted(self.classes_, labels))
        examples = Examples(images, numbers, weights=None if weights is None else torch.from_numpy(weights))
        seed = int(self._seeds.randint(2**31))
        held = None
        if hold_out:  # a warm start with the same images holds the same ones out
            self._split_seed = seed if self._split_seed is None else self._split_seed
            held = self._held_out(numbers, self._split_seed)
        # `train` measures a test set at its end. Without held-out images it gets a few training images.
        learned, judged = examples, examples.subset(torch.arange(min(2, len(examples))))
        if held is not None:
            learned, judged = (examples.subset(chosen.nonzero()[:, 0]) for chosen in (~held, held))
        shape = (images.shape[1], images.shape[2], images.shape[3])
        names = tuple(str(label) for label in self.classes_)
        dataset = Dataset(
            "arrays", learned, replace(judged, weights=None), names, shape, "Images from arrays."
        )
        best: EarlyStopping | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: Classifier = self.model_ if hasattr(self, "model_") else self._new_model(dataset)
            options = self._options(model, dataset, epochs, seed)
            try:
                bar = Bar(None if held is None else "held-out") if self.verbose else nullcontext(Silent())
                with bar as shown:
                    if held is not None and self.early_stopping:
                        options |= {"evaluate_every": 1, "average": 0.0}
                        best = EarlyStopping(model, shown, self.n_iter_no_change)
                    train(model, dataset, device=self.device, progress=best or shown, **options)
            except StopTraining:
                pass
            except Interrupted as interruption:
                raise KeyboardInterrupt from interruption
        self.model_ = model.eval()
        if best is not None:
            model.load_state_dict(best.weights)
            self.validation_scores_ = [1 - error for error in best.errors]
        asked = (
            options["epochs"]
            if options.get("steps") is None
            else options["steps"] * self.batch_size / len(learned)
        )
        self.n_iter_ += len(best.errors) if best is not None else ceil(asked)
        if held is not None and self.calibrate:
            measured = evaluate(model, judged.to(self._device))
            self.temperature_ = fit_temperature(measured.scores, judged.labels)
        return self

    def _held_out(self, numbers: Tensor, seed: int) -> Tensor | None:
        if not (self.calibrate or self.early_stopping):
            return None
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must be between 0 and 1")
        counts = numbers.bincount(minlength=len(self.classes_))
        return held_out(numbers, self.validation_fraction, seed) if counts.min() >= LEAST_OF_CLASS else None

    def _new_model(self, dataset: Dataset) -> Classifier:
        kind = MODELS.get(self.model).config_class
        configured = CapsNetConfig.small_for if kind is CapsNetConfig else kind.for_dataset
        config = configured(dataset, **(self.model_options or {}))
        model: Classifier = config.build()
        return model

    def _options(self, model: Classifier, dataset: Dataset, epochs: int | None, seed: int) -> dict[str, Any]:
        steps = max(1, len(dataset.train) // max(1, self.batch_size))
        proposed = {
            "epochs": usual_epochs(steps),
            "learning_rate": 0.002,
            "shift": min(2, min(dataset.image_shape[1:]) // 12),
            **type(model.config).training_for(dataset),
        }
        given = {"epochs": epochs, "learning_rate": self.learning_rate, "shift": self.shift}
        return {
            **proposed,
            **{name: value for name, value in given.items() if value is not None},
            "batch_size": self.batch_size,
            "schedule": self.schedule,
            "seed": seed,
            **(self.training_options or {}),
        }

    # Prediction

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model_.parameters()).device
        return device

    def _scores(self, X: Any) -> NDArray[np.float64]:
        images = self._images(X).to(self._device)
        labels = torch.zeros(len(images), dtype=torch.int64, device=self._device)
        return evaluate(self.model_, Examples(images, labels)).scores.double().numpy()


def _on_cpu(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values
