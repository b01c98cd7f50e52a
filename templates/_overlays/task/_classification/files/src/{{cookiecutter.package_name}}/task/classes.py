"""What every classifier's contract shares: predictions, ground truth, scores.

The network's output is `logits` (n, class). The server imports this module: NumPy only.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..arrays import Arrays
from ..interfaces import BaseContract, ScoreMetric

OUTPUTS = ("logits",)
SCORE = ScoreMetric("accuracy", True)

MAX_NAMED = 10  # classes that a message lists
MAX_LISTED = 100  # classes that a prediction lists unless the request says `top_k`

TopK = Annotated[
    int | None,
    Field(
        ge=1,
        strict=True,
        description=f"how many classes to list, the most probable first; by default all, of more "
        f"than {MAX_LISTED} the {MAX_LISTED} most probable",
    ),
]


class Classified(BaseModel):
    """The most probable class and the probability of each class, or of `top_k`."""

    label: str
    probability: float
    probabilities: dict[str, float]


class GroundTruth(BaseModel):
    """The true class of one item."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=200, description="the true class")


class ClassContract(BaseContract):
    """A contract with classes, in the order of the network's outputs."""

    labels: list[str]

    def score(self, prediction: Classified, ground_truth: GroundTruth) -> float:
        """Return 1 for a correct prediction, else 0; ValueError for an unknown class."""
        return float(prediction.label == self.labels[class_index(ground_truth, self.labels)])

    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """Return the predicted class and its probability (item,)."""
        shares = probabilities(outputs)
        return {
            "label": np.array(self.labels)[shares.argmax(axis=1)],
            "probability": shares.max(axis=1),
        }

    def decode_columns(self, outputs: Arrays) -> dict[str, Any]:
        shares = probabilities(outputs)
        return {
            "label": np.array(self.labels)[shares.argmax(axis=1)],
            "probability": shares.max(axis=1),
            "probabilities": dict(zip(self.labels, shares.T, strict=True)),
        }

    def decoded(self, outputs: Arrays, top_k: Sequence[int | None]) -> list[dict[str, Any]]:
        """Return the fields of a `Classified` for each row of the logits."""
        shares, predictions = probabilities(outputs), []
        for row, count in zip(shares, top_k, strict=True):
            best, values, listed = int(row.argmax()), row.tolist(), range(len(row))
            if count is not None or len(row) > MAX_LISTED:
                listed = np.argsort(-row, kind="stable")[: count or MAX_LISTED].tolist()
            by_class = {self.labels[place]: values[place] for place in listed}
            fields = {"label": self.labels[best], "probability": values[best]}
            predictions.append({**fields, "probabilities": by_class})
        return predictions


def class_index(ground_truth: GroundTruth, labels: Sequence[str]) -> int:
    """Return the class's place among `labels`; ValueError if it is not one of them."""
    if ground_truth.label not in labels:
        label = _short(ground_truth.label)
        raise ValueError(f"label: {label!r} is not a class of this model ({short_list(labels)})")
    return labels.index(ground_truth.label)


def probabilities(outputs: Arrays) -> np.ndarray:
    """Return the softmax (n, class) of the logits, float64."""
    logits = outputs["logits"].astype(np.float64)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def short_list(names: Sequence[str]) -> str:
    """List names for a message, shortened, and not more than MAX_NAMED."""
    return ", ".join([*map(_short, names[:MAX_NAMED]), *("…" for _ in names[MAX_NAMED:][:1])])


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"
