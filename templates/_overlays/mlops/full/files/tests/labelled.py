"""What the lifecycle's tests share: settings, the original data, and labelled requests."""

from collections.abc import Iterator

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.arrays import Arrays, hash_rows
from {{ cookiecutter.package_name }}.base_settings import RetrainSettings
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.interfaces import LabelledItem
from {{ cookiecutter.package_name }}.store.queries import LabelledExample
from {{ cookiecutter.package_name }}.task import data, objective, simulate
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training.dataset import original_data

from .conftest import CONFIG
from .quick import QUICK

SETTINGS = [*QUICK, "live.set_aside=0.5", "retrain.least_labels=5"]  # half plays the callers
RULES = RetrainSettings(least_labels=5)


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, [*SETTINGS, *overrides], {})


@pytest.fixture(scope="module", autouse=True)
def short_blocks() -> Iterator[None]:
    """The tests have few examples: their blocks must be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "BLOCK_LENGTH", min(objective.BLOCK_LENGTH, 4))
        yield


@pytest.fixture(scope="module")
def original() -> Dataset:
    """The data without what was set aside."""
    return original_data(settings())


@pytest.fixture(scope="module")
def pairs() -> list[LabelledItem]:
    """Items of requests after the world has changed, with their ground truth."""
    own = settings()
    dataset, rest = data.load(own.data).holdout(own.live.set_aside)
    return simulate.shifted_requests(dataset, rest, own)


def logged(pairs: list[LabelledItem], name: str = "r") -> list[LabelledExample]:
    """The same as the log returns them."""
    return [
        LabelledExample(
            f"{name}-{place}",
            0,
            float(place),
            item.model_dump(mode="json"),
            truth.model_dump(mode="json"),
        )
        for place, (item, truth) in enumerate(pairs)
    ]


def content(arrays: Arrays, count: int | None = None) -> set[bytes]:
    """Hashes of the rows, or of the first `count`."""
    return set(list(hash_rows(arrays))[:count])


def widened(first: Arrays, second: Arrays) -> Arrays:
    """The rows of `first`, padded to the width of those of `second`."""
    widths = {name: array.shape[1:] for name, array in second.items()}
    return {
        name: np.pad(
            array,
            [(0, 0), *((0, n - m) for n, m in zip(widths[name], array.shape[1:], strict=True))],
        )
        for name, array in first.items()
    }
