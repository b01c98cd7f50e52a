"""Folds of the texts: every text tests once; those of a source file stay together."""

from pathlib import Path

import pytest

from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.task import data, docstrings
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings
from {{ cookiecutter.package_name }}.task.texts import split_by_hash

from . import quick
from .conftest import CONFIG


def test_every_source_file_tests_in_one_fold() -> None:
    settings = load_settings(Settings, CONFIG, quick.QUICK, {}).data
    files = [f"numpy/file{number}.py" for number in range(500)]
    folds = data.folds(settings, 5)
    tests = [{file for file in files if split_by_hash(file, fold) == "test"} for fold in folds]
    assert set.union(*tests) == set(files)
    assert sum(map(len, tests)) == len(files)
    shares = [sum(split_by_hash(file, fold) == "validation" for file in files) for fold in folds]
    assert all(0 < share < 150 for share in shares)


def test_no_text_is_in_two_splits_of_a_fold() -> None:
    settings = load_settings(Settings, CONFIG, quick.QUICK, {}).data
    for fold in data.folds(settings, 4)[:2]:
        parts = docstrings.read_docstrings(fold).by_split
        train, validation, test = (set(parts[n].texts) for n in ("train", "validation", "test"))
        assert test
        assert not test & (train | validation)
        assert not train & validation


def test_tables_that_name_their_test_texts_are_refused() -> None:
    settings = DataSettings(source="csv", path=Path("texts.csv"), split="part")
    with pytest.raises(UserError, match=r"data\.split name the test texts"):
        data.folds(settings, 3)
