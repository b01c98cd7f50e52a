"""What every problem with one class per example has in common: answers, metrics, confusion.

The network's output is `logits` (n, class); a baseline may give `label` (n,) alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..interfaces import Arrays, MetricFormat, Metrics, ScoreMetric

OUTPUTS = ("logits",)
SCORE = ScoreMetric("accuracy", True)

MAX_NAMED = 10  # of the known classes in a message
MIN_SLICE_EXAMPLES = 20  # examples of a slice: of fewer no mean says much

METRICS = {
    "accuracy": MetricFormat("Accuracy, %", 100, 1),
    "macro_f1": MetricFormat("Macro F1, %", 100, 1),
}


class Classified(BaseModel):
    """The most probable class, and how probable each class is."""

    label: str
    probability: float
    probabilities: dict[str, float]


class GroundTruth(BaseModel):
    """What turned out to be right about one item."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=200, description="the class that it belongs to")


def class_index(truth: GroundTruth, labels: Sequence[str]) -> int:
    """Which of the classes the truth names; ValueError when it is none of them."""
    if truth.label not in labels:
        known = ", ".join(map(_short, labels[:MAX_NAMED])) + (
            ", …" if len(labels) > MAX_NAMED else ""
        )
        raise ValueError(f"label: {_short(truth.label)!r} is no class of this model ({known})")
    return labels.index(truth.label)


def score(prediction: Classified, truth: GroundTruth, labels: Sequence[str]) -> float:
    """1 for a right answer, else 0: the mean is the accuracy. ValueError for an unknown class."""
    return float(prediction.label == labels[class_index(truth, labels)])


def probabilities(outputs: Arrays) -> np.ndarray:
    """The softmax (n, class) of the logits."""
    logits = outputs["logits"].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def predicted_classes(outputs: Arrays) -> np.ndarray:
    """The class (n,) chosen for each example."""
    return outputs["label"] if "label" in outputs else outputs["logits"].argmax(axis=1)


def decode(outputs: Arrays, labels: list[str]) -> list[dict[str, Any]]:
    """The fields of a `Classified` for each example."""
    shares = probabilities(outputs)
    best = shares.argmax(axis=1).tolist()
    return [
        {
            "label": labels[winner],
            "probability": row[winner],
            "probabilities": dict(zip(labels, row, strict=True)),
        }
        for winner, row in zip(best, shares.tolist(), strict=True)
    ]


def prediction_stats(outputs: Arrays, labels: list[str]) -> Arrays:
    """What of the answers drift is watched on."""
    shares = probabilities(outputs)
    return {"label": np.array(labels)[shares.argmax(axis=1)], "probability": shares.max(axis=1)}


def hits(outputs: Arrays, split: Arrays) -> np.ndarray:
    """1 (n,) where the answer is right, else 0."""
    return (predicted_classes(outputs) == split["label"]).astype(np.float64)


def f1_scores(outputs: Arrays, split: Arrays) -> np.ndarray:
    """Numbers (n,), one per example, whose mean is the macro F1.

    Macro F1 is no mean over examples. Each number is the macro F1 of all, plus how much it would
    change with this example's weight; drawing these numbers again gives the interval of the
    infinitesimal jackknife. Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982,
    chapter 6. Needs `logits`, which tell how many classes there are.
    """
    count = outputs["logits"].shape[1]
    chosen = predicted_classes(outputs)[:, None] == np.arange(count)
    there = split["label"][:, None] == np.arange(count)
    size = np.maximum((chosen.sum(axis=0) + there.sum(axis=0)) / len(chosen), 1 / len(chosen))
    f1 = 2 * (chosen & there).mean(axis=0) / size
    change = (2 * (chosen & there) - f1 * (chosen.astype(float) + there)) / size
    return f1.mean() + change.mean(axis=1)


def slices(split: Arrays, labels: list[str]) -> dict[str, np.ndarray]:
    """Which examples (n,) are of a class, by the class's name; those with few are left out."""
    masks = {name: split["label"] == place for place, name in enumerate(labels)}
    return {name: mask for name, mask in masks.items() if mask.sum() >= MIN_SLICE_EXAMPLES}


def metrics(outputs: Arrays, split: Arrays, labels: list[str]) -> Metrics:
    """Accuracy, macro F1 and, for networks, the mean log loss in nats."""
    rows = per_class(confusion(outputs, split, labels), labels).values()
    found = {
        "accuracy": float(hits(outputs, split).mean()),
        "macro_f1": float(np.mean([row["f1"] for row in rows])),
    }
    if "logits" in outputs:
        chosen = probabilities(outputs)[np.arange(len(split["label"])), split["label"]]
        found["log_loss"] = float(-np.log(np.maximum(chosen, np.finfo(float).tiny)).mean())
    return found


def details(outputs: Arrays, split: Arrays, labels: list[str]) -> dict[str, Any]:
    """What lies behind the metrics: a table per class and the confusion matrix."""
    table = confusion(outputs, split, labels)
    return {"per_class": per_class(table, labels), "confusion": table.tolist()}


def confusion(outputs: Arrays, split: Arrays, labels: list[str]) -> np.ndarray:
    """Counts (true class, chosen class)."""
    count = len(labels)
    cells = split["label"] * count + predicted_classes(outputs)
    return np.bincount(cells, minlength=count * count).reshape(count, count)


def per_class(table: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of examples of each class.

    A class that is never chosen or never there counts 0, as in scikit-learn's default.
    """
    right, chosen, there = table.diagonal(), table.sum(axis=0), table.sum(axis=1)
    return {
        name: {
            "precision": float(right[i] / max(chosen[i], 1)),
            "recall": float(right[i] / max(there[i], 1)),
            "f1": float(2 * right[i] / max(chosen[i] + there[i], 1)),
            "examples": int(there[i]),
        }
        for i, name in enumerate(labels)
    }


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
