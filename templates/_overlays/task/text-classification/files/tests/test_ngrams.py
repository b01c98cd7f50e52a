"""The logistic regression on n-grams: what it computes, and how it is blended in."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task import data, model
from {{ cookiecutter.package_name }}.task.classes import probabilities
from {{ cookiecutter.package_name }}.task.ngrams import INVERSE_PENALTY, NgramClassifier
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.task.texts import LabelledTexts

from .conftest import CONFIG
from .quick import QUICK


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, [*QUICK, "model.dropout=0", *overrides], {})


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load(settings().data)


@pytest.mark.parametrize("classes", [2, 3])
def test_ngram_classifier_is_scikit_learns_tfidf_and_logistic_regression(
    dataset: data.Dataset, classes: int
) -> None:
    rng = np.random.default_rng(classes)
    pad, names = dataset.contract.pad, [f"class {number}" for number in range(classes)]
    contract = dataset.contract.model_copy(update={"labels": names})
    tokens = rng.choice([number for number in range(12) if number != pad], (80, 9))
    for row, length in zip(tokens, rng.integers(1, 10, 80), strict=True):
        row[length:] = pad
    labels = (tokens[:, 0] + tokens[:, 1]) % classes
    texts = [" ".join(f"t{number}" for number in row if number != pad) for row in tokens]
    # N-grams of new texts alone make their vectors longer, as with any hashing.
    everything = CountVectorizer(ngram_range=(1, 2)).fit(texts).vocabulary_
    reference = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=everything),
        LogisticRegression(C=INVERSE_PENALTY, max_iter=500),
    ).fit(texts[:60], labels[:60])
    network = NgramClassifier(contract, 2)
    assert not network(torch.from_numpy(tokens)).any()
    network.fit(tokens[:60], labels[:60])
    wide = np.pad(tokens[60:], ((0, 0), (0, 4)), constant_values=pad)
    chances = probabilities({"logits": network(torch.from_numpy(wide)).numpy()})
    np.testing.assert_allclose(chances, reference.predict_proba(texts[60:]), atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_validation_decides_how_much_of_the_ngrams_is_blended_in(
    dataset: data.Dataset, share: float
) -> None:
    network: Any = model.build(settings(), dataset.contract)
    network.prepare(dataset.train, dataset.validation)
    rng, split = np.random.default_rng(0), dataset.validation
    linear = network.ngrams(torch.from_numpy(split["tokens"])).numpy()
    own = rng.normal(size=linear.shape) * 3
    chances = probabilities({"logits": share * linear + (1 - share) * own})
    labels = np.array([rng.choice(len(row), p=row) for row in chances])
    network.calibrate({"logits": own}, {"tokens": split["tokens"], "label": labels})
    assert float(network.blend) == pytest.approx(share, abs=0.2)
    assert ("n-grams" in model.describe(network)) == bool(network.blend)


def test_ablation_is_the_encoder_alone_and_no_ngrams_is_the_network_of_before(
    dataset: data.Dataset,
) -> None:
    torch.manual_seed(0)
    network: Any = model.build(settings(), dataset.contract)
    torch.manual_seed(0)
    plain: Any = model.build(settings("model.ngrams=0"), dataset.contract).eval()
    network.prepare(dataset.train, dataset.validation)
    plain.prepare(dataset.train, dataset.validation)
    network.blend.fill_(0.5)
    network.temperature.fill_(2)
    network.eval()
    tokens = torch.from_numpy(dataset.test["tokens"][:40])
    with torch.inference_mode():
        expected = (plain(tokens) + network.ngrams(tokens)) / 4
        torch.testing.assert_close(network(tokens), expected)
        (alone,) = network.ablations().values()
        assert torch.equal(alone(tokens), plain(tokens))
        assert torch.equal(network.train()(tokens) * 2, plain.train()(tokens))
    assert not plain.ablations()
    assert set(plain.state_dict()) < set(network.state_dict())


def test_limit_keeps_every_class_and_their_shares() -> None:
    labels = ["rare" if number == 901 else "ab"[number % 4 == 0] for number in range(1000)]
    part = LabelledTexts([str(number) for number in range(1000)], labels)
    part.limit(20)
    assert part.labels.count("rare") == 1
    assert 4 <= part.labels.count("b") <= 6
    assert part.texts == sorted(part.texts, key=int)
    assert len(part.texts) == 20


@pytest.mark.parametrize("count", [3, 5])
def test_folds_of_few_texts_have_every_class_in_training(count: int) -> None:
    for fold in data.folds(settings().data, count):
        part = data.load(fold)
        assert set(part.train["label"].tolist()) == set(range(len(part.contract.labels)))
