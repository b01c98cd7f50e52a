"""The series is read and checked, nothing leaks through time, and the numbers are what they say."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.bundle import load
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
    simulate,
    smoothing,
    table,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item, Prediction
from {{ cookiecutter.package_name }}.task.ridge import Ridge
from {{ cookiecutter.package_name }}.task.settings import DataSettings, ModelSettings, Settings

from .quick import GOOD

HOURLY = {"target": "load", "horizon": 6, "seasons": [24], "window": 30}
START = datetime(2021, 3, 1)


def series(count: int = 1500, seed: int = 0) -> np.ndarray:
    """Hourly values with a day in them."""
    draw = np.random.default_rng(seed)
    return 10 + np.sin(2 * np.pi * np.arange(count) / 24) + 0.3 * draw.normal(size=count)


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


def test_the_shipped_file_is_read_by_the_loader_of_users_files() -> None:
    shipped, own = data.load(DataSettings()), data.load(DataSettings(path=data.SHIPPED))
    assert shipped.fingerprint == own.fingerprint
    assert shipped.contract == own.contract
    assert len(shipped.series[0].values) == 8760
    assert "Australian Energy Market Operator (AEMO)" in shipped.about
    attribution = data.SHIPPED.with_suffix(".md").read_text(encoding="utf-8")
    assert "Data: Australian Energy Market Operator (AEMO)" in attribution


def test_no_training_window_touches_a_step_of_validation_or_test() -> None:
    dataset = data.load(DataSettings())
    own, blocks = dataset.contract, dataset.blocks
    assert len(blocks.validation) == 4

    def steps(name: str) -> np.ndarray:
        split = getattr(dataset, name)
        return (split["origin"] - dataset.series[0].start) // own.step

    kept = [*blocks.validation, blocks.test]
    for origin in steps("train"):
        first, end = origin - own.window + 1, origin + own.horizon + 1
        assert all(end <= start or first >= stop for start, stop in kept)
    for name, allowed in (("validation", blocks.validation), ("test", [blocks.test])):
        for origin in steps(name):
            assert any(
                start <= origin + 1 and origin + own.horizon < stop for start, stop in allowed
            )
    assert max(steps("train").max(), steps("validation").max()) < steps("test").min()


def test_values_of_validation_and_test_change_nothing_that_is_trained_on(tmp_path: Path) -> None:
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


def test_scaled_values_come_back_in_the_target_s_units(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    test, values = dataset.test, series()
    rows = (test["origin"] - dataset.series[0].start) // 3600
    truth = test["target"] * test["unit"][:, None] + test["center"][:, None]
    np.testing.assert_allclose(truth[:, 0], values[rows + 1], rtol=1e-5)
    np.testing.assert_allclose(truth[:, -1], values[rows + 6], rtol=1e-5)


def other(column: str, row: int, entry: Any) -> Callable[[dict[str, list]], None]:
    """A change of one cell; an entry that is a number n means: like the cell n rows before."""

    def change(columns: dict[str, list]) -> None:
        cells = columns[column]
        cells[row] = cells[row - entry] if isinstance(entry, int) else entry

    return change


def keep(rows: slice) -> Callable[[dict[str, list]], None]:
    """A change that leaves only some rows."""

    def change(columns: dict[str, list]) -> None:
        for name, cells in columns.items():
            columns[name] = cells[rows]

    return change


def drop(row: int) -> Callable[[dict[str, list]], None]:
    """A change that leaves out one row."""

    def change(columns: dict[str, list]) -> None:
        for cells in columns.values():
            cells.pop(row)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other("load", 41, "nan"), "row 43, column 'load': 'nan' is not a finite number"),
        (other("load", 41, "-inf"), "row 43, column 'load': '-inf' is not a finite number"),
        (other("load", 41, ""), "row 43, column 'load': an empty cell is not a finite number"),
        (other("load", 41, "⚡"), "row 43, column 'load': '⚡' is not a finite number"),
        (other("load", 41, "1,5"), "row 43 has 3 cells, the header has 2"),
        (other("time", 41, "soon"), "row 43, column 'time': 'soon' is not an ISO 8601 time"),
        (
            other("time", 41, "1066-10-14"),
            "row 43, column 'time': 1066-10-14 .* is outside of the years 1800",
        ),
        (other("time", 41, "2021-03-02T17+02"), "row 43, column 'time': .* a UTC offset, unlike"),
        (other("time", 41, "2021-03-02T17:20"), "row 43, column 'time': .* 80 min after row 42"),
        (other("time", 41, 1), "row 43, column 'time': .* stands twice, first in row 42"),
        (other("time", 41, 38), "row 43, column 'time': .* stands twice, first in row 5"),
        (drop(41), "row 43, .*: 1 rows of 1 h are missing between row 42 .* and 2021-03-02T18"),
        (keep(slice(None, None, -1)), "row 3, .* is earlier than row 2 .*; sort by time"),
        (keep(slice(1)), "row 2: one row per series is no series"),
        (keep(slice(20)), "hold no two training steps that are 24 apart"),
        (keep(slice(400)), "too short: validation gets .* windows"),
    ],
)
def test_a_bad_series_is_refused_with_its_row(
    tmp_path: Path, change: Callable[[dict[str, list]], None], expected: str
) -> None:
    columns = {"time": hours(), "load": series().tolist()}
    change(columns)
    path = write(tmp_path / "load.csv", columns)
    message = refusal(DataSettings(path=path, **HOURLY))
    assert message.startswith(f"{path}: ")
    assert re.search(expected, message), message


def test_a_series_that_only_repeats_itself_is_refused(tmp_path: Path) -> None:
    columns = {"time": hours(), "load": np.arange(1500) % 24}
    path = write(tmp_path / "load.csv", columns)
    assert "'load': the values never change" in refusal(DataSettings(path=path, **HOURLY))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "row 1: is empty"),
        (b"time,load\n", "row 2: there are no rows"),
        (b"time,load\n2021-01-01,1\n2021-01-02,\xff\n", "row 3 is not UTF-8 text"),
        (b"time;load\n2021-01-01;1\n", "row 1: one column only; is it separated by ';'"),
        (b"time,time\n", "row 1: the column 'time' stands twice"),
        (b"when,load\n2021-01-01,1\n", r"row 1: no column 'time' (data.time), found: when, load"),
        (b'time,load\n2021-01-01,"1\n', "is not CSV"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "load.csv"
    path.write_bytes(content)
    assert expected in refusal(DataSettings(path=path, **HOURLY))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "none.csv: cannot be read" in refusal(DataSettings(path=tmp_path / "none.csv", **HOURLY))


def berlin(count: int = 1500) -> list[datetime]:
    """Hours around the end of daylight saving in 2021 (the night of 31 October)."""
    start = datetime(2021, 10, 1, tzinfo=UTC)
    zone = ZoneInfo("Europe/Berlin")
    return [(start + timedelta(hours=hour)).astimezone(zone) for hour in range(count)]


@pytest.mark.parametrize("start", [datetime(2021, 10, 1), datetime(2021, 3, 1)])
def test_daylight_saving_is_reported_and_understood(tmp_path: Path, start: datetime) -> None:
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
    last = local.train["known"].shape[1] - 7  # the origin's own step
    for split in (local.train, local.test):
        angle = np.arctan2(split["known"][:, last, 0], split["known"][:, last, 1])
        shown = [datetime.fromtimestamp(origin, zone).hour for origin in split["origin"].tolist()]
        np.testing.assert_array_equal(np.round(angle / (2 * np.pi) * 24) % 24, shown)
    for dataset in (local, offsets):
        encoded = dataset.contract.encode([Item.model_validate(dataset.example())])
        np.testing.assert_array_equal(encoded["known"], dataset.test["known"][:1])
    bare_item = {**local.example(), "times": bare[:30]}
    local.contract.encode([Item.model_validate(bare_item)])
    with pytest.raises(InvalidItem, match="has no UTC offset"):
        offsets.contract.encode([Item.model_validate(bare_item)])


def test_a_time_that_the_clocks_skipped_is_refused() -> None:
    zone = ZoneInfo("Europe/Berlin")
    with pytest.raises(clock.BadTime, match="was skipped by the clocks of Europe/Berlin"):
        clock.seconds([datetime(2021, 3, 28, 2, 30)], zone)


def test_the_calendar_knows_day_weekday_and_year() -> None:
    monday = np.array(["2021-03-01T00:00", "2021-03-08T23:00", "2021-03-01T06:00"], "datetime64[s]")
    found = clock.calendar(monday.astype(np.int64), ["week"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    day = clock.calendar(monday.astype(np.int64), ["day"])
    np.testing.assert_allclose(day[2, :2], [1, 0], atol=1e-6)
    year = clock.calendar(np.array([0, 366 * clock.DAY // 4]), ["year"])
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


def test_several_series_are_told_apart_and_scaled_each_by_itself(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    own = dataset.contract
    assert list(own.series) == ["north", "süd 🌞"]
    assert own.series["süd 🌞"].unit > 500 * own.series["north"].unit
    for number in (0, 1):
        rows = dataset.test["series"] == number
        assert 0.5 < np.abs(dataset.test["history"][rows]).std() < 5
        row = int(np.flatnonzero(rows)[3])
        item = dataset.item(number, int(dataset.test["origin"][row]))
        assert item["id"] == list(own.series)[number]
        encoded = own.encode([Item.model_validate(item)])
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
    assert "row 3, column 'time': 2021-03-01T00:00:00 stands twice, first in row 2" in message
    assert "name their column in data.id" in message


def test_requests_must_fit_the_series_and_the_covariates(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    good = dataset.example()

    def reason(**changes: Any) -> tuple[str, str]:
        with pytest.raises(InvalidItem) as caught:
            dataset.contract.encode([Item.model_validate({**good, **changes})])
        return caught.value.field, str(caught.value)

    assert reason(id=None) == ("id", "is needed: this model knows 2 series")
    assert reason(id="west")[0] == "id"
    assert reason(covariates={})[1].startswith("warm: 0 are given, needed are 36: one for each")
    assert "wind" in reason(covariates={**good["covariates"], "wind": [1.0]})[1]
    far = {"warm": [1e200] * 36}
    assert reason(covariates=far) == ("covariates", "warm: is far outside of what was trained on")
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
    assert "'süd 🌞' is not on the same grid of 1 h as 'north'" in refusal(settings)


def test_a_file_becomes_the_request_that_it_holds(tmp_path: Path) -> None:
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
    write(path, {**columns, "id": [*columns["id"][1:], "other"]})
    with pytest.raises(UserError, match=r"row 37, column 'id': two series"):
        contract.item_from_file(path)
    write(path, {**columns, "load": ["", *columns["load"][1:]]})
    with pytest.raises(UserError, match=r"row 2, column 'load': an empty cell"):
        contract.item_from_file(path)
    path.write_text("when\n2021-01-01\n")
    with pytest.raises(UserError, match="row 1: needs a column of times and one of values"):
        contract.item_from_file(path)


def test_an_answer_continues_the_history_for_as_long_as_asked() -> None:
    own = data.load(DataSettings()).contract
    items = [Item.model_validate({**GOOD, **more}) for more in ({}, {"horizon": 2})]
    outputs = {"quantiles": np.tile(np.array([-1.0, 0.0, 2.0], np.float32), (2, 24, 1))}
    whole, short = own.decode(outputs, items)
    assert len(whole.times) == len(whole.p50) == 24
    assert short.times == ["2014-03-10T00:00:00", "2014-03-10T01:00:00"]
    scale = own.series[""]
    assert short.p50 == pytest.approx([scale.center] * 2)
    assert short.p90[0] - short.p10[0] == pytest.approx(3 * scale.unit)
    earlier = hours(50, datetime(2014, 2, 26, 22))
    more = {"times": [*earlier, *GOOD["times"]], "values": [*[9.0] * 50, *GOOD["values"]]}
    for name, array in own.encode([Item.model_validate(more)]).items():
        np.testing.assert_array_equal(array, own.encode(items[:1])[name])


def test_answers_in_a_zone_carry_its_offset_through_the_change() -> None:
    moments = [moment.isoformat() for moment in berlin()[700:730]]
    own = contract_of(timezone="Europe/Berlin")
    item = Item.model_validate({"times": moments, "values": [1.0 + n % 7 for n in range(30)]})
    own.encode([item])
    (answer,) = own.decode({"quantiles": np.zeros((1, 6, 3), np.float32)}, [item])
    assert answer.times == [moment.isoformat() for moment in berlin()[730:736]]


def contract_of(**changes: Any) -> Contract:
    known: dict[str, Any] = {
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
    return Contract.model_validate({**known, **changes})


def test_a_contract_survives_its_file(tmp_path: Path) -> None:
    own = data.load(two_series(tmp_path)).contract
    own.save(tmp_path)
    assert Contract.load(tmp_path) == own


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"seasons": [168, 24]}, "ascending"),
        ({"window": 100}, "window=100 must hold a season of 168"),
        ({"covariates": ["demand_gw"]}, "cannot serve twice"),
        ({"timezone": "Europe/Atlantis"}, "no time zone known here"),
        ({"timezone": "../etc/passwd"}, "no time zone known here"),
        ({"horizon": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DataSettings(**wrong)


def test_the_ridge_solves_its_equations(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
    inputs = [torch.from_numpy(dataset.train[name]) for name in contract.INPUTS]
    design = ridge.design(*inputs).double().numpy()
    wanted = dataset.train["target"] - ridge.reference(inputs[0]).numpy()
    scaled = (design - design.mean(axis=0)) / np.maximum(design.std(axis=0), 1e-12)
    off = wanted - (ridge.predict(dataset.train) - ridge.reference(inputs[0]).numpy())
    own = ridge.coefficients.numpy() * design.std(axis=0)[:, None]
    # the gradient of squared error plus penalty × squared coefficients is nought at the solution
    pull = scaled.T @ off
    penalty = float((pull * own).sum() / (own * own).sum())
    np.testing.assert_allclose(pull, penalty * own, atol=0.02 * np.abs(pull).max() + 1e-2)
    assert penalty > 0


def test_an_untrained_network_forecasts_what_the_ridge_does(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
    for kind in ("lstm", "transformer"):
        network = model.Network(dataset.contract, ModelSettings(kind=kind, width=8))
        network.prepare(dataset.train, dataset.validation)
        network.eval()
        inputs = [torch.from_numpy(dataset.test[name]) for name in contract.INPUTS]
        with torch.no_grad():
            median = network(*inputs)[:, :, 1].numpy()
        np.testing.assert_allclose(median, ridge.predict(dataset.test), atol=1e-5)
        assert kind.lower() in model.describe(network).lower()


def randomised(own: Contract, **wanted: Any) -> model.Network:
    torch.manual_seed(0)
    network = model.Network(own, ModelSettings(width=8, **wanted))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.mark.parametrize("patch", [1, 4, 7])
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_quantiles_never_cross_whatever_the_patch_and_the_margin(kind: str, patch: int) -> None:
    own = contract_of(horizon=26, window=31)  # longer than the season, and no multiple of patches
    network = randomised(own, kind=kind, patch=patch)
    network.margin -= 0.5
    found = network(torch.randn(5, 31), torch.randn(5, 57, own.channels))
    assert found.shape == (5, 26, 3)
    assert (found.diff(dim=2) >= 0).all()
    assert found[:, :, 1].std() > 0


def test_calibration_makes_intervals_cover_their_share() -> None:
    own = contract_of()
    draw = np.random.default_rng(0)
    target = draw.normal(size=(2000, 6)) * np.arange(1, 7)
    narrow = np.tile(np.array([-0.5, 0.0, 0.5]), (2000, 6, 1))
    network = model.Network(own, ModelSettings(width=8))
    network.calibrate({"quantiles": narrow}, {"target": target})
    margin = network.margin.numpy().copy()
    fresh = draw.normal(size=(2000, 6)) * np.arange(1, 7)
    inside = (np.abs(fresh) <= 0.5 + margin).mean(axis=0)
    np.testing.assert_allclose(inside, 0.8, atol=0.04)
    wide = np.tile(np.array([-50.0, 0.0, 50.0]), (2000, 6, 1))
    network.calibrate({"quantiles": wide}, {"target": target})
    assert (network.margin.numpy() < margin).all()


@pytest.mark.parametrize("kind", set(model.KINDS) - {ModelSettings().kind})
def test_the_kind_that_is_not_the_default_exports_too(tmp_path: Path, kind: str) -> None:
    dataset = data.load(two_series(tmp_path))
    network = randomised(dataset.contract, kind=kind, patch=4)
    network.prepare(dataset.train, dataset.validation)
    export.export_onnx(network, dataset.validation, tmp_path / "model.onnx")
    session = load.onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = export.check_parity(network, dataset.validation, session)
    assert found["quantiles"].shape == (len(dataset.validation["origin"]), 6, 3)


def test_exponential_smoothing_follows_its_equations_and_sees_nothing_later() -> None:
    values = series(200)
    weights = np.array([[0.1, 0.6, 0.2], [0.0, 0.0, 0.1]])
    found = np.empty((2, 6, 2), np.float32)
    smoothing._smooth(values, [24], weights, 6, {150: [0], 160: [1]}, found)
    level, left = values[:24].mean(), 0.0
    day = list(values[:24] - level)
    for step in range(24, 151):
        error = values[step] - level - day[step % 24]
        shock = error - 0.6 * left
        level, left = level + 0.1 * shock, error
        day[step % 24] += 0.2 * shock
    expected = [level + day[(150 + h) % 24] + 0.6**h * left for h in range(1, 7)]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)
    again = np.empty((2, 6, 2), np.float32)
    values[151:] += 100
    smoothing._smooth(values, [24], weights, 6, {150: [0], 160: [1]}, again)
    np.testing.assert_array_equal(again[0], found[0])
    assert not np.allclose(again[1], found[1])


def test_naive_forecasts_repeat_the_last_season() -> None:
    split = {"history": np.arange(20.0)[None], "target": np.zeros((1, 7))}
    assert baseline.naive(split, 3)[0].tolist() == [17, 18, 19, 17, 18, 19, 17]
    assert baseline.title(contract_of(), 24) == "Daily naive"
    assert baseline.title(contract_of(), 168) == "Weekly naive"
    assert baseline.title(contract_of(), 5) == "Naive 5 steps back"


def test_every_baseline_answers_every_test_window(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    found = dict(baseline.predictions(dataset))
    assert list(found) == ["Daily naive", "Exponential smoothing", "Ridge with the same inputs"]
    worth = {}
    for name, outputs in found.items():
        assert outputs["quantiles"].shape == (len(dataset.test["origin"]), 6, 3)
        assert (np.diff(outputs["quantiles"], axis=2) >= 0).all()
        worth[name] = objective.metrics(outputs, dataset.test, dataset.contract)
        assert 0.7 < worth[name]["coverage"] < 0.9
    assert worth["Ridge with the same inputs"]["mase"] < worth["Daily naive"]["mase"]


def test_metrics_are_what_their_definitions_say(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    test, own = dataset.test, dataset.contract
    draw = np.random.default_rng(0)
    spread = np.sort(draw.normal(size=(len(test["origin"]), 6, 3)), axis=2)
    outputs = {"quantiles": spread}
    found = objective.metrics(outputs, test, own)
    scale = own.series[""]
    truth, guess = (scale.center + scale.unit * x for x in (test["target"], spread[:, :, 1]))
    values = dataset.series[0].values
    free = np.ones(len(values), bool)
    for first, end in [*dataset.blocks.validation, dataset.blocks.test]:
        free[first:end] = False
    changes = np.abs(values[24:] - values[:-24])[free[24:] & free[:-24]]
    assert found["mase"] == pytest.approx(np.abs(truth - guess).mean() / changes.mean(), rel=1e-4)
    assert found["mase"] == pytest.approx(objective.scores(outputs, test).mean())
    relative = 2 * np.abs(truth - guess) / (np.abs(truth) + np.abs(guess))
    assert found["smape"] == pytest.approx(100 * relative.mean(), rel=1e-4)
    low, high = spread[:, :, 0], spread[:, :, 2]
    inside = (low <= test["target"]) & (test["target"] <= high)
    assert found["coverage"] == pytest.approx(inside.mean())
    settings = Settings(name="x")
    batch = {name: torch.from_numpy(test[name]) for name in ("history", "known", "target")}
    answer = torch.from_numpy(spread.astype(np.float32))
    loss = objective.loss(settings, lambda history, known: answer, batch)  # pyright: ignore
    assert found["pinball"] == pytest.approx(loss.item(), rel=1e-4)
    rows = objective.details(outputs, test, own)["steps_ahead"]
    assert np.mean([row["mase"] for row in rows.values()]) == pytest.approx(found["mase"])


def test_features_tell_a_changed_level_spread_and_rhythm() -> None:
    own = contract_of(seasons=[24], window=48)
    past = np.tile(np.sin(2 * np.pi * np.arange(48) / 24), (1, 1)).astype(np.float32)
    plain = own.features({"history": past})
    assert own.features({"history": past + 2})["level"] == pytest.approx(plain["level"] + 2)
    assert own.features({"history": past * 3})["spread"] == pytest.approx(3 * plain["spread"])
    higher = past + np.repeat([[0, 1]], 24, axis=1).astype(np.float32)
    assert own.features({"history": higher})["change"] == pytest.approx([1.0], abs=1e-5)
    assert plain["distance"] == pytest.approx([0.0], abs=1e-5)


def test_autocorrelation_finds_the_memory_of_a_series() -> None:
    draw = np.random.default_rng(0)
    values = np.zeros(5000)
    for step in range(1, 5000):
        values[step] = 0.7 * values[step - 1] + draw.normal()
    np.testing.assert_allclose(figures.autocorrelation(values, 3), [1, 0.7, 0.49, 0.343], atol=0.05)


def test_days_and_weeks_are_steps_like_any_other(tmp_path: Path) -> None:
    start = datetime(2015, 1, 1)
    days = [(start + timedelta(days=day)).date().isoformat() for day in range(1200)]
    path = write(tmp_path / "days.csv", {"time": days, "load": series(1200)})
    settings = DataSettings(path=path, target="load", horizon=7, seasons=[7], window=28)
    dataset = data.load(settings)
    assert dataset.contract.step == clock.DAY
    assert dataset.contract.calendar == ["week", "year"]
    names = [name for name, _ in baseline.predictions(dataset)]
    assert names[0] == "Weekly naive"
    encoded = dataset.contract.encode([Item.model_validate(dataset.example())])
    np.testing.assert_allclose(encoded["history"], dataset.test["history"][:1], atol=1e-5)


def test_rows_are_numbered_as_an_editor_shows_them(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,"two\nlines"\n\n3,4\n')
    assert table.read(path).lines == [3, 5]


def test_labelled_requests_join_every_split_and_all_that_reads_it(tmp_path: Path) -> None:
    settings = Settings(name="x", data=hourly(tmp_path, test_share=0.4))
    whole, rest = data.load(settings.data).holdout(0.6)
    pairs = [
        *simulate.usual(whole, rest, settings)[:30],
        *simulate.shifted(whole, rest, settings)[:30],
    ]
    again = simulate.usual(whole, rest, settings)[:5]
    fresh = {"train": pairs[:9], "validation": pairs[5:40], "test": [*pairs[5:], *again, *again]}
    more = whole.with_examples(fresh)
    for name, added in fresh.items():
        before, after = getattr(whole, name), getattr(more, name)
        assert set(after) == set(before)
        for key, array in after.items():
            assert len(array) == len(before[key]) + len(added)
            assert array.dtype == before[key].dtype
    first = np.flatnonzero(rest["origin"] == more.train["origin"][-9])[0]
    for key, array in rest.items():
        np.testing.assert_allclose(more.train[key][-9], array[first], rtol=1e-4, atol=1e-4)
    assert more.fingerprint != whole.fingerprint
    found, origins = dict(baseline.predictions(more)), np.unique(more.test["origin"])
    assert len(origins) < len(more.test["origin"])
    for outputs in found.values():
        scores = objective.scores(outputs, more.test)
        assert len(scores) == len(origins)
        assert np.isfinite(scores).all()
        assert scores.max() < 10
    outputs = found["Daily naive"]
    assert objective.metrics(outputs, more.test, more.contract)["mase"] > 0
    details = objective.details(outputs, more.test, more.contract)
    assert len(list(figures.draw(more, outputs, details))) == 4
    masks = objective.slices(more.test, more.contract)
    assert all(len(mask) == len(origins) and mask.sum() >= 20 for mask in masks.values())


def test_a_window_that_joined_is_smoothed_by_its_own_past(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path, window=72))
    test = {key: array.copy() for key, array in dataset.test.items()}
    twice = {key: np.concatenate([array, array[-1:]]) for key, array in test.items()}
    weights = np.array([[0.1, 0.6, 0.2]])
    own = smoothing._forecast(dataset, twice, weights)
    np.testing.assert_array_equal(own[-1], own[-2])
    twice["history"][-1] += 5
    moved = smoothing._forecast(dataset, twice, weights)
    np.testing.assert_array_equal(moved[:-1], own[:-1])
    assert np.abs(moved[-1] - own[-1] - 5).max() < 1.5
    twice["origin"][-1] -= 10**9  # long before the series began
    np.testing.assert_array_equal(smoothing._forecast(dataset, twice, weights), moved)


def test_only_whole_truths_join_and_several_series_keep_their_own(tmp_path: Path) -> None:
    dataset = data.load(two_series(tmp_path))
    own, horizon = dataset.contract, dataset.contract.horizon
    rows = [np.flatnonzero(dataset.test["series"] == number)[0] for number in (1, 0)]
    pairs = []
    for row in rows:
        number, origin = int(dataset.test["series"][row]), int(dataset.test["origin"][row])
        values = dataset.test["target"][row] * dataset.test["unit"][row]
        truth = GroundTruth(values=(values + dataset.test["center"][row]).tolist())
        pairs.append((Item.model_validate(dataset.item(number, origin)), truth))
    found = dataset.encode_labelled(pairs)
    for key, array in found.items():
        np.testing.assert_allclose(array, dataset.test[key][rows], rtol=1e-4, atol=1e-4)
    item, truth = pairs[0]
    with pytest.raises(ValueError, match=f"example 1: values: 1 are given of {horizon} steps"):
        dataset.encode_labelled([pairs[0], (item, GroundTruth(values=truth.values[:1]))])
    with pytest.raises(ValueError, match="far outside"):
        dataset.encode_labelled([(item, GroundTruth(values=[1e30] * horizon))])
    outputs = {"quantiles": np.repeat(found["target"][:, :, None] + 0.5, 3, axis=2)}
    answers = own.decode(outputs, [item for item, _ in pairs])
    assert [answer.id for answer in answers] == [item.id for item, _ in pairs]
    for answer, (_, truth) in zip(answers, pairs, strict=True):
        assert own.score(answer, truth) == pytest.approx(0.5, abs=1e-3)
    for other, reason in ((None, "which series"), ("Tasmania", "no series of this model")):
        with pytest.raises(ValueError, match=reason):
            own.score(answers[0].model_copy(update={"id": other}), truth)


def test_scores_of_answers_average_to_the_mase(tmp_path: Path) -> None:
    settings = Settings(name="x", data=hourly(tmp_path))
    dataset = data.load(settings.data)
    own, test = dataset.contract, dataset.test
    pairs = [
        (
            Item.model_validate(dataset.item(0, int(origin))),
            GroundTruth(values=(target * own.series[""].unit + own.series[""].center).tolist()),
        )
        for origin, target in zip(test["origin"], test["target"].astype(float), strict=True)
    ]
    outputs = dict(baseline.predictions(dataset))["Daily naive"]
    found = own.decode(outputs, [item for item, _ in pairs])
    scores = [own.score(answer, truth) for answer, (_, truth) in zip(found, pairs, strict=True)]
    assert np.mean(scores) == pytest.approx(objective.metrics(outputs, test, own)["mase"], rel=1e-4)
    assert contract.SCORE.name in objective.metrics(outputs, test, own)


def test_a_truth_may_end_early_but_not_late() -> None:
    own = contract_of(series={"": {"center": 5.0, "unit": 2.0}})
    answer = Prediction(times=["a", "b"], p10=[0, 0], p50=[5.0, 7.0], p90=[9, 9])
    assert own.score(answer, GroundTruth(values=[7.0])) == 1
    assert own.score(answer, GroundTruth(values=[7.0, 7.0])) == 0.5
    with pytest.raises(ValueError, match="values: 3 are given, 2 steps were forecast"):
        own.score(answer, GroundTruth(values=[7.0] * 3))
    with pytest.raises(ValueError, match="far outside"):
        own.score(answer, GroundTruth(values=[1e300]))


def test_the_new_consumer_is_all_that_changes_and_a_gap_is_left(tmp_path: Path) -> None:
    settings = Settings(name="x", data=hourly(tmp_path, test_share=0.4))
    whole, rest = data.load(settings.data).holdout(0.6)
    usual = whole.encode_labelled(simulate.usual(whole, rest, settings))
    shifted = whole.encode_labelled(simulate.shifted(whole, rest, settings))
    own = whole.contract
    tested = whole.test["origin"].max() + own.step * own.horizon
    assert usual["origin"].min() - own.step * (own.window - 1) > tested
    told = usual["origin"].max() + own.step * own.horizon
    assert shifted["origin"].min() - own.step * (own.window - 1) > told
    windows = {key: array[-len(shifted["origin"]) :] for key, array in rest.items()}
    np.testing.assert_array_equal(windows["known"], shifted["known"])
    runs = np.concatenate([shifted[key] - windows[key] for key in ("history", "target")], axis=1)
    assert set(np.unique(runs.round(3)).tolist()) == {0.0, simulate.HEIGHT}
    steps = shifted["origin"][0] + own.step * np.arange(1 - own.window, own.horizon + 1)
    running = simulate.consumer(steps, own.step, 24)
    np.testing.assert_allclose(runs[0] / simulate.HEIGHT, running, atol=0.01)
    long = simulate.consumer(own.step * np.arange(90), own.step, 24)
    assert np.flatnonzero(np.diff(long)).tolist() == [17, 35, 53, 71]


def test_slices_follow_the_clock() -> None:
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
