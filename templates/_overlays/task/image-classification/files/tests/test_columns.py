"""Pixels in columns are scored without an object per row, to the same answers and errors."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from {{ cookiecutter.package_name }}.batch.scorer import Scorer, dense
from {{ cookiecutter.package_name }}.bundle.deployment import champion_path
from {{ cookiecutter.package_name }}.task.contract import Contract


def table_of(pixels: np.ndarray) -> pa.Table:
    return pa.table({"pixels": pa.array(pixels.tolist(), pa.list_(pa.list_(pa.float32())))})


def test_columns_of_pixels_get_the_answers_and_errors_of_items(
    deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).random((9, 8, 8))
    pixels[1, 0, 0], pixels[4, 2, 3], pixels[5, 7, 7] = np.nan, 2, -np.inf
    scorer = Scorer(champion_path(deployment)[0])
    encoded = scorer.bundle.contract.encode_columns({"pixels": pixels})
    assert encoded is not None
    assert np.flatnonzero(~encoded[1]).tolist() == [1, 4, 5]
    fast = scorer(table_of(pixels)).to_pylist(maps_as_pydicts="strict")
    monkeypatch.setattr(Contract, "encode_columns", lambda *_: None)
    slow = scorer(table_of(pixels)).to_pylist(maps_as_pydicts="strict")
    assert [row["error"] for row in fast] == [row["error"] for row in slow]
    assert [row["label"] for row in fast] == [row["label"] for row in slow]
    assert fast[4]["error"].startswith("pixels.2.3: ")
    for one, other in zip(fast, slow, strict=True):
        if not one["error"]:
            assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-4)


def test_what_columns_cannot_express_goes_through_items(deployment: Path) -> None:
    contract = Scorer(champion_path(deployment)[0]).bundle.contract
    pixels = np.zeros((2, 8, 8))
    assert contract.encode_columns({"pixels": pixels, "top_k": np.ones(2)}) is None
    assert contract.encode_columns({"pixels": pixels[:, :7]}) is None
    many = contract.model_copy(update={"labels": [str(number) for number in range(101)]})
    assert many.encode_columns({"pixels": pixels}) is None


def test_only_columns_of_equal_rows_are_dense() -> None:
    rows = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    column = dense(pa.array([[], *rows])[1:])
    assert column is not None
    assert column.tolist() == rows
    fixed = dense(pa.array(rows, pa.list_(pa.list_(pa.int8(), 2), 2)))
    assert fixed is not None
    assert fixed.tolist() == rows
    for uneven in ([*rows, [[1, 2]]], [*rows, None], [[[1, None]]], [["text"]], [[[]]], []):
        assert dense(pa.array(uneven)) is None
