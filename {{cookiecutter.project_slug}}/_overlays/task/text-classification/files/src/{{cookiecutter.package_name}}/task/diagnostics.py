"""What a trained network is asked beside the test split."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..interfaces import Arrays
from . import classes
from .data import Dataset

Ask = Callable[[np.ndarray], Arrays]  # from tokens (text, token) to outputs

EXPLAINED = 8  # texts whose words are weighed
FEW_WORDS, MANY_WORDS = 6, 40  # texts of other lengths show little, or fill a page


def diagnose(ask: Ask, dataset: Dataset) -> dict[str, Any]:
    """The tables and lists to add to an evaluation's details."""
    found: dict[str, Any] = {"words": words(ask, dataset)}
    if dataset.unseen:
        found["kept_apart"] = apart(ask, dataset)
    return found


def apart(ask: Ask, dataset: Dataset) -> dict[str, dict[str, float]]:
    """The metrics on each part of the data that is of another kind."""
    rows = {}
    for name, split in dataset.unseen.items():
        measured = classes.metrics(ask(split["tokens"]), split, dataset.contract.labels)
        rows[name] = {**measured, "examples": len(split["label"])}
    return rows


def words(ask: Ask, dataset: Dataset) -> list[dict[str, Any]]:
    """Which words some right answers rest on: of each class the first suitable text of the test.

    A word's weight is how much the probability of the answer falls when the word is left out
    (occlusion: Zeiler and Fergus, https://arxiv.org/abs/1311.2901).
    """
    contract, test, texts = dataset.contract, dataset.test, dataset.texts["test"]
    shares = classes.probabilities(ask(test["tokens"]))
    right = shares.argmax(axis=1) == test["label"]
    found = []
    for label, name in list(enumerate(contract.labels))[:EXPLAINED]:
        for row in np.flatnonzero(right & (test["label"] == label)):
            parts = texts[row].split()
            without = [" ".join([*parts[:i], *parts[i + 1 :]]) for i in range(len(parts))]
            encoded = contract.tokenize([texts[row], *without])
            if not FEW_WORDS <= len(parts) <= MANY_WORDS or any(map(contract.is_empty, encoded)):
                continue
            whole, *less = classes.probabilities(ask(contract.stack(encoded)))[:, label].tolist()
            weights = [round(whole - chance, 4) for chance in less]
            found.append({"label": name, "probability": whole, "words": parts, "weights": weights})
            break
    return found
