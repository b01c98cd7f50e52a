"""Series are read and checked, nothing leaks through time, metrics match their definitions."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.release import export
from {{ cookiecutter.package_name }}.task import (
    baseline,
    clock,
    contract,
    data,
    figures,
    model,
    objective,
    smoothing,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item, Prediction
from {{ cookiecutter.package_name }}.task.frequency import Frequency
from {{ cookiecutter.package_name }}.task.ridge import Ridge
from {{ cookiecutter.package_name }}.task.settings import DataSettings, ModelSettings, Settings

from .quick import GOOD

HOURLY = {"target": "load", "horizon": 6, "seasons": [24], "window": 30}
START = datetime(2021, 3, 1)


def series(count: int = 1500, seed: int = 0) -> np.ndarray:
    """Hourly values with a daily season."""
    rng = np.random.default_rng(seed)
    return 10 + np.sin(2 * np.pi * np.arange(count) / 24) + 0.3 * rng.normal(size=count)


def hours(count: int = 1500, start: datetime = START) -> list[str]:
    return [(start + timedelta(hours=hour)).isoformat() for hour in range(count)]


def write(path: Path, columns: dict[str, Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def hourly(tmp_path: Path, **more: Any) -> DataSettings:
    path = write(tmp_path / "load.csv", {"time": hours(), "load": series()})
    return DataSettings(path=path, **{**HOURLY, **more})


def refusal(settings: DataSettings) -> str:
    with pytest.raises(UserError) as caught:
        data.load(settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_included_file_is_read_like_any_csv_file() -> None:
    included, by_path = data.load(DataSettings()), data.load(DataSettings(path=data.INCLUDED))
    assert included.fingerprint == by_path.fingerprint
    assert included.contract == by_path.contract
    assert len(included.series[0].values) == 8760
    assert "Australian Energy Market Operator (AEMO)" in included.about
    attribution = data.INCLUDED.with_suffix(".md").read_text(encoding="utf-8")
    assert "Data: Australian Energy Market Operator (AEMO)" in attribution


def test_training_windows_touch_no_step_of_validation_or_test() -> None:
    dataset = data.load(DataSettings())
    contract_, blocks = dataset.contract, dataset.blocks
    assert len(blocks.validation) == 4

    def steps(name: str) -> np.ndarray:
        split = getattr(dataset, name)
        return (split["origin"] - dataset.series[0].start) // 3600

    excluded = [*blocks.validation, blocks.test]
    for origin in steps("train"):
        first, end = origin - contract_.window + 1, origin + contract_.horizon + 1
        assert all(end <= start or first >= stop for start, stop in excluded)
    for name, allowed in (("validation", blocks.validation), ("test", [blocks.test])):
        for origin in steps(name):
            assert any(
                start <= origin + 1 and origin + contract_.horizon < stop for start, stop in allowed
            )
    assert max(steps("train").max(), steps("validation").max()) < steps("test").min()


def test_training_data_does_not_depend_on_validation_and_test_values(tmp_path: Path) -> None:
    settings = hourly(tmp_path)
    before = data.load(settings)
    values = series()
    for first, end in [*before.blocks.validation, before.blocks.test]:
        values[first:end] = 1000.0
    write(tmp_path / "load.csv", {"time": hours(), "load": values})
    after = data.load(settings)
    assert after.contract == before.contract
    for name, array in before.train.items():
        np.testing.assert_array_equal(after.train[name], array)
    assert not np.allclose(after.validation["target"], before.validation["target"])
    assert after.fingerprint != before.fingerprint


def test_scaled_values_convert_back_to_the_original_units(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    test, values = dataset.test, series()
    rows = (test["origin"] - dataset.series[0].start) // 3600
    truth = test["target"] * test["unit"][:, None] + test["center"][:, None]
    np.testing.assert_allclose(truth[:, 0], values[rows + 1], rtol=1e-5)
    np.testing.assert_allclose(truth[:, -1], values[rows + 6], rtol=1e-5)


def other(column: str, row: int, entry: Any) -> Callable[[dict[str, list]], None]:
    """Change one cell; an integer entry n means: like the cell n rows before."""

    def change(columns: dict[str, list]) -> None:
        cells = columns[column]
        cells[row] = cells[row - entry] if isinstance(entry, int) else entry

    return change


def keep(rows: slice) -> Callable[[dict[str, list]], None]:
    """Keep only some rows."""

    def change(columns: dict[str, list]) -> None:
        for name, cells in columns.items():
            columns[name] = cells[rows]

    return change


def drop(row: int) -> Callable[[dict[str, list]], None]:
    """Drop one row."""

    def change(columns: dict[str, list]) -> None:
        for cells in columns.values():
            cells.pop(row)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other("load", 41, "nan"), "row 43, column 'load': has no value; data.gaps=interpolate"),
        (other("load", 41, "-inf"), "row 43, column 'load': '-inf' is not a finite number"),
        (other("load", 41, ""), "row 43, column 'load': has no value; data.gaps=interpolate"),
        (other("load", 41, "⚡"), "row 43, column 'load': '⚡' is not a finite number"),
        (other("load", 41, "1,5"), "row 43: has 3 cells, the header has 2"),
        (other("time", 41, "soon"), "row 43, column 'time': 'soon' is not an ISO 8601 time"),
        (
            other("time", 41, "1066-10-14"),
            "row 43, column 'time': 1066-10-14 .* is outside the years 1800",
        ),
        (other("time", 41, "2021-03-02T17+02"), "row 43, column 'time': .* a UTC offset, unlike"),
        (other("time", 41, "2021-03-02T17:20"), "row 43, column 'time': .* 80 min after row 42"),
        (other("time", 41, 1), "row 43, column 'time': .* is a duplicate of row 42"),
        (other("time", 41, 38), "row 43, column 'time': .* is a duplicate of row 5"),
        (drop(41), "row 43, .*: 1 rows of 1 h are missing between row 42 .* and 2021-03-02T18"),
        (drop(41), "data.gaps=interpolate or seasonal fills up to data.max_gap=6 steps$"),
        (keep(slice(1)), "row 2: one row per series is not a time series"),
        (keep(slice(20)), "too short: 20 rows, at least 80 needed; .* .usual for steps of 1 h: "),
    ],
)
def test_bad_series_is_refused_naming_the_row(
    tmp_path: Path, change: Callable[[dict[str, list]], None], expected: str
) -> None:
    columns = {"time": hours(), "load": series().tolist()}
    change(columns)
    path = write(tmp_path / "load.csv", columns)
    message = refusal(DataSettings(path=path, **HOURLY))
    assert message.startswith(f"{path}: ")
    assert re.search(expected, message), message


def test_series_that_only_repeats_itself_is_refused(tmp_path: Path) -> None:
    columns = {"time": hours(), "load": np.arange(1500) % 24}
    path = write(tmp_path / "load.csv", columns)
    assert "'load': the values never change" in refusal(DataSettings(path=path, **HOURLY))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "row 1: is empty"),
        (b"time,load\n", "there are no rows below the header"),
        (b"time,load\n2021-01-01,1\n2021-01-02,\xff\n", "row 3: byte 34 (0xff) is not utf-8"),
        (b"time;load\n2021-01-01;1\n", "row 2: one row per series is not a time series"),
        (b"time,time\n2021-01-01,1\n", "no column 'time' (data.time): there are 2"),
        (b"when,load\n2021-01-01,1\n", r"no column 'time' (data.time): only 'when', 'load'"),
        (b'time,load\n2021-01-01,"1\n', "a quote that opens a cell is never closed"),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "load.csv"
    path.write_bytes(content)
    assert expected in refusal(DataSettings(path=path, **HOURLY))


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.csv: cannot be read" in refusal(DataSettings(path=tmp_path / "none.csv", **HOURLY))


def berlin(count: int = 1500) -> list[datetime]:
    """Hours around the end of daylight saving in 2021 (the night of 31 October)."""
    start = datetime(2021, 10, 1, tzinfo=UTC)
    zone = ZoneInfo("Europe/Berlin")
    return [(start + timedelta(hours=hour)).astimezone(zone) for hour in range(count)]


@pytest.mark.parametrize("start", [datetime(2021, 10, 1), datetime(2021, 3, 1)])
def test_daylight_saving_is_reported_and_handled(tmp_path: Path, start: datetime) -> None:
    zone = ZoneInfo("Europe/Berlin")
    moments = [
        (start.replace(tzinfo=UTC) + timedelta(hours=hour)).astimezone(zone) for hour in range(1500)
    ]
    path, values = tmp_path / "load.csv", series()
    bare = [moment.replace(tzinfo=None).isoformat() for moment in moments]
    write(path, {"time": bare, "load": values})
    assert "daylight saving, set data.timezone" in refusal(DataSettings(path=path, **HOURLY))
    local = data.load(DataSettings(path=path, timezone="Europe/Berlin", **HOURLY))
    write(path, {"time": [moment.isoformat() for moment in moments], "load": values})
    offsets = data.load(DataSettings(path=path, **HOURLY))
    for name in ("history", "target", "origin"):
        np.testing.assert_array_equal(local.test[name], offsets.test[name])
    last = local.train["known"].shape[1] - 7  # the origin's step
    for split in (local.train, local.test):
        angle = np.arctan2(split["known"][:][:, last, 0], split["known"][:][:, last, 1])
        hour = [datetime.fromtimestamp(origin, zone).hour for origin in split["origin"].tolist()]
        np.testing.assert_array_equal(np.round(angle / (2 * np.pi) * 24) % 24, hour)
    for dataset in (local, offsets):
        encoded = dataset.contract.encode([Item.model_validate(dataset.example())])
        np.testing.assert_array_equal(encoded["known"], dataset.test["known"][:1])
    bare_item = {**local.example(), "times": bare[:30]}
    local.contract.encode([Item.model_validate(bare_item)])
    with pytest.raises(InvalidItem, match="has no UTC offset"):
        offsets.contract.encode([Item.model_validate(bare_item)])


def test_nonexistent_local_time_is_refused() -> None:
    zone = ZoneInfo("Europe/Berlin")
    with pytest.raises(clock.BadTime, match="does not exist in Europe/Berlin"):
        clock.to_seconds([datetime(2021, 3, 28, 2, 30)], zone)


def test_calendar_features_have_daily_weekly_and_yearly_periods() -> None:
    monday = np.array(["2021-03-01T00:00", "2021-03-08T23:00", "2021-03-01T06:00"], "datetime64[s]")
    week = clock.calendar_features(monday.astype(np.int64), ["week"])
    np.testing.assert_allclose(week[0], week[1], atol=1e-6)
    day = clock.calendar_features(monday.astype(np.int64), ["day"])
    np.testing.assert_allclose(day[2, :2], [1, 0], atol=1e-6)
    year = clock.calendar_features(np.array([0, 366 * clock.DAY // 4]), ["year"])
    np.testing.assert_allclose(year[:, :2], [[0, 1], [1, 0]], atol=1e-6)


def two_series(tmp_path: Path) -> DataSettings:
    """Two series of very different size, rows of both mixed, with a covariate."""
    count = 1500
    small, large = series(count, 1), 1000 * series(count, 2)
    warm = np.random.default_rng(3).normal(15, 5, 2 * count)
    columns = {
        "time": [time for time in hours(count) for _ in range(2)],
        "load": [value for pair in zip(small, large, strict=True) for value in pair],
        "site": ["north", "süd 🌞"] * count,
        "warm": warm,
    }
    path = write(tmp_path / "sites.csv", columns)
    return DataSettings(path=path, id="site", covariates=["warm"], **HOURLY)


def test_several_series_are_separated_and_scaled_individually(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    contract_ = dataset.contract
    assert list(contract_.series) == ["north", "süd 🌞"]
    assert contract_.series["süd 🌞"].unit > 500 * contract_.series["north"].unit
    for number in (0, 1):
        rows = dataset.test["series"] == number
        assert 0.5 < np.abs(dataset.test["history"][rows]).std() < 5
        row = int(np.flatnonzero(rows)[3])
        item = dataset.item(number, int(dataset.test["origin"][row]))
        assert item["id"] == list(contract_.series)[number]
        encoded = contract_.encode([Item.model_validate(item)])
        for name, array in encoded.items():
            np.testing.assert_allclose(array[0], dataset.test[name][row], atol=1e-5)
    outputs = {"quantiles": np.zeros((len(dataset.test["origin"]), 6, 3))}
    scores = objective.scores(outputs, dataset.test)
    assert len(scores) * 2 == len(dataset.test["origin"])
    expected = np.abs(dataset.test["target"]).mean(axis=1).reshape(-1, 2).mean(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_several_series_without_an_id_column_are_reported(tmp_path: Path) -> None:
    settings = two_series(tmp_path).model_copy(update={"id": None})
    message = refusal(settings)
    assert "row 3, column 'time': 2021-03-01T00:00:00 is a duplicate of row 2" in message
    assert "name their column in data.id" in message


def test_requests_must_match_the_models_series_and_covariates(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    good = dataset.example()

    def reason(**changes: Any) -> tuple[str, str]:
        with pytest.raises(InvalidItem) as caught:
            dataset.contract.encode([Item.model_validate({**good, **changes})])
        return caught.value.field, str(caught.value)

    assert reason(id=None) == ("id", "is required: this model has 2 series")
    assert reason(id="west")[0] == "id"
    assert reason(covariates={})[1].startswith("warm: got 0, expected 36: one for each")
    assert "wind" in reason(covariates={**good["covariates"], "wind": [1.0]})[1]
    far = {"warm": [1e200] * 36}
    assert reason(covariates=far) == ("covariates", "warm: is far outside the training data")
    assert reason(horizon=7)[0] == "horizon"


def test_rows_without_id_and_series_off_the_grid_are_refused(tmp_path: Path) -> None:
    settings = two_series(tmp_path)
    text = (tmp_path / "sites.csv").read_text(encoding="utf-8")
    lines = text.splitlines()
    lines[4] = lines[4].replace("süd 🌞", "")
    (tmp_path / "sites.csv").write_text("\n".join(lines), encoding="utf-8")
    assert "row 5, column 'site': is empty" in refusal(settings)
    late = [
        line.replace(":00:00,", ":30:00,") if "süd" in line else line for line in text.splitlines()
    ]
    (tmp_path / "sites.csv").write_text("\n".join(late), encoding="utf-8")
    assert "'süd 🌞' is not on the same grid of 1 h as the others" in refusal(settings)


def test_csv_file_is_read_as_a_request(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    good = dataset.example()
    count = len(good["times"])
    columns = {
        "when": [*good["times"], *[""] * 6],
        "load": [*good["values"], *[""] * 6],
        "warm": good["covariates"]["warm"],
        "id": [good["id"]] * (count + 6),
    }
    path = write(tmp_path / "request.csv", columns)
    assert contract.item_from_file(path) == good
    assert good["target"] == "load"
    write(path, {**columns, "id": [*columns["id"][1:], "other"]})
    with pytest.raises(UserError, match=r"row 37, column 'id': two series"):
        contract.item_from_file(path)
    write(path, {**columns, "load": ["", *columns["load"][1:]]})
    with pytest.raises(UserError, match=r"row 2, column 'load': an empty cell"):
        contract.item_from_file(path)
    path.write_text("when\n2021-01-01\n")
    with pytest.raises(UserError, match="row 1: needs a column of times and one of values"):
        contract.item_from_file(path)


def test_prediction_continues_the_history_for_the_requested_horizon() -> None:
    contract_ = data.load(DataSettings()).contract
    items = [Item.model_validate({**GOOD, **more}) for more in ({}, {"horizon": 2})]
    outputs = {"quantiles": np.tile(np.array([-1.0, 0.0, 2.0], np.float32), (2, 24, 1))}
    full, short = contract_.decode(outputs, items)
    assert len(full.times) == len(full.p50) == 24
    assert short.times == ["2014-03-10T00:00:00", "2014-03-10T01:00:00"]
    scale = contract_.series[""]
    assert short.p50 == pytest.approx([scale.center] * 2)
    assert short.p90[0] - short.p10[0] == pytest.approx(3 * scale.unit)
    earlier = hours(50, datetime(2014, 2, 26, 22))
    more = {"times": [*earlier, *GOOD["times"]], "values": [*[9.0] * 50, *GOOD["values"]]}
    for name, array in contract_.encode([Item.model_validate(more)]).items():
        np.testing.assert_array_equal(array, contract_.encode(items[:1])[name])


def test_predicted_times_have_the_right_offset_across_daylight_saving() -> None:
    moments = [moment.isoformat() for moment in berlin()[700:730]]
    contract_ = contract_of(timezone="Europe/Berlin")
    item = Item.model_validate({"times": moments, "values": [1.0 + n % 7 for n in range(30)]})
    contract_.encode([item])
    (prediction,) = contract_.decode({"quantiles": np.zeros((1, 6, 3), np.float32)}, [item])
    assert prediction.times == [moment.isoformat() for moment in berlin()[730:736]]


def contract_of(**changes: Any) -> Contract:
    fields: dict[str, Any] = {
        "target": "load",
        "step": 3600,
        "seasons": [24],
        "window": 30,
        "horizon": 6,
        "offsets": False,
        "timezone": None,
        "calendar": ["day"],
        "covariates": [],
        "series": {"": {"center": 0.0, "unit": 1.0}},
    }
    return Contract.model_validate({**fields, **changes})


def test_contract_survives_saving_and_loading(tmp_path: Path) -> None:
    contract_ = data.load(two_series(tmp_path)).contract
    contract_.save(tmp_path)
    assert Contract.load(tmp_path) == contract_


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"seasons": [168, 24]}, "ascending"),
        ({"window": 100}, "window=100 must not be shorter than the season 168"),
        ({"covariates": ["demand_gw"]}, "is used twice"),
        ({"timezone": "Europe/Atlantis"}, "not a known time zone"),
        ({"timezone": "../etc/passwd"}, "not a known time zone"),
        ({"horizon": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictory_settings_are_refused(overrides: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DataSettings(**overrides)


def test_ridge_solves_its_normal_equations(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
    inputs = [torch.from_numpy(dataset.train[name][:]) for name in contract.INPUTS]
    design = ridge.design(*inputs).double().numpy()
    change = dataset.train["target"][:] - ridge.reference(inputs[0]).numpy()
    scaled = (design - design.mean(axis=0)) / np.maximum(design.std(axis=0), 1e-12)
    residual = change - (ridge.predict(dataset.train) - ridge.reference(inputs[0]).numpy())
    coefficients = ridge.coefficients.numpy() * design.std(axis=0)[:, None]
    # the gradient of squared error plus penalty × squared coefficients is nought at the solution
    gradient = scaled.T @ residual
    penalty = float((gradient * coefficients).sum() / (coefficients * coefficients).sum())
    np.testing.assert_allclose(
        gradient, penalty * coefficients, atol=0.02 * np.abs(gradient).max() + 1e-2
    )
    assert penalty > 0


def test_untrained_network_forecasts_like_the_ridge(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
    for kind in ("lstm", "transformer"):
        network = model.Network(dataset.contract, ModelSettings(kind=kind, width=8))
        network.prepare(dataset.train, dataset.validation)
        network.eval()
        inputs = [torch.from_numpy(dataset.test[name][:]) for name in contract.INPUTS]
        with torch.no_grad():
            median = network(*inputs)[:, :, 1].numpy()
        np.testing.assert_allclose(median, ridge.predict(dataset.test), atol=1e-5)
        assert kind.lower() in model.describe(network).lower()


def randomised(contract_: Contract, **shape: Any) -> model.Network:
    torch.manual_seed(0)
    network = model.Network(contract_, ModelSettings(width=8, **shape))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize("patch", [1, 4, 7])
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_quantiles_never_cross_for_any_patch_and_margin(kind: str, patch: int) -> None:
    contract_ = contract_of(
        horizon=26, window=31
    )  # longer than the season, and no multiple of patches
    network = randomised(contract_, kind=kind, patch=patch)
    network.margin -= 0.5
    quantiles = network(torch.randn(5, 31), torch.randn(5, 57, contract_.channels))
    assert quantiles.shape == (5, 26, 3)
    assert (quantiles.diff(dim=2) >= 0).all()
    assert quantiles[:, :, 1].std() > 0


def test_calibrated_intervals_have_their_nominal_coverage() -> None:
    contract_ = contract_of()
    rng = np.random.default_rng(0)
    target = rng.normal(size=(2000, 6)) * np.arange(1, 7)
    narrow = np.tile(np.array([-0.5, 0.0, 0.5]), (2000, 6, 1))
    network = model.Network(contract_, ModelSettings(width=8, smoothing=False))
    network.calibrate({"quantiles": narrow}, {"target": target})
    margin = network.margin.numpy().copy()
    unseen = rng.normal(size=(2000, 6)) * np.arange(1, 7)
    inside = (np.abs(unseen) <= 0.5 + margin).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=0.04)
    wide = np.tile(np.array([-50.0, 0.0, 50.0]), (2000, 6, 1))
    network.calibrate({"quantiles": wide}, {"target": target})
    assert (network.margin.numpy() < margin).all()


@pytest.mark.parametrize("kind", set(model.KINDS) - {ModelSettings().kind})
def test_the_non_default_network_can_be_exported(tmp_path: Path, kind: str) -> None:
    dataset = data.load(two_series(tmp_path))
    network = randomised(dataset.contract, kind=kind, patch=4)
    network.prepare(dataset.train, dataset.validation)
    export.export_onnx(network, dataset.validation, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    outputs = export.check_parity(network, dataset.validation, session)
    assert outputs["quantiles"].shape == (len(dataset.validation["origin"]), 6, 3)


def test_exponential_smoothing_follows_its_equations_without_look_ahead() -> None:
    values = series(200)
    weights = np.array([[0.1, 0.6, 0.2], [0.0, 0.0, 0.1]])
    forecasts = np.empty((2, 6, 2), np.float32)
    smoothing.smooth(values, [24], weights, 6, {150: [0], 160: [1]}, forecasts)
    level, residual = values[:24].mean(), 0.0
    day = list(values[:24] - level)
    for step in range(24, 151):
        error = values[step] - level - day[step % 24]
        shock = error - 0.6 * residual
        level, residual = level + 0.1 * shock, error
        day[step % 24] += 0.2 * shock
    expected = [level + day[(150 + h) % 24] + 0.6**h * residual for h in range(1, 7)]
    np.testing.assert_allclose(forecasts[0, :, 0], expected, rtol=1e-5)
    again = np.empty((2, 6, 2), np.float32)
    values[151:] += 100
    smoothing.smooth(values, [24], weights, 6, {150: [0], 160: [1]}, again)
    np.testing.assert_array_equal(again[0], forecasts[0])
    assert not np.allclose(again[1], forecasts[1])


@pytest.mark.parametrize("window", [24, 72])  # a season is the shortest window
def test_smoothing_is_a_filter_in_the_network_and_its_ablation_is_without(
    tmp_path: Path, window: int
) -> None:
    dataset = data.load(hourly(tmp_path, window=window))
    split, seasons = dataset.validation, dataset.contract.seasons
    network = model.Network(dataset.contract, ModelSettings(width=8)).eval()
    network.prepare(dataset.train, split)
    inputs = [torch.from_numpy(split[name][:]) for name in contract.INPUTS]
    with torch.no_grad():
        before = network(*inputs)
        weights = smoothing.fit_filter(dataset.contract, split["history"], split["target"])
        smoothed = inputs[0] @ torch.from_numpy(weights).float()
        outcome = 0.4 * before[:, :, 1] + 0.6 * smoothed  # smoothing's weight must be 0.6
        filtered = smoothing.fit_filter(dataset.contract, split["history"], outcome.numpy())
        network.calibrate({"quantiles": before.numpy()}, {**split, "target": outcome.numpy()})
        (alone,) = network.ablations().values()
        torch.testing.assert_close(alone(*inputs), before)
        expected = before[:, :, 1] + network.blend * (
            inputs[0] @ torch.from_numpy(filtered).float() - before[:, :, 1]
        )
        torch.testing.assert_close(network(*inputs)[:, :, 1], expected)
    assert 0.3 < network.blend < 0.9
    assert "blended with exponential smoothing" in model.describe(network)
    # A window is a series of its own, so the filter's forecast is that of the equations.
    gains = smoothing._candidates(dataset.contract)
    past = split["history"][0].astype(float)
    forecasts = np.empty((1, dataset.contract.horizon, len(gains)))
    smoothing.smooth(past, seasons, gains, dataset.contract.horizon, {window - 1: [0]}, forecasts)
    gaps = np.abs(forecasts[0] - (past @ filtered)[:, None]).max(axis=0)
    assert gaps.min() < 1e-6


def test_weights_of_checkpoints_do_not_hold_what_calibration_fits() -> None:
    names = model.Network(contract_of(), ModelSettings(width=8)).state_dict()
    assert not {"filter", "blend"} & set(names)  # those of older versions load


def test_naive_forecasts_repeat_the_last_season() -> None:
    split = {"history": np.arange(20.0)[None], "target": np.zeros((1, 7))}
    assert baseline.naive(split, 3)[0].tolist() == [17, 18, 19, 17, 18, 19, 17]
    assert baseline.naive_name(contract_of(), 24) == "Daily naive"
    assert baseline.naive_name(contract_of(), 168) == "Weekly naive"
    assert baseline.naive_name(contract_of(), 5) == "Naive 5 steps back"
    assert baseline.naive(split, 1)[0].tolist() == [19] * 7
    assert baseline.naive_name(contract_of(), 1) == "Last value"


def test_every_baseline_forecasts_every_test_window(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    by_name = dict(baseline.fit_and_predict(dataset))
    names = ["Last value", "Daily naive", "Exponential smoothing", "Ridge with the same inputs"]
    names += ["Ridge and exponential smoothing", "Gradient-boosted trees on the ridge"]
    assert list(by_name) == names
    metrics = {}
    for name, outputs in by_name.items():
        assert outputs["quantiles"].shape == (len(dataset.test["origin"]), 6, 3)
        assert (np.diff(outputs["quantiles"], axis=2) >= 0).all()
        metrics[name] = objective.metrics(outputs, dataset.test, dataset.contract)
        assert 0.7 < metrics[name]["coverage"] < 0.9
    assert metrics["Ridge with the same inputs"]["mase"] < metrics["Daily naive"]["mase"]


def test_metrics_match_their_definitions(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    test, contract_ = dataset.test, dataset.contract
    rng = np.random.default_rng(0)
    spread = np.sort(rng.normal(size=(len(test["origin"]), 6, 3)), axis=2)
    outputs = {"quantiles": spread}
    metrics = objective.metrics(outputs, test, contract_)
    scale = contract_.series[""]
    actual, median = (scale.center + scale.unit * x for x in (test["target"], spread[:, :, 1]))
    values = dataset.series[0].values
    free = np.ones(len(values), bool)
    for first, end in [*dataset.blocks.validation, dataset.blocks.test]:
        free[first:end] = False
    changes = np.abs(values[24:] - values[:-24])[free[24:] & free[:-24]]
    assert metrics["mase"] == pytest.approx(
        np.abs(actual - median).mean() / changes.mean(), rel=1e-4
    )
    assert metrics["mase"] == pytest.approx(objective.scores(outputs, test).mean())
    relative = 2 * np.abs(actual - median) / (np.abs(actual) + np.abs(median))
    assert metrics["smape"] == pytest.approx(100 * relative.mean(), rel=1e-4)
    low, high = spread[:, :, 0], spread[:, :, 2]
    inside = (low <= test["target"]) & (test["target"] <= high)
    assert metrics["coverage"] == pytest.approx(inside.mean())
    settings = Settings(name="x")
    batch = {name: torch.from_numpy(test[name][:]) for name in ("history", "known", "target")}
    forecast = torch.from_numpy(spread.astype(np.float32))
    loss = objective.loss(settings, lambda history, known: forecast, batch)  # pyright: ignore
    assert metrics["pinball"] == pytest.approx(loss.item(), rel=1e-4)
    rows = objective.details(outputs, test, contract_)["steps_ahead"]
    assert np.mean([row["mase"] for row in rows.values()]) == pytest.approx(metrics["mase"])


def test_drift_features_detect_changed_level_spread_and_season() -> None:
    contract_ = contract_of(seasons=[24], window=48)
    past = np.tile(np.sin(2 * np.pi * np.arange(48) / 24), (1, 1)).astype(np.float32)
    plain = contract_.features({"history": past})
    assert contract_.features({"history": past + 2})["level"] == pytest.approx(plain["level"] + 2)
    assert contract_.features({"history": past * 3})["spread"] == pytest.approx(3 * plain["spread"])
    higher = past + np.repeat([[0, 1]], 24, axis=1).astype(np.float32)
    assert contract_.features({"history": higher})["change"] == pytest.approx([1.0], abs=1e-5)
    assert plain["distance"] == pytest.approx([0.0], abs=1e-5)


def test_autocorrelation_of_an_autoregression_is_right() -> None:
    rng = np.random.default_rng(0)
    values = np.zeros(5000)
    for step in range(1, 5000):
        values[step] = 0.7 * values[step - 1] + rng.normal()
    np.testing.assert_allclose(figures.autocorrelation(values, 3), [1, 0.7, 0.49, 0.343], atol=0.05)


def test_daily_steps_work_like_hourly_ones(tmp_path: Path) -> None:
    start = datetime(2015, 1, 1)
    days = [(start + timedelta(days=day)).date().isoformat() for day in range(1200)]
    path = write(tmp_path / "days.csv", {"time": days, "load": series(1200)})
    settings = DataSettings(path=path, target="load", horizon=7, seasons=[7], window=28)
    dataset = data.load(settings)
    assert dataset.contract.frequency == Frequency(unit="day")
    assert dataset.contract.calendar == ["week", "year"]
    names = [name for name, _ in baseline.fit_and_predict(dataset)]
    assert names[:2] == ["Last value", "Weekly naive"]
    encoded = dataset.contract.encode([Item.model_validate(dataset.example())])
    np.testing.assert_allclose(encoded["history"], dataset.test["history"][:1], atol=1e-5)


def test_labelled_items_can_be_added_to_every_split(tmp_path: Path) -> None:
    whole, held_out = data.load(hourly(tmp_path, test_share=0.4)).holdout(0.6)
    pairs = [
        (
            Item.model_validate(whole.item(0, int(held_out["origin"][row]))),
            GroundTruth(values=(held_out["target"][row].astype(float) * unit + center).tolist()),
        )
        for row, (unit, center) in enumerate(zip(held_out["unit"], held_out["center"], strict=True))
    ][60:120]
    again = pairs[:5]
    new = {"train": pairs[:9], "validation": pairs[5:40], "test": [*pairs[5:], *again, *again]}
    more = whole.with_examples(new)
    for name, added in new.items():
        before, after = getattr(whole, name), getattr(more, name)
        assert set(after) == set(before)
        for key, array in after.items():
            assert len(array) == len(before[key]) + len(added)
            assert array.dtype == before[key].dtype
    first = np.flatnonzero(held_out["origin"] == more.train["origin"][-9])[0]
    for key, array in held_out.items():
        np.testing.assert_allclose(more.train[key][-9], array[first], rtol=1e-4, atol=1e-4)
    assert more.fingerprint != whole.fingerprint
    by_name, origins = dict(baseline.fit_and_predict(more)), np.unique(more.test["origin"])
    assert len(origins) < len(more.test["origin"])
    for outputs in by_name.values():
        scores = objective.scores(outputs, more.test)
        assert len(scores) == len(origins)
        assert np.isfinite(scores).all()
        assert scores.max() < 10
    outputs = by_name["Daily naive"]
    assert objective.metrics(outputs, more.test, more.contract)["mase"] > 0
    details = objective.details(outputs, more.test, more.contract)
    assert len(list(figures.plot_results(more, outputs, details))) == 4
    masks = objective.slices(more.test, more.contract)
    assert all(len(mask) == len(origins) and mask.sum() >= 20 for mask in masks.values())


def test_added_window_is_smoothed_by_its_own_past(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path, window=72))
    test = {key: array[:].copy() for key, array in dataset.test.items()}
    twice = {key: np.concatenate([array, array[-1:]]) for key, array in test.items()}
    weights, ridge = np.array([[0.1, 0.6, 0.2]]), Ridge(dataset.contract)
    forecasts = smoothing.candidate_forecasts(dataset, twice, weights, ridge)
    np.testing.assert_array_equal(forecasts[-1], forecasts[-2])
    twice["history"][-1] += 5
    moved = smoothing.candidate_forecasts(dataset, twice, weights, ridge)
    np.testing.assert_array_equal(moved[:-1], forecasts[:-1])
    assert np.abs(moved[-1] - forecasts[-1] - 5).max() < 1.5
    twice["origin"][-1] -= 10**9  # long before the series began
    again = smoothing.candidate_forecasts(dataset, twice, weights, ridge)
    np.testing.assert_array_equal(again, moved)


def test_only_complete_ground_truths_can_be_added_and_series_keep_their_scale(
    tmp_path: Path,
) -> None:
    dataset = data.load(two_series(tmp_path))
    contract_, horizon = dataset.contract, dataset.contract.horizon
    rows = [np.flatnonzero(dataset.test["series"] == number)[0] for number in (1, 0)]
    pairs = []
    for row in rows:
        number, origin = int(dataset.test["series"][row]), int(dataset.test["origin"][row])
        values = dataset.test["target"][row] * dataset.test["unit"][row]
        truth = GroundTruth(values=(values + dataset.test["center"][row]).tolist())
        pairs.append((Item.model_validate(dataset.item(number, origin)), truth))
    encoded = dataset.encode_labelled(pairs)
    for key, array in encoded.items():
        np.testing.assert_allclose(array, dataset.test[key][rows], rtol=1e-4, atol=1e-4)
    item, truth = pairs[0]
    with pytest.raises(ValueError, match=f"example 1: values: got 1 of {horizon} steps"):
        dataset.encode_labelled([pairs[0], (item, GroundTruth(values=truth.values[:1]))])
    with pytest.raises(ValueError, match="far outside"):
        dataset.encode_labelled([(item, GroundTruth(values=[1e30] * horizon))])
    outputs = {"quantiles": np.repeat(encoded["target"][:, :, None] + 0.5, 3, axis=2)}
    predictions = contract_.decode(outputs, [item for item, _ in pairs])
    assert [prediction.id for prediction in predictions] == [item.id for item, _ in pairs]
    for prediction, (_, truth) in zip(predictions, pairs, strict=True):
        assert contract_.score(prediction, truth) == pytest.approx(0.5, abs=1e-3)
    for other, reason in (
        (None, "does not name its series"),
        ("Tasmania", "not a series of this model"),
    ):
        with pytest.raises(ValueError, match=reason):
            contract_.score(predictions[0].model_copy(update={"id": other}), truth)


def test_contract_scores_average_to_the_mase(tmp_path: Path) -> None:
    settings = Settings(name="x", data=hourly(tmp_path))
    dataset = data.load(settings.data)
    contract_, test = dataset.contract, dataset.test
    pairs = [
        (
            Item.model_validate(dataset.item(0, int(origin))),
            GroundTruth(
                values=(target * contract_.series[""].unit + contract_.series[""].center).tolist()
            ),
        )
        for origin, target in zip(test["origin"], test["target"].astype(float), strict=True)
    ]
    outputs = dict(baseline.fit_and_predict(dataset))["Daily naive"]
    predictions = contract_.decode(outputs, [item for item, _ in pairs])
    scores = [
        contract_.score(prediction, truth)
        for prediction, (_, truth) in zip(predictions, pairs, strict=True)
    ]
    assert np.mean(scores) == pytest.approx(
        objective.metrics(outputs, test, contract_)["mase"], rel=1e-4
    )
    assert contract.SCORE.name in objective.metrics(outputs, test, contract_)


def test_ground_truth_may_be_shorter_but_not_longer_than_the_forecast() -> None:
    contract_ = contract_of(series={"": {"center": 5.0, "unit": 2.0}})
    prediction = Prediction(times=["a", "b"], p10=[0, 0], p50=[5.0, 7.0], p90=[9, 9])
    assert contract_.score(prediction, GroundTruth(values=[7.0])) == 1
    assert contract_.score(prediction, GroundTruth(values=[7.0, 7.0])) == 0.5
    with pytest.raises(ValueError, match="values: got 3, but only 2 steps were forecast"):
        contract_.score(prediction, GroundTruth(values=[7.0] * 3))
    with pytest.raises(ValueError, match="far outside"):
        contract_.score(prediction, GroundTruth(values=[1e300]))


def test_slices_follow_weekday_and_hour() -> None:
    dataset = data.load(DataSettings())
    masks = objective.slices(dataset.test, dataset.contract)
    assert list(masks) == [
        "from a weekday",
        "from a weekend",
        "from 0 to 6 h",
        "from 6 to 12 h",
        "from 12 to 18 h",
        "from 18 to 24 h",
    ]
    moments = [datetime.fromtimestamp(stamp, UTC) for stamp in dataset.test["origin"].tolist()]
    weekend = [moment.weekday() >= 5 for moment in moments]
    np.testing.assert_array_equal(masks["from a weekend"], weekend)
    night = [moment.hour < 6 for moment in moments]
    np.testing.assert_array_equal(masks["from 0 to 6 h"], night)
