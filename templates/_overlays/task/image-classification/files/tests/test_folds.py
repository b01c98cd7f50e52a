"""Folds of the images: every image tests once, and no copy of it trains."""

from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package_name }}.arrays import hash_rows, row_count
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import DataSettings

from . import quick


def test_every_digit_tests_once_in_a_block_of_its_writers() -> None:
    settings = DataSettings()
    loaded = [data.load(fold) for fold in data.folds(settings, 5)]
    whole = np.concatenate([np.asarray(each.test["image"]) for each in loaded])
    everything = data.load(settings)
    rows = sum(map(row_count, (everything.train, everything.validation, everything.test)))
    assert len(whole) == rows
    for each in loaded:
        splits = [set(hash_rows(split)) for split in (each.train, each.validation, each.test)]
        assert not splits[0] & splits[1]
        assert not splits[2] & (splits[0] | splits[1])
    assert np.array_equal(loaded[-1].test["image"], everything.test["image"])


def test_folders_are_cut_into_folds_unless_they_name_their_test_images(tmp_path: Path) -> None:
    quick.own_data(tmp_path / "own")
    settings = DataSettings(source="folder", path=tmp_path / "own", size=16)
    loaded = [data.load(fold) for fold in data.folds(settings, 3)]
    assert sum(row_count(each.test) for each in loaded) == 90
    for split in ("train", "test"):
        quick.own_data(tmp_path / "given" / split)
    given = DataSettings(source="folder", path=tmp_path / "given", size=16)
    with pytest.raises(UserError, match="test images of its own"):
        data.folds(given, 3)
