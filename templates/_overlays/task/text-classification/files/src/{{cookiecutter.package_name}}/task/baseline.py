"""Simple models that the network has to beat, on the same split.

Their settings are tuned on the validation split, as the network's best epoch is chosen there.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import FeatureUnion

from ..arrays import Arrays
from . import splits
from .data import Dataset
from .ngrams import NgramClassifier
from .settings import Settings

MAJORITY = "Majority class"
WORD_TFIDF = "Logistic regression on TF-IDF of words"
CHARACTER_TFIDF = "Logistic regression on TF-IDF of words and characters"
TOKEN_TFIDF = "Logistic regression on TF-IDF of tokens"  # what model.ngrams=2 blends in  # noqa: S105


def names() -> list[str]:
    """Name the baselines before they are fitted."""
    return [MAJORITY, WORD_TFIDF, CHARACTER_TFIDF, TOKEN_TFIDF]


def advice(settings: Settings) -> dict[str, str]:
    """Return settings that may help the network where a baseline is ahead, with the reason."""
    epochs = {f"train.epochs={2 * settings.train.epochs}": "small data needs more passes"}
    if settings.model.pretrained:
        return epochs | {"model.frozen=0": "all layers learn"}
    return {
        "model.pretrained=FOLDER": "an encoder that knows the language",
        f"pretrain.epochs={2 * settings.pretrain.epochs + 2}": "more learned from the texts alone",
        **epochs,
    }


def fit_and_predict(dataset: Dataset) -> Iterator[tuple[str, Arrays]]:
    """Fit each baseline; yield its name and its outputs (`logits`) on the test split."""
    target = dataset.train["label"]
    majority = DummyClassifier(strategy="prior").fit(np.zeros((len(target), 1)), target)
    yield MAJORITY, {"logits": _logits(majority, np.zeros((len(dataset.test["label"]), 1)))}
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    for name, features in (
        (WORD_TFIDF, words),
        (CHARACTER_TFIDF, FeatureUnion([("words", words), ("characters", chars)])),
    ):
        inputs: Any = features.fit_transform(dataset.texts["train"])
        best = splits.fit_best(
            [LogisticRegression(C=c, max_iter=500) for c in (3, 10, 30, 100)],
            (inputs, target),
            (features.transform(dataset.texts["validation"]), dataset.validation["label"]),
            partial(f1_score, average="macro"),
            rows=20_000,
        )
        yield name, {"logits": _logits(best, features.transform(dataset.texts["test"]))}
    tokens = NgramClassifier(dataset.contract, 2)
    tokens.fit(dataset.train["tokens"], target)
    parts = torch.from_numpy(dataset.test["tokens"]).split(256)
    yield TOKEN_TFIDF, {"logits": torch.cat([tokens(part) for part in parts]).numpy()}


def _logits(model: Any, inputs: Any) -> np.ndarray:
    chances = np.asarray(model.predict_proba(inputs))
    return np.log(np.maximum(chances, np.finfo(float).tiny))
