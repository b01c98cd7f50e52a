"""The metrics of a classifier are those that everybody else computes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from {{ cookiecutter.package_name }}.task import classes, confusion, splits
from {{ cookiecutter.package_name }}.task.classes import Classified, GroundTruth


def test_metrics_agree_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(200, 4)), draw.integers(0, 4, 200)
    names, split, outputs = list("abcd"), {"label": labels}, {"logits": logits}
    chosen = logits.argmax(axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = classes.metrics(outputs, split, names)
    assert found["accuracy"] == pytest.approx((chosen == labels).mean())
    assert found["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    assert found["log_loss"] == pytest.approx(log_loss(labels, shares))
    details = classes.details(outputs, split, names)
    np.testing.assert_array_equal(details["confusion"], confusion_matrix(labels, chosen))
    expected = np.array(precision_recall_fscore_support(labels, chosen))
    for i, row in enumerate(details["per_class"].values()):
        assert list(row.values()) == pytest.approx(expected[:, i].tolist())


def test_probabilities_are_a_softmax_even_of_huge_logits() -> None:
    outputs = {"logits": np.array([[1000.0, 999.0], [-1000.0, 1000.0]])}
    first, second = classes.decode(outputs, ["a", "b"])
    assert first["label"] == "a"
    assert first["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert second["probabilities"] == {"a": 0.0, "b": 1.0}
    found = classes.metrics(outputs, {"label": np.array([1, 0])}, ["a", "b"])
    assert np.isfinite(found["log_loss"])


def test_a_confusion_matrix_of_many_classes_can_still_be_drawn() -> None:
    for count in (2, 60):
        names = [f"class {number}" for number in range(count)]
        name, caption, figure = confusion.draw(np.eye(count, dtype=int), names)
        assert name.endswith(".png")
        assert caption
        assert len(figure.axes) == 1


def test_scores_average_to_macro_f1_and_spread_like_its_bootstrap() -> None:
    draw = np.random.default_rng(1)
    count = 600
    labels = draw.choice(4, count, p=[0.6, 0.25, 0.1, 0.05])
    logits = draw.normal(size=(count, 5)) + 1.5 * np.eye(5)[labels]  # the fifth is never true
    scores = classes.f1_scores({"logits": logits}, {"label": labels})
    chosen, names = logits.argmax(axis=1), list(range(5))
    expected = f1_score(labels, chosen, labels=names, average="macro")
    assert scores.mean() == pytest.approx(expected)
    rows = [draw.integers(count, size=count) for _ in range(1000)]
    again = [classes.f1_scores({"logits": logits[i]}, {"label": labels[i]}).mean() for i in rows]
    assert np.std([scores[i].mean() for i in rows]) == pytest.approx(np.std(again), rel=0.1)


def test_baselines_are_chosen_on_validation_and_fitted_to_all() -> None:
    draw = np.random.default_rng(2)
    inputs = draw.normal(size=(300, 2))
    labels = (inputs[:, 0] > 0).astype(int)
    models = [LogisticRegression(C=c) for c in (1e-9, 1.0)]
    train, validation = (inputs[:200], labels[:200]), (inputs[200:], labels[200:])
    best = splits.fit_best(models, train, validation, accuracy_score, rows=50)
    assert best is models[1]
    np.testing.assert_allclose(best.coef_, LogisticRegression(C=1.0).fit(*train).coef_)


def test_scores_average_to_the_accuracy_and_unknown_classes_are_named() -> None:
    draw, names = np.random.default_rng(3), list("abcd")
    logits, labels = draw.normal(size=(50, 4)), draw.integers(0, 4, 50)
    found = [Classified(**fields) for fields in classes.decode({"logits": logits}, names)]
    truths = [GroundTruth(label=names[label]) for label in labels]
    scores = [classes.score(*pair, names) for pair in zip(found, truths, strict=True)]
    expected = classes.metrics({"logits": logits}, {"label": labels}, names)
    assert np.mean(scores) == pytest.approx(expected[classes.SCORE.name])
    many = [f"{number:050}" for number in range(99)]
    with pytest.raises(ValueError, match=f"'{'y' * 39}…' is no class of this model") as caught:
        classes.class_index(GroundTruth(label="y" * 200), many)
    assert len(str(caught.value)) < 600
