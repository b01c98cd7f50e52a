"""Columns whose rows are made when they are needed: the same results as in memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from {{ cookiecutter.package_name }} import arrays
from {{ cookiecutter.package_name }}.arrays import Arrays, JoinedRows, LazyArray
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task import contract
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training.dataset import load_data
from {{ cookiecutter.package_name }}.training.fit import fit, training_stage

from .conftest import CONFIG
from .quick import QUICK


class Rows(LazyArray):
    """An array's rows, of which at most `LARGEST` may be made at a time."""

    LARGEST = 10**9

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        made = self.array[rows].copy()
        assert made.nbytes <= self.LARGEST
        return made

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.array[rows])


def lazily(split: Arrays) -> Arrays:
    made: dict[str, Any] = {name: Rows(split[name]) for name in contract.INPUTS}
    return split | made


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(Settings, CONFIG, [*QUICK, "train.epochs=1"])


@pytest.fixture(scope="module")
def in_memory(settings: Settings) -> Dataset:
    return load_data(settings)


@pytest.fixture(scope="module")
def lazy(in_memory: Dataset) -> Dataset:
    splits = in_memory.train, in_memory.validation, in_memory.test
    train, validation, test = map(lazily, splits)
    return replace(in_memory, train=train, validation=validation, test=test)


def test_lazy_rows_train_to_the_same_weights(
    settings: Settings, in_memory: Dataset, lazy: Dataset, tmp_path: Path
) -> None:
    for name, dataset in (("memory", in_memory), ("lazy", lazy)):
        mixed = replace(in_memory, train=dataset.train)  # metrics may need the others in memory
        fit(training_stage(settings, mixed), 0, tmp_path / name)
    first, second = ((tmp_path / n / "best.safetensors").read_bytes() for n in ("memory", "lazy"))
    assert first == second


def test_lazy_rows_have_the_fingerprint_of_the_array(
    in_memory: Dataset, lazy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(Rows, "LARGEST", 20_000)
    assert lazy.fingerprint == in_memory.fingerprint


def test_lazy_rows_are_held_out_and_joined_without_being_made(
    in_memory: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {name: in_memory.test[name] for name in contract.INPUTS}
    last = np.arange(len(next(iter(split.values()))))[-3:]
    some = arrays.select_rows(split, last)
    monkeypatch.setattr(Rows, "LARGEST", 0)
    joined = arrays.join_rows(lazily(split), some, 0)
    chosen = arrays.select_rows(joined, np.array([0, 2, -1]))
    monkeypatch.undo()
    for name, array in split.items():
        expected = np.concatenate([array, array[-3:]])
        column = joined[name]
        assert isinstance(column, JoinedRows)
        assert column.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(column), expected)
        np.testing.assert_array_equal(column[-1], expected[-1])
        np.testing.assert_array_equal(chosen[name][:], expected[[0, 2, -1]])


def test_two_lazy_columns_are_joined(in_memory: Dataset) -> None:
    split = {name: np.asarray(in_memory.test[name]) for name in contract.INPUTS}
    joined = arrays.join_rows(lazily(split), lazily(split), 0)
    for name, array in split.items():
        np.testing.assert_array_equal(joined[name][:], np.concatenate([array, array]))
