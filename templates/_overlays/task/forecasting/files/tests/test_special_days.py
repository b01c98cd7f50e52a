"""Special days, such as public holidays: what they add is learned apart from the rest."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.release import export
from {{ cookiecutter.package_name }}.task import contract, data, model, smoothing, trees
from {{ cookiecutter.package_name }}.task.contract import Contract, Item
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.ridge import Ridge
from {{ cookiecutter.package_name }}.task.settings import DataSettings, ModelSettings

from .test_task import HOURLY, START, hours, refusal, write

SPECIAL = [START.date() + timedelta(days=day) for day in (3, 17, 26, 33, 46, 57, 60)]


def with_special_days(tmp_path: Path, days: Sequence[date] = SPECIAL) -> Dataset:
    """Load an hourly series that is two lower, and three at noon, on the special days."""
    hour = np.arange(1500)
    noise = 0.05 * np.random.default_rng(0).normal(size=1500)
    values = 10 + np.sin(2 * np.pi * hour / 24) + noise
    is_special = np.isin(hour // 24, [(day - START.date()).days for day in SPECIAL])
    values -= is_special * (2 - np.cos(2 * np.pi * hour / 24))
    path = write(tmp_path / "load.csv", {"time": hours(), "load": values})
    return data.load(DataSettings(path=path, special_days=list(days), **HOURLY))


def test_listed_days_and_those_after_them_are_forecast_like_others(tmp_path: Path) -> None:
    errors = {}
    for days in (SPECIAL, SPECIAL[:-2], []):  # the last two are in the test
        dataset = with_special_days(tmp_path, days)
        ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
        smoothed = smoothing.forecast(dataset, ridge)[1]
        trees_ = trees.forecast(dataset, ridge)[1]
        points = [ridge.predict(dataset.test), smoothed, trees_]
        errors[len(days)] = np.array(
            [np.abs(one - dataset.test["target"]).mean() for one in points]
        )
    assert (errors[7] < 0.3).all()
    assert (errors[0] > 2 * errors[7]).all()
    assert (errors[5] > 2 * errors[7]).all()


def test_network_takes_special_days_off_and_adds_them_again(tmp_path: Path) -> None:
    dataset = with_special_days(tmp_path)
    network = model.Network(dataset.contract, ModelSettings(width=8, patch=4))
    network.prepare(dataset.train, dataset.validation)
    network.eval()
    split = dataset.test
    inputs = [torch.from_numpy(split[name][:]) for name in contract.INPUTS]
    with torch.no_grad():
        before = network(*inputs).numpy()
        np.testing.assert_allclose(before[:, :, 1], network.ridge.predict(split), atol=1e-5)
        network.calibrate({"quantiles": before}, {**split, "target": before[:, :, 1]})
        after = network(*inputs).numpy()
    ordinary, added = network.ridge.split_special_days(split)
    smoothed = smoothing.fit_filter(dataset.contract, ordinary, before[:, :, 1] - added)
    assert float(network.blend) == 0.0, "the target was the network's own forecast"
    np.testing.assert_allclose(after[:, :, 1], before[:, :, 1], atol=1e-5)
    network.blend.fill_(1.0)
    with torch.no_grad():
        np.testing.assert_allclose(
            network(*inputs)[:, :, 1], ordinary @ smoothed + added, atol=1e-4
        )
    export.export_onnx(network, split, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    export.check_parity(network, split, session)


def test_requests_need_no_column_for_them_and_old_contracts_load(tmp_path: Path) -> None:
    dataset = with_special_days(tmp_path)
    item = Item.model_validate(dataset.item(0, int(dataset.test["origin"][40])))
    encoded = dataset.contract.encode([item])
    for name in contract.INPUTS:
        np.testing.assert_allclose(encoded[name][0], dataset.test[name][40], atol=1e-6)
    dataset.contract.save(tmp_path)
    assert Contract.load(tmp_path) == dataset.contract
    fields = with_special_days(tmp_path, []).contract.model_dump(mode="json")
    del fields["special_days"]
    old = Contract.model_validate(fields)
    assert old.channels == old.calendar_channels
    assert "profile" not in Ridge(old).state_dict()  # weights from before have none


def test_runs_with_other_special_days_are_of_the_same_data(tmp_path: Path) -> None:
    prints = {with_special_days(tmp_path, days).fingerprint for days in ([], SPECIAL[:2], SPECIAL)}
    assert len(prints) == 1
    dataset = with_special_days(tmp_path)
    shifted = dataset.keep_rows({"train": np.arange(1, len(dataset.train["origin"]))})
    assert shifted.fingerprint not in prints


def test_days_that_cannot_help_are_refused_or_reported(tmp_path: Path) -> None:
    later = with_special_days(tmp_path, [date(2031, 1, 1)])
    assert any("No special day (data.special_days)" in note for note in later.notes)
    months = [date(1990 + month // 12, month % 12 + 1, 1) for month in range(240)]
    path = write(tmp_path / "months.csv", {"time": months, "load": np.arange(240) ** 1.1})
    settings = DataSettings(
        path=path, target="load", horizon=6, seasons=[12], window=24, special_days=SPECIAL
    )
    message = refusal(settings)
    assert "data.special_days: is for steps of at most a day, these are 1 month" in message
    with pytest.raises(ValidationError, match="special_days"):
        DataSettings.model_validate({"special_days": ["Easter"]})


def test_a_few_hard_days_do_not_choose_the_weight_of_a_blend() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(100, 24))
    good, bad = target + 0.1, target - 0.3  # the best weight is 0.25
    target[:3] += 100  # days on which the other is a little better
    bad[:3] += 1
    assert smoothing.best_blend(good, bad, target) == pytest.approx(0.25)
