"""The data is looked at before training: what is wrong is told, what makes it pointless stops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.arrays import LazyArray, select_rows
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task import inspection as special
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import inspection, runs

from .conftest import CONFIG
from .quick import QUICK

SETTINGS = load_settings(Settings, CONFIG, QUICK, {})
needs_examples = pytest.mark.skipif(not special.EXAMPLE, reason="rows of this task may repeat")
needs_answers = pytest.mark.skipif(special.ANSWER is None, reason="copies may differ in answers")


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load(SETTINGS.data)


def texts(dataset: data.Dataset, level: str) -> list[str]:
    found = inspection.inspect_data(dataset, SETTINGS).findings
    return [finding.text for finding in found if finding.level == level]


def with_copies(dataset: data.Dataset, share: float) -> data.Dataset:
    """Replace a share of the test rows by training rows."""
    count = len(dataset.test[special.EXAMPLE[0]])
    copies = round(share * count)
    rows = np.arange(count)
    test = select_rows(dataset.test, rows)
    for name, array in test.items():
        width = tuple(slice(size) for size in array.shape[1:])
        array = np.array(array)
        array[:copies] = np.asarray(dataset.train[name][:copies])[(slice(None), *width)]
        test[name] = array
    return replace(dataset, test=test)


class Lazy(LazyArray):
    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.rows[rows]

    def take(self, rows: np.ndarray) -> "Lazy":
        return Lazy(self.rows[rows])


def test_data_shows_splits_and_draws_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "--config", str(CONFIG), *QUICK]) == 0
    output = capsys.readouterr().out
    for name in ("train", "validation", "test"):
        assert f"| {name} " in output
    picture = imread(tmp_path / "docs" / "experiments" / "data.png")
    assert picture.shape[1] > 600
    assert picture.min() != picture.max()
    assert not (tmp_path / "runs").exists()
    assert cli.main(["data", "--config", str(CONFIG), *QUICK, "--picture", "mine.png"]) == 0
    assert (tmp_path / "mine.png").exists()


def test_tables_count_what_was_loaded(dataset: data.Dataset) -> None:
    head, *rows = inspection.inspect_data(dataset, SETTINGS).tables["Splits"]
    assert head[:3] == ["Split", "Rows", "Share"]
    counts = [int(row[1].replace(",", "")) for row in rows]
    run = [len(next(iter(getattr(dataset, name).values()))) for name in inspection.SPLITS]
    assert counts == run


def test_numbers_that_are_missing_are_an_error(dataset: data.Dataset) -> None:
    column = next((k for k, v in dataset.test.items() if v.dtype.kind == "f"), None)
    if column is None:
        pytest.skip("all columns are integers")
    for wrong in (np.nan, np.inf):
        broken = np.array(dataset.test[column])
        broken.flat[0] = wrong
        (error,) = texts(replace(dataset, test={**dataset.test, column: broken}), "error")
        assert f"1 values of {column!r} in the test split are missing or not finite" in error


def test_an_empty_split_is_an_error(dataset: data.Dataset) -> None:
    empty = select_rows(dataset.test, np.arange(0))
    with pytest.raises(UserError, match="the test split is empty"):
        inspection.inspect_data(replace(dataset, test=empty), SETTINGS)


@needs_examples
@pytest.mark.parametrize(("share", "level"), [(0.1, "warning"), (0.7, "error"), (1.0, "error")])
def test_test_rows_that_are_in_training_are_told(
    dataset: data.Dataset, share: float, level: str
) -> None:
    lines = texts(with_copies(dataset, share), level)
    (line,) = (line for line in lines if "test rows are in the training split too" in line)
    count, of = (int(word.replace(",", "")) for word in line.split() if word[0].isdigit())
    assert count / of == pytest.approx(share, abs=0.03)


@needs_examples
def test_train_stops_before_training_where_the_test_is_the_training_data(
    tmp_path: Path,
    dataset: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded: list[int] = []

    def load(_: Settings) -> data.Dataset:
        loaded.append(1)
        return replace(dataset, test=dataset.train)

    monkeypatch.setattr(runs, "load_data", load)
    assert cli.main(["train", "--config", str(CONFIG), *QUICK]) == 2
    assert "check whether two files are the same" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert len(loaded) == 1, "the data was loaded twice"


@needs_answers
def test_copies_with_another_answer_are_told(dataset: data.Dataset) -> None:
    assert special.ANSWER is not None
    test = {name: np.array(array) for name, array in dataset.test.items()}
    count = len(test[special.ANSWER]) // 2
    for name in special.EXAMPLE:
        test[name][:count] = test[name][count : 2 * count]
    test[special.ANSWER][:count] = 0
    test[special.ANSWER][count : 2 * count] = 1
    lines = texts(replace(dataset, test=test), "warning")
    told = f"the same inputs as another row and another {special.ANSWER}"
    assert any(told in line for line in lines)


@needs_examples
def test_training_rows_that_are_all_alike_are_an_error(dataset: data.Dataset) -> None:
    same = select_rows(dataset.train, np.zeros(len(dataset.train[special.EXAMPLE[0]]), int))
    lines = texts(replace(dataset, train=same), "error")
    assert any("training rows have the same inputs" in line for line in lines)


def test_columns_that_do_not_fit_into_memory_are_read_in_parts(
    dataset: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {name: np.asarray(array) for name, array in dataset.test.items()}
    lazy: Any = {name: Lazy(a) if a.ndim > 1 else a for name, a in plain.items()}
    first, second = map(inspection._read_split, (plain, lazy))
    assert first.columns == second.columns
    np.testing.assert_array_equal(first.keys, second.keys)
    monkeypatch.setattr(inspection, "READ_BYTES", 2**11)
    part = inspection._read_split(lazy)
    assert part.every > 1
    assert len(part.keys) <= len(first.keys)
    assert "read)" in inspection._split_table({"train": part})[1][1]


def test_contradictions_are_counted_by_row() -> None:
    keys = np.array([1, 1, 2, 2, 3, 1], np.uint64)
    assert inspection.contradicted(keys, np.array([0, 0, 5, 5, 1, 0])) == 0
    assert inspection.contradicted(keys, np.array([0, 1, 5, 5, 1, 0])) == 3
