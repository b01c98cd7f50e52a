"""Folds of the users: each tests once as one who is not in training; by time a rolling origin."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from {{ cookiecutter.package_name }}.arrays import row_count
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings

from . import quick
from .conftest import CONFIG


def test_every_user_tests_once_without_being_trained_on() -> None:
    settings = load_settings(Settings, CONFIG, quick.QUICK, {}).data
    newcomers, everyone = list[str](), 0
    for fold in data.folds(settings, 4):
        dataset = data.load(fold)
        unseen = ~dataset.test["seen"]
        newcomers += [u for u, new in zip(dataset.test_users, unseen, strict=True) if new]
        everyone = row_count(dataset.train) + row_count(dataset.validation) + unseen.sum()
    assert len(newcomers) == len(set(newcomers)) == everyone


def test_folds_by_time_test_later_and_later_interactions(tmp_path: Path) -> None:
    generator, lines = np.random.default_rng(0), ["user,item,time"]
    for user in range(60):
        items = generator.permutation(20)[:14]
        times = np.sort(generator.integers(1_500_000_000, 1_600_000_000, len(items)))
        for item, time in zip(items, times, strict=True):
            lines.append(f"u{user},i{item},{datetime.fromtimestamp(int(time), UTC):%Y-%m-%d %H:%M}")
    (tmp_path / "likes.csv").write_text("\n".join(lines), encoding="utf-8")
    settings = DataSettings(
        source="csv", path=tmp_path / "likes.csv", time="time", split="time", core=3
    )
    loaded = [data.load(fold) for fold in data.folds(settings, 4)]
    known = [int((dataset.train["history"] > 0).sum()) for dataset in loaded]
    assert known == sorted(set(known))  # each fold trains on more of the past
    assert loaded[-1].fingerprint == data.load(settings).fingerprint
