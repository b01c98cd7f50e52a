"""The classifiers' metrics agree with scikit-learn's; predictions and errors are as promised."""

from collections.abc import Sequence
from dataclasses import dataclass

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

from {{ cookiecutter.package_name }}.interfaces import Splits
from {{ cookiecutter.package_name }}.task import class_figures, class_metrics, classes, splits
from {{ cookiecutter.package_name }}.task.calibration import TemperatureScaling
from {{ cookiecutter.package_name }}.task.classes import ClassContract, Classified, GroundTruth


class Names(ClassContract):
    """A contract that has classes and encodes nothing; its items are numbers of classes to list."""

    def encode(self, items: list) -> dict:
        return {}

    def decode(self, outputs: dict, items: Sequence) -> list[Classified]:
        top_k = items or [None] * len(outputs["logits"])
        return [Classified(**fields) for fields in self.decoded(outputs, top_k)]

    def features(self, inputs: dict) -> dict:
        return {}


def test_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    contract, split, outputs = Names(labels=list("abcd")), {"label": labels}, {"logits": logits}
    predicted = logits.argmax(axis=1)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    metrics = class_metrics.metrics(outputs, split, contract)
    assert metrics["accuracy"] == pytest.approx((predicted == labels).mean())
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert metrics["log_loss"] == pytest.approx(log_loss(labels, shares))
    details = class_metrics.details(outputs, split, contract)
    np.testing.assert_array_equal(details["confusion"], confusion_matrix(labels, predicted))
    expected = np.array(precision_recall_fscore_support(labels, predicted))
    for i, row in enumerate(details["per_class"].values()):
        assert list(row.values()) == pytest.approx(expected[:, i].tolist())


def overconfident(rows: int, factor: float) -> tuple[dict, dict]:
    """Outputs whose probabilities would be right without the factor, and their split."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(rows, 4)) * 2
    shares = classes.probabilities({"logits": logits})
    labels = (shares.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return {"logits": logits * factor}, {"label": labels}


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_calibration_finds_the_factor_by_which_logits_are_too_large(factor: float) -> None:
    network = TemperatureScaling()
    network.calibrate(*overconfident(4000, factor))
    assert network.temperature.item() == pytest.approx(factor, rel=0.05)
    assert not network.state_dict()  # files of weights from before it still load


def test_calibration_error_falls_to_about_zero_when_probabilities_are_right() -> None:
    contract = Names(labels=list("abcd"))
    right, wrong = (class_metrics.metrics(*overconfident(4000, f), contract) for f in (1, 3))
    assert right["ece"] < 0.03 < 0.1 < wrong["ece"]
    assert right["log_loss"] < wrong["log_loss"]
    assert right["accuracy"] == wrong["accuracy"]


def test_calibration_without_an_error_on_validation_keeps_a_doubt() -> None:
    network, labels = TemperatureScaling(), np.arange(4).repeat(10)
    logits = np.eye(4)[labels] * 3
    network.calibrate({"logits": logits}, {"label": labels})
    chances = classes.probabilities({"logits": logits / network.temperature.item()})
    assert 0.9 < chances.max() < 0.999


@pytest.mark.parametrize("form", ["logits", "label"])
def test_class_that_is_neither_true_nor_predicted_does_not_count(form: str) -> None:
    contract, labels = Names(labels=list("abcdef")), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    outputs = {"logits": np.eye(6)[labels] * 10} if form == "logits" else {"label": labels}
    split = {"label": labels}
    assert class_metrics.metrics(outputs, split, contract)["macro_f1"] == 1
    assert class_metrics.f1_scores(outputs, split).tolist() == [1] * 8
    details = class_metrics.details(outputs, split, contract)
    assert list(details["per_class"]) == list("abcd")
    assert np.shape(details["confusion"]) == (6, 6)


def test_class_that_is_only_predicted_or_only_true_counts_zero() -> None:
    contract, split = Names(labels=list("abcd")), {"label": np.array([0, 1, 0, 3])}
    outputs = {"label": np.array([0, 1, 2, 0])}
    metrics = class_metrics.metrics(outputs, split, contract)
    expected = f1_score(split["label"], outputs["label"], average="macro")
    assert metrics["macro_f1"] == pytest.approx(expected) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert class_metrics.f1_scores(outputs, split).mean() == pytest.approx(expected)
    per_class = class_metrics.details(outputs, split, contract)["per_class"]
    assert per_class["c"] == {"precision": 0, "recall": 0, "f1": 0, "examples": 0}
    assert per_class["d"] == {"precision": 0, "recall": 0, "f1": 0, "examples": 1}


def test_huge_logits_give_finite_probabilities_and_log_loss() -> None:
    outputs = {"logits": np.array([[1000.0, 999.0], [-1000.0, 1000.0]])}
    contract = Names(labels=["a", "b"])
    first, second = contract.decode(outputs, [])
    assert first.label == "a"
    assert first.probability == pytest.approx(1 / (1 + np.exp(-1)))
    assert second.probabilities == {"a": 0.0, "b": 1.0}
    metrics = class_metrics.metrics(outputs, {"label": np.array([1, 0])}, contract)
    assert np.isfinite(metrics["log_loss"])


def test_top_k_and_many_classes_shorten_a_prediction_to_the_most_probable() -> None:
    few, many = Names(labels=list("abcd")), Names(labels=[f"c{place}" for place in range(1000)])
    logits = np.random.default_rng(0).normal(size=(1, 1000))
    for contract, top_k, count in (
        *((few, None, 4), (few, 1, 1), (few, 3, 3), (few, 9, 4)),
        *((many, None, 100), (many, 5, 5), (many, 700, 700), (many, 5000, 1000)),
    ):
        outputs = {"logits": logits[:, : len(contract.labels)]}
        (prediction,) = contract.decode(outputs, [top_k])
        shares = dict(zip(contract.labels, classes.probabilities(outputs)[0], strict=True))
        expected = sorted(shares.items(), key=lambda pair: -pair[1])[:count]
        assert sorted(prediction.probabilities.items(), key=lambda pair: -pair[1]) == expected
        assert (prediction.label, prediction.probability) == expected[0]
        if contract is few and top_k is None:
            assert list(prediction.probabilities) == contract.labels
        else:
            assert list(prediction.probabilities.items()) == expected


def test_confusion_matrix_can_be_plotted_for_few_and_many_classes() -> None:
    for count in (2, 60):
        names = [f"class {number}" for number in range(count)]
        name, caption, figure = class_figures.plot_confusion_matrix(np.eye(count, dtype=int), names)
        assert name.endswith(".png")
        assert caption
        assert len(figure.axes) == 1


def test_f1_scores_average_to_macro_f1_and_spread_like_its_bootstrap() -> None:
    rng = np.random.default_rng(1)
    count = 600
    labels = rng.choice(4, count, p=[0.6, 0.25, 0.1, 0.05])
    logits = rng.normal(size=(count, 5)) + 1.5 * np.eye(5)[labels]  # the fifth is never true
    scores = class_metrics.f1_scores({"logits": logits}, {"label": labels})
    expected = f1_score(labels, logits.argmax(axis=1), average="macro")
    assert scores.mean() == pytest.approx(expected)
    rows = [rng.integers(count, size=count) for _ in range(1000)]
    bootstrap = [
        class_metrics.f1_scores({"logits": logits[i]}, {"label": labels[i]}).mean() for i in rows
    ]
    assert np.std([scores[i].mean() for i in rows]) == pytest.approx(np.std(bootstrap), rel=0.1)


def test_baselines_are_chosen_on_validation_and_fitted_to_all_rows() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(300, 2))
    labels = (inputs[:, 0] > 0).astype(int)
    models = [LogisticRegression(C=c) for c in (1e-9, 1.0)]
    train, validation = (inputs[:200], labels[:200]), (inputs[200:], labels[200:])
    best = splits.fit_best(models, train, validation, accuracy_score, rows=50)
    assert best is models[1]
    np.testing.assert_allclose(best.coef_, LogisticRegression(C=1.0).fit(*train).coef_)


def test_contract_scores_average_to_the_accuracy() -> None:
    rng, names = np.random.default_rng(3), list("abcd")
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    contract = Names(labels=names)
    predictions = contract.decode({"logits": logits}, [])
    scores = [
        contract.score(prediction, GroundTruth(label=names[label]))
        for prediction, label in zip(predictions, labels, strict=True)
    ]
    metrics = class_metrics.metrics({"logits": logits}, {"label": labels}, contract)
    assert np.mean(scores) == pytest.approx(metrics[classes.SCORE.name])


def test_unknown_class_is_named_in_a_short_message() -> None:
    many = [f"{number:050}" for number in range(99)]
    with pytest.raises(ValueError, match=f"'{'y' * 39}…' is not a class of this model") as caught:
        classes.class_index(GroundTruth(label="y" * 200), many)
    assert len(str(caught.value)) < 600


@dataclass(frozen=True)
class Points(Splits):
    """Splits of `point` and `label`."""

    def example(self) -> dict:
        return {}

    def encode_labelled(self, pairs: Sequence) -> dict:
        return {}


def points(train: list[int], validation: list[int], test: list[int]) -> Points:
    """Make splits of these labels, in which no point occurs twice."""
    rng = np.random.default_rng(0)
    first, second, third = (
        {"point": rng.normal(size=(len(labels), 2)), "label": np.array(labels)}
        for labels in (train, validation, test)
    )
    return Points(first, second, third, "", Names(labels=list("abc")), notes=("as read",))


def test_classes_that_a_split_lacks_and_small_test_splits_are_told() -> None:
    names = list("abc")
    dataset = splits.check_splits(
        "file", points([0, 1, 2], [0, 1, 2], [0, 1] * 20), names, "text", "data.test_share"
    )
    first, absent, small = dataset.notes
    assert first == "as read"
    assert absent.startswith("The test split has no text of 1 of the 3 classes (c)")
    assert "only 40 texts" in small
    assert "± 9 points (data.test_share can enlarge it)" in small
    full = points([0, 1, 2], [0, 1, 2], [0, 1, 2] * 34)
    assert splits.check_splits("file", full, names, "text", "").notes == ("as read",)
    few = points([0, 1, 2], [0], [0, 1, 2] * 34)
    (_, absent) = splits.check_splits("file", few, names, "text", "").notes
    assert "validation split has no text of 2 of the 3 classes (b, c)" in absent
