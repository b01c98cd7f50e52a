"""Metrics of classifiers, by scikit-learn. Training only: the server never imports this module.

`outputs` hold `logits` (n, class); those of a baseline may hold `label` (n,) alone.
"""

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from ..arrays import Arrays
from ..interfaces import MetricFormat, Metrics, ScoreMetric
from .classes import ClassContract, probabilities

PROPER_SCORE = ScoreMetric("log_loss", higher_is_better=False)

METRICS = {
    "accuracy": MetricFormat(
        "Accuracy, %", 100, 1, "share of examples whose most probable class is the true one"
    ),
    "macro_f1": MetricFormat(
        "Macro F1, %",
        100,
        1,
        "mean over classes of 2TP / (2TP + FP + FN), every class with equal weight; a class that "
        "is neither true nor predicted for any example does not count",
    ),
    "log_loss": MetricFormat(
        "Log loss", 1, 3, "mean of -log(probability of the true class), in nats; lower is better"
    ),
    "ece": MetricFormat(
        "ECE, %",
        100,
        1,
        "expected calibration error: mean distance between the probability of the predicted class "
        "and the share of correct predictions, over 15 ranges of equal width weighted by examples",
    ),
}
BINS = 15  # of Guo et al., https://arxiv.org/abs/1706.04599

ABSENT: Any = 0  # recall of a class that is only predicted, precision of one that never is
MIN_SLICE_EXAMPLES = 20  # the mean of fewer examples is too noisy to compare


def predicted_classes(outputs: Arrays) -> np.ndarray:
    """Return the predicted class (n,) of each example."""
    return outputs["label"] if "label" in outputs else outputs["logits"].argmax(axis=1)


def classes_in(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Return the classes, sorted, that are true or predicted for some example: scikit-learn's
    choice for macro F1, where a class that is neither has no value."""
    return np.union1d(split["label"], predicted_classes(outputs))


def hits(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Return 1.0 (n,) where the prediction is correct, else 0."""
    return (predicted_classes(outputs) == split["label"]).astype(np.float64)


def f1_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Score examples (n,) so that their mean is the macro F1.

    Macro F1 is not a mean over examples. Each score is the macro F1 of all plus its derivative by
    the example's weight; resampling these scores gives the interval of the infinitesimal
    jackknife. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapter 6.
    """
    classes = classes_in(outputs, split)
    predicted = predicted_classes(outputs)[:, None] == classes
    actual = split["label"][:, None] == classes
    size = predicted.mean(axis=0) + actual.mean(axis=0)
    f1 = 2 * (predicted & actual).mean(axis=0) / size
    change = (2 * (predicted & actual) - f1 * (predicted.astype(float) + actual)) / size
    return f1.mean() + change.mean(axis=1)


def metrics(outputs: Arrays, split: Arrays, contract: ClassContract) -> Metrics:
    """Compute accuracy, macro F1 over `classes_in` and, given logits, log loss and ECE.

    Log loss is in nats; scikit-learn's clips probabilities at 2e-16, which hides how wrong a
    confident network is.
    """
    actual, predicted = split["label"], predicted_classes(outputs)
    options: Any = {"average": "macro", "zero_division": ABSENT}
    values = {
        "accuracy": float(sklearn_metrics.accuracy_score(actual, predicted)),
        "macro_f1": float(sklearn_metrics.f1_score(actual, predicted, **options)),
    }
    if "logits" in outputs:
        chances = probabilities(outputs)[np.arange(len(actual)), actual]
        values["log_loss"] = float(-np.log(np.maximum(chances, np.finfo(float).tiny)).mean())
        table = reliability(outputs, split)
        gaps = np.abs(table["probability"] - table["correct"])
        values["ece"] = float((gaps * table["examples"]).sum() / len(actual))
    return values


def reliability(outputs: Arrays, split: Arrays) -> Arrays:
    """Return the mean `probability` of the predicted class, the share `correct` and the number of
    `examples` for each of BINS equal ranges of probability that has some."""
    confidence, correct = probabilities(outputs).max(axis=1), hits(outputs, split)
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    examples = np.bincount(places, minlength=BINS)
    used = examples > 0
    sums = (np.bincount(places, column, BINS)[used] for column in (confidence, correct))
    means = dict(zip(("probability", "correct"), sums, strict=True))
    return {k: v / examples[used] for k, v in means.items()} | {"examples": examples[used]}


def slices(split: Arrays, contract: ClassContract) -> dict[str, np.ndarray]:
    """Select the examples, bool (n,), of each class that has at least MIN_SLICE_EXAMPLES."""
    masks = {name: split["label"] == place for place, name in enumerate(contract.labels)}
    return {name: mask for name, mask in masks.items() if mask.sum() >= MIN_SLICE_EXAMPLES}


def details(outputs: Arrays, split: Arrays, contract: ClassContract) -> dict[str, Any]:
    """Compute a table of `classes_in` and the confusion matrix of all classes, counts (true class,
    predicted class)."""
    actual, predicted = split["label"], predicted_classes(outputs)
    classes, places = classes_in(outputs, split), range(len(contract.labels))
    columns: Any = sklearn_metrics.precision_recall_fscore_support(
        actual, predicted, labels=classes, zero_division=ABSENT
    )
    per_class = {
        contract.labels[place]: {
            "precision": float(p),
            "recall": float(r),
            "f1": float(f1),
            "examples": int(count),
        }
        for place, p, r, f1, count in zip(classes, *columns, strict=True)
    }
    confusion = sklearn_metrics.confusion_matrix(actual, predicted, labels=places)
    return {"per_class": per_class, "confusion": confusion.tolist()}
