"""`CapsNetClassifier` through scikit-learn's own tools."""

import io
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from capsnet import CapsNetClassifier
from capsnet.models import CNN
from capsnet.models.cnn import Stage

#: Checks of scikit-learn that do not hold, and why.
EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a weight says how often an image is drawn. Drawn in another order, it gives other weights of the network, as "
        "in every training by stochastic gradient descent"
    ),
    "check_methods_subset_invariance": (
        "float32 sums are rounded differently in batches of other sizes, by up to 2e-7; the check allows 1e-7"
    ),
}
#: Checks that scikit-learn skips by itself, and why.
SKIPPED_CHECKS = {"check_array_api_input": "needs the environment variable SCIPY_ARRAY_API"}

#: A network that learns the digits well enough in a second.
FAST: dict[str, Any] = {
    "model_options": {"stem_channels": 16, "primary_types": 4, "decoder": None},
    "epochs": 6,
    "batch_size": 32,
    "learning_rate": 0.01,
    "device": "cpu",
    "random_state": 0,
}
Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits() -> Digits:
    X, y = load_digits(return_X_y=True)
    return X[:900], y[:900]


@pytest.fixture(scope="module")
def fitted(digits: Digits) -> CapsNetClassifier:
    X, y = digits
    return CapsNetClassifier(**FAST).fit(X[:600], y[:600])


@pytest.mark.slow
def test_scikit_learn_accepts_it() -> None:
    estimator = CapsNetClassifier(**{**FAST, "epochs": 30, "batch_size": 16, "learning_rate": 0.02})
    results = check_estimator(
        estimator, expected_failed_checks=EXPECTED_FAILED_CHECKS, on_fail=None, on_skip=None
    )
    by_status: dict[str, dict[str, str]] = {}
    for one in results:
        by_status.setdefault(one["status"], {})[one["check_name"]] = repr(one["exception"])[:500]
    assert by_status.get("failed", {}) == {}
    assert by_status.get("skipped", {}).keys() <= SKIPPED_CHECKS.keys()
    assert len(by_status["passed"]) > 50


def test_it_learns_and_its_answers_agree(digits: Digits, fitted: CapsNetClassifier) -> None:
    X, y = digits[0][600:], digits[1][600:]
    assert fitted.score(X, y) > 0.85
    probabilities, lengths = fitted.predict_proba(X), fitted.decision_function(X)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert lengths.min() > 0
    assert lengths.max() < 1
    for values in (probabilities, lengths):
        assert (fitted.classes_[values.argmax(axis=1)] == fitted.predict(X)).all()
    poses = fitted.transform(X)
    assert np.linalg.norm(poses.reshape(len(X), 10, 16), axis=2) == pytest.approx(lengths, abs=1e-5)
    assert fitted.get_feature_names_out()[[0, -1]].tolist() == ["0_pose0", "9_pose15"]


def test_probabilities_are_calibrated(digits: Digits, fitted: CapsNetClassifier) -> None:
    X, y = digits[0][600:], digits[1][600:]
    lengths = fitted.decision_function(X)
    assert fitted.temperature_ != 1
    assert log_loss(y, fitted.predict_proba(X)) < 0.7 * log_loss(
        y, lengths / lengths.sum(axis=1, keepdims=True)
    )


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_one_alone(
    digits: Digits, fitted: CapsNetClassifier
) -> None:
    X, y = digits
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = clone(fitted).fit(X[:600], y[:600])
    assert torch.equal(torch.rand(1), expected)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    other = clone(fitted).set_params(random_state=1, epochs=1).fit(X[:600], y[:600])
    assert (other.predict_proba(X) != fitted.predict_proba(X)).any()


def test_images_data_frames_tensors_and_text_labels_are_the_same_data(
    digits: Digits, fitted: CapsNetClassifier
) -> None:
    X, y = digits
    expected = fitted.predict_proba(X[600:])
    quick = clone(fitted)
    for images in (X.reshape(-1, 8, 8), torch.from_numpy(X.reshape(-1, 8, 8, 1)), X / 16):
        model = quick.fit(images[:600], y[:600])
        assert (model.predict_proba(images[600:]) == expected).all()
    frame = pd.DataFrame(X, columns=[f"pixel{k}" for k in range(64)])
    labels = pd.Series(y).map("digit {}".format)
    model = quick.fit(frame[:600], labels[:600])
    assert model.feature_names_in_[1] == "pixel1"
    assert model.predict(frame[600:]).tolist() == [f"digit {k}" for k in fitted.predict(X[600:])]


def test_colour_and_rows_of_another_shape() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = generator.integers(0, 60, (60, 9, 12, 3), dtype=np.uint8)
    X[y == 1, :, :, 0] += 150
    fast = {**FAST, "shift": 0, "epochs": 5}
    images = CapsNetClassifier(**fast).fit(X, y)
    assert images.model_.config.image_shape == (3, 9, 12)
    assert images.score(X, y) == 1
    rows = CapsNetClassifier(**fast, image_shape=(9, 12, 3)).fit(X.reshape(60, -1), y)
    assert (rows.predict_proba(X.reshape(60, -1)) == images.predict_proba(X)).all()


def test_pickles_answer_the_same(digits: Digits, fitted: CapsNetClassifier) -> None:
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    copy = joblib.load(file)
    assert (copy.predict_proba(digits[0]) == fitted.predict_proba(digits[0])).all()


def test_pipeline_grid_search_and_cross_validation(digits: Digits) -> None:
    X, y = digits[0][:300], digits[1][:300]
    fast = CapsNetClassifier(**{**FAST, "epochs": 2})
    pipeline = make_pipeline(MinMaxScaler(), fast)
    assert len(cross_val_score(pipeline, X, y, cv=2, error_score="raise")) == 2
    grid = {
        "capsnetclassifier__model_options": [FAST["model_options"], {**FAST["model_options"], "class_dim": 4}]
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == y.shape
    poses = make_pipeline(fast, LogisticRegression(max_iter=2000)).fit(X, y)
    assert poses.score(X, y) > 0.8


def test_permutation_importance_finds_the_pixels_that_matter() -> None:
    generator = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = 0.2 * generator.random((80, 64))
    X[:, 27] = y
    model = CapsNetClassifier(**{**FAST, "batch_size": 8, "epochs": 10}).fit(X, y)
    found = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert found.importances_mean.argmax() == 27
    assert found.importances_mean[27] > 0.2


def test_early_stopping_keeps_the_best_weights_on_held_out_images(digits: Digits) -> None:
    X, y = digits
    options = {**FAST, "epochs": 60, "schedule": "constant"}
    model = CapsNetClassifier(**options, early_stopping=True, n_iter_no_change=3, validation_fraction=0.2)
    model.fit(X[:600], y[:600])
    assert model.n_iter_ == len(model.validation_scores_) < 60
    best = max(model.validation_scores_)
    assert best not in model.validation_scores_[-3:] or model.validation_scores_.count(best) > 1
    assert best > 0.9
    numbers = torch.from_numpy(np.unique(y[:600], return_inverse=True)[1])
    held = model._held_out(numbers, model._split_seed).numpy()
    assert model.score(X[:600][held], y[:600][held]) == pytest.approx(best), (
        "of the best weights, not the last"
    )
    assert model.score(X[600:], y[600:]) > 0.85


def test_the_progress_bar_names_the_images_that_are_judged(
    digits: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = digits[0][:200], digits[1][:200]
    for calibrate, shown in ((True, True), (False, False)):
        CapsNetClassifier(**{**FAST, "epochs": 1}, calibrate=calibrate, verbose=1).fit(X, y)
        said = "".join(capsys.readouterr())
        assert "images/s" in said
        assert ("held-out error" in said) == shown
        assert "test error" not in said  # scikit-learn's users test with `score`


def test_weights_decide_how_often_an_image_is_trained_on(digits: Digits) -> None:
    X, y = digits[0][:400], digits[1][:400]
    wrong = y.copy()
    wrong[:200] = (y[:200] + 1) % 10
    weights = np.where(np.arange(400) < 200, 0.02, 1.0)
    model = CapsNetClassifier(**{**FAST, "epochs": 15}, calibrate=False)
    assert clone(model).fit(X, wrong, sample_weight=weights).score(X, y) > 0.85
    one_epoch = clone(model).set_params(epochs=1)
    by_class = clone(one_epoch).set_params(class_weight={**dict.fromkeys(range(10), 1), 3: 20}).fit(X, y)
    by_sample = one_epoch.fit(X, y, sample_weight=np.where(y == 3, 20, 1))
    assert (by_class.predict_proba(X) == by_sample.predict_proba(X)).all()


def test_training_goes_on_with_warm_start_and_partial_fit(digits: Digits) -> None:
    X, y = digits
    warm = CapsNetClassifier(**{**FAST, "epochs": 1}, warm_start=True).fit(X[:600], y[:600])
    first = warm.score(X[600:], y[600:])
    for _ in range(4):
        warm.fit(X[:600], y[:600])
    assert warm.n_iter_ == 5
    assert warm.score(X[600:], y[600:]) > first
    parts = CapsNetClassifier(**FAST)
    for _ in range(8):
        for part in (slice(0, 300), slice(300, 600)):
            parts.partial_fit(X[part], y[part], classes=range(10))
    assert parts.score(X[600:], y[600:]) > 0.8
    with pytest.raises(ValueError, match="is not among the classes"):
        parts.partial_fit(X[:20], y[:20] + 10)


def test_any_model_of_the_registry(digits: Digits) -> None:
    X, y = digits
    stages = (Stage(16, 3, pool="max"),)
    options = {**FAST, "model_options": {"stages": stages, "hidden": (32,), "dropout": 0.0}}
    model = CapsNetClassifier("cnn", **options).fit(X[:600], y[:600])
    assert isinstance(model.model_, CNN)
    assert model.score(X[600:], y[600:]) > 0.8
    assert model.transform(X[:2]).shape == (2, 32) == (2, len(model.get_feature_names_out()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.full((20, 64), np.nan)}, "contains NaN"),
        ({"X": np.full((20, 64), np.inf)}, "contains infinity"),
        ({"X": np.diag([-1e308, 1e308, *[0.0] * 62])[:20]}, "pixels range from .* scale them"),
        ({"y": np.ones(20, int)}, "one class only, 1;"),
        ({"image_shape": (7, 9)}, r"image_shape \(7, 9\) does not fit rows of 64 features"),
        ({"X": np.zeros((20, 2, 2, 2, 2))}, "give \\(n, height, width\\)"),
        ({"sample_weight": np.zeros(20)}, "at least one non-zero|every weight is zero"),
        ({"class_weight": {0: 0, 1: 0}}, "class_weight: every weight is zero"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validation_fraction": 2.0}, "validation_fraction is 2.0"),
        ({"model": "capsnt"}, "did you mean 'capsnet'"),
        ({"model_options": {"stem_chanels": 3}}, "did you mean 'stem_channels'"),
        ({"training_options": {"seeds": 3}}, "did you mean 'seed'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
    ],
)
def test_bad_input_is_a_value_error_with_the_reason(change: dict[str, Any], message: str) -> None:
    data = {"X": np.random.default_rng(0).random((20, 64)), "y": np.arange(20) % 2}
    data |= {name: change.pop(name) for name in ("X", "y", "sample_weight") if name in change}
    with pytest.raises(ValueError, match=message):
        CapsNetClassifier(**{**FAST, **change}).fit(**data)


def test_other_images_than_those_of_the_fit_are_refused(digits: Digits, fitted: CapsNetClassifier) -> None:
    with pytest.raises(ValueError, match="expecting 64 features"):
        fitted.predict(digits[0][:, :63])
    with pytest.raises(ValueError, match=r"fitted to \(64,\)"):
        fitted.predict(np.zeros((2, 64, 3)))


def test_a_warm_start_holds_the_same_images_out(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = digits
    seen = []
    original = CapsNetClassifier._held_out
    monkeypatch.setattr(
        CapsNetClassifier, "_held_out", lambda self, *given: seen.append(original(self, *given)) or seen[-1]
    )
    warm = CapsNetClassifier(**{**FAST, "epochs": 1}, warm_start=True)
    warm.fit(X[:200], y[:200]).fit(X[:200], y[:200])
    assert torch.equal(seen[0], seen[1])


def test_bytes_and_floats_are_the_same_images_in_prediction(digits: Digits) -> None:
    X, y = digits
    bright = np.rint(X[:200] / 16 * 255).astype(np.uint8)
    model = CapsNetClassifier(**{**FAST, "epochs": 1}).fit(bright, y[:200])
    assert np.array_equal(model.predict_proba(bright), model.predict_proba(bright / 255))
