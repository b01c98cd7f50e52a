"""The requests of `make loop`: normal ones and those of the new client."""

from pathlib import Path

import numpy as np

from {{ cookiecutter.package_name }} import simulation
from {{ cookiecutter.package_name }}.interfaces import SimulateModule
from {{ cookiecutter.package_name }}.task import data, simulate

from .test_task import settings, table, write_csv

SIMULATE: SimulateModule = simulate  # the type checker names a member that is missing


def test_new_client_sends_the_unseen_librarys_texts_after_the_boilerplate() -> None:
    dataset, held_out = data.load(settings().data).holdout(0.5)
    pairs = simulate.shifted_requests(dataset, held_out, settings())
    assert len(pairs) == min(simulate.MAX_SHIFTED, len(dataset.texts["numpy"]))
    labels = dict(
        zip(
            map(simulate.generated, dataset.texts["numpy"]),
            dataset.unseen["numpy"]["label"].tolist(),
            strict=True,
        )
    )
    correct = [dataset.contract.labels[labels[item.text]] == truth.label for item, truth in pairs]
    assert np.mean(correct) > 0.98  # a few texts are in the data twice
    assert simulate.generated("axis : The axis.").endswith(" axis : The axis.")


def test_the_rows_that_retraining_learns_from_reach_into_the_shift() -> None:
    dataset, held_out = data.load(settings().data).holdout(0.9)
    count = len(simulate.normal_requests(dataset, held_out, settings()))
    assert count == simulate.MAX_NORMAL
    labels = count + simulation.RETRAIN_SHARE * simulate.MAX_SHIFTED
    rules = settings().retrain
    assert (1 - rules.validation_share - rules.test_share) * labels > 1.5 * count


def test_without_an_unseen_library_the_later_held_out_texts_are_shifted(tmp_path: Path) -> None:
    dataset, held_out = table(write_csv(tmp_path / "a.csv", 200)).holdout(0.5)
    normal = simulate.normal_requests(dataset, held_out, settings())
    shifted = simulate.shifted_requests(dataset, held_out, settings())
    copies = round(simulate.MAX_SHIFTED / (len(held_out["label"]) - len(normal)))
    assert len(normal) + len(shifted) // copies == len(held_out["label"])
    texts = [item.text for item, _ in shifted]
    assert len(set(texts)) > 0.9 * len(texts), "copies of a text differ in their opening"
    words = simulate.typical_words(dataset)
    assert all(set(words) <= set(text.replace(".", " ").split()) for text in texts)


def test_opening_is_made_of_the_words_of_the_largest_class(tmp_path: Path) -> None:
    dataset = table(write_csv(tmp_path / "a.csv", 200))
    labels = dataset.train["label"]
    largest = np.bincount(labels).argmax()
    inside = {
        word
        for text, label in zip(dataset.texts["train"], labels, strict=True)
        if label == largest
        for word in text.split()
    }
    assert set(simulate.typical_words(dataset)) <= inside
