"""Extra evaluation of a trained network: out-of-domain data, and which words matter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Arrays
from . import class_metrics
from .classes import probabilities
from .data import Dataset

PredictFunction = Callable[[np.ndarray], Arrays]  # from tokens (text, token) to outputs

MAX_EXPLAINED = 8  # texts
MIN_WORDS, MAX_WORDS = 6, 40  # shorter texts explain little, longer ones fill a page


def diagnose(predict: PredictFunction, dataset: Dataset) -> dict[str, Any]:
    """Return the tables and lists to add to an evaluation's details."""
    details: dict[str, Any] = {"words": word_weights(predict, dataset)}
    if dataset.unseen:
        details["kept_apart"] = unseen_metrics(predict, dataset)
    return details


def unseen_metrics(predict: PredictFunction, dataset: Dataset) -> dict[str, dict[str, float]]:
    """Compute the metrics on each part of the out-of-domain data."""
    rows = {}
    for name, split in dataset.unseen.items():
        metrics = class_metrics.metrics(predict(split["tokens"]), split, dataset.contract)
        rows[name] = {**metrics, "examples": len(split["label"])}
    return rows


def word_weights(predict: PredictFunction, dataset: Dataset) -> list[dict[str, Any]]:
    """Explain correct predictions, of each class the first suitable test text, by their words.

    A word's weight is how much the predicted class's probability falls without the word
    (occlusion: Zeiler and Fergus, https://arxiv.org/abs/1311.2901).
    """
    contract, test, texts = dataset.contract, dataset.test, dataset.texts["test"]
    correct = probabilities(predict(test["tokens"])).argmax(axis=1) == test["label"]
    examples = []
    for label, name in list(enumerate(contract.labels))[:MAX_EXPLAINED]:
        for row in np.flatnonzero(correct & (test["label"] == label)):
            words = texts[row].split()
            without = [" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words))]
            encoded = contract.tokenize([texts[row], *without])
            if not MIN_WORDS <= len(words) <= MAX_WORDS or any(map(contract.is_empty, encoded)):
                continue
            whole, *parts = probabilities(predict(contract.stack(encoded)))[:, label].tolist()
            weights = [round(whole - part, 4) for part in parts]
            examples.append(
                {"label": name, "probability": whole, "words": words, "weights": weights}
            )
            break
    return examples
