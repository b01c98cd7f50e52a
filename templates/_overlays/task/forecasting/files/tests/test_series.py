"""Series as people have them: calendars, gaps, covariates, many series, files of other data."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.task import contract, data, frequency, windows
from {{ cookiecutter.package_name }}.task.contract import Contract, Item
from {{ cookiecutter.package_name }}.task.frequency import Frequency
from {{ cookiecutter.package_name }}.task.ridge import Ridge
from {{ cookiecutter.package_name }}.task.settings import DataSettings

from .test_task import HOURLY, hourly, hours, refusal, series, write

DAILY = {"target": "load", "horizon": 5, "seasons": [7], "window": 28}


def seconds(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[s]").astype(np.int64)


def texts(stamps: np.ndarray) -> list[str]:
    return stamps.astype("datetime64[s]").astype("datetime64[D]").astype(str).tolist()


def dated(tmp_path: Path, times: list[Any], **more: Any) -> DataSettings:
    path = write(tmp_path / "dated.csv", {"time": times, "load": series(len(times))})
    return DataSettings(path=path, **{**DAILY, **more})


def days(count: int, start: date = date(2019, 1, 1)) -> list[date]:
    return [start + timedelta(days=day) for day in range(count)]


def business_days(count: int) -> list[date]:
    return [day for day in days(2 * count) if day.weekday() < 5][:count]


def months(count: int, last: bool = False) -> list[date]:
    firsts = [date(1990 + month // 12, month % 12 + 1, 1) for month in range(count + 1)]
    return [day - timedelta(days=1) for day in firsts[1:]] if last else firsts[:-1]


@pytest.mark.parametrize(
    ("setting", "name", "from_", "ahead"),
    [
        ("B", "1 business day", "2024-05-02", ["2024-05-03", "2024-05-06", "2024-05-07"]),
        ("W", "7 d", "2024-05-01", ["2024-05-08", "2024-05-15", "2024-05-22"]),
        ("MS", "1 month", "2023-12-01", ["2024-01-01", "2024-02-01", "2024-03-01"]),
        ("ME", "1 month", "2023-12-31", ["2024-01-31", "2024-02-29", "2024-03-31"]),
        ("QE", "3 months", "2023-12-31", ["2024-03-31", "2024-06-30", "2024-09-30"]),
        ("QS", "3 months", "2023-11-01", ["2024-02-01", "2024-05-01", "2024-08-01"]),
        ("YE", "1 year", "2023-12-31", ["2024-12-31", "2025-12-31", "2026-12-31"]),
        ("2D", "2 d", "2024-02-28", ["2024-03-01", "2024-03-03", "2024-03-05"]),
    ],
)
def test_forecasts_go_on_as_the_calendar_does(
    setting: str, name: str, from_: str, ahead: list[str]
) -> None:
    steps = frequency.choose(setting, [seconds(from_, ahead[0])], [], None)
    assert steps.name == name
    origin = int(seconds(from_)[0])
    assert texts(steps.after(origin, np.arange(1, 4))) == ahead
    stamps = seconds(from_, *ahead)
    assert not steps.irregular(stamps).any()
    assert steps.irregular(stamps[[0, 2, 3]]).tolist() == [True, False]
    assert np.diff(steps.number(stamps)).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(steps.after(int(stamps[-1]), np.arange(-3, 1)), stamps)
    assert Frequency.model_validate_json(steps.model_dump_json()) == steps


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (days(400), Frequency(unit="day")),
        (days(1200)[::7], Frequency(unit="day", count=7)),
        (business_days(400), Frequency(unit="day", weekdays=frequency.WORK_WEEK)),
        (
            [day for day in days(500) if day.weekday() != 6],
            Frequency(unit="day", weekdays="1111110"),
        ),
        (months(300), Frequency(unit="month")),
        (months(300, last=True), Frequency(unit="month", day=31)),
        (months(600)[::3], Frequency(unit="month", count=3)),
        (months(3000)[::12], Frequency(unit="month", count=12)),
        (
            [datetime(2020, 1, 1, 9) + timedelta(minutes=15 * n) for n in range(500)],
            Frequency(unit="second", count=900),
        ),
    ],
)
def test_frequency_is_inferred(times: list[Any], expected: Frequency) -> None:
    stamps = seconds(*[time.isoformat() for time in times])
    assert frequency.choose("auto", [stamps], [], None) == expected


def test_business_days_are_forecast_without_weekends_and_holidays(tmp_path: Path) -> None:
    settings = dated(tmp_path, business_days(1000), seasons=[5], window=20)
    dataset = data.load(settings)
    assert dataset.contract.frequency.name == "1 business day"
    origin = dataset.contract.origin(Item.model_validate(dataset.example()))
    ahead = dataset.contract.frequency.after(origin, np.arange(1, 6))
    assert (
        np.array(ahead).astype("datetime64[s]").astype("datetime64[D]").astype(int) % 7 != 2
    ).all()
    off = [date(2019, 12, 25), date(2019, 12, 26)]
    closed = [day for day in business_days(1000) if day not in off]
    message = refusal(dated(tmp_path, closed, seasons=[5], window=20))
    assert "2 rows of 1 business day are missing between" in message
    assert "data.holidays names days off; data.frequency=rows takes every row" in message
    known = data.load(dated(tmp_path, closed, seasons=[5], window=20, holidays=off))
    christmas = int(seconds("2019-12-24")[0])
    assert texts(known.contract.frequency.after(christmas, np.arange(1, 3))) == [
        "2019-12-27",
        "2019-12-30",
    ]
    rows = data.load(dated(tmp_path, closed, seasons=[5], window=20, frequency="rows"))
    assert any("the times of forecasts are a guess" in note for note in rows.notes)
    for name in ("train", "test"):
        split = getattr(rows, name)
        origin = int(split["origin"][3])
        encoded = rows.contract.encode([Item.model_validate(rows.item(0, origin))])
        for key, array in encoded.items():
            np.testing.assert_allclose(array[0], split[key][3], atol=1e-6)


def test_a_calendar_day_is_one_step_across_daylight_saving(tmp_path: Path) -> None:
    zone = ZoneInfo("America/New_York")
    midnights = [datetime(day.year, day.month, day.day, tzinfo=zone) for day in days(900)]
    settings = dated(tmp_path, midnights, timezone="America/New_York", horizon=7)
    dataset = data.load(settings)
    assert dataset.contract.frequency.unit == "day"
    stamps = dataset.series[0].stamps
    assert set(np.diff(stamps).tolist()) == {23 * 3600, 24 * 3600, 25 * 3600}
    item = dataset.item(0, int(stamps[dataset.series[0].find(seconds("2020-03-05T05:00"))[0]]))
    (prediction,) = dataset.contract.decode(
        {"quantiles": np.zeros((1, 7, 3), np.float32)}, [Item.model_validate(item)]
    )
    assert prediction.times[2:5] == [
        "2020-03-08T00:00:00-05:00",
        "2020-03-09T00:00:00-04:00",
        "2020-03-10T00:00:00-04:00",
    ]
    assert "daylight saving, set data.timezone" in refusal(dated(tmp_path, midnights))


def test_midnight_that_clocks_skip_is_the_first_moment_of_its_day(tmp_path: Path) -> None:
    settings = dated(tmp_path, days(900, date(2017, 1, 1)), timezone="America/Sao_Paulo")
    dataset = data.load(settings)
    assert set(np.diff(dataset.series[0].positions).tolist()) == {1}
    assert len(dataset.series[0].stamps) == 900


def test_monthly_series_of_twenty_years_is_usable_and_told_to_be_short(tmp_path: Path) -> None:
    settings = dated(tmp_path, months(240, last=True), seasons=[12], window=24, horizon=12)
    dataset = data.load(settings)
    assert dataset.contract.frequency.day == frequency.LAST_DAY
    assert any("The test split has only" in note for note in dataset.notes)
    encoded = dataset.contract.encode([Item.model_validate(dataset.example())])
    np.testing.assert_allclose(encoded["known"], dataset.test["known"][:1], atol=1e-6)
    short = dated(tmp_path, months(60), seasons=[12], window=24, horizon=12)
    assert "too short: 60 rows, at least 104 needed" in refusal(short)
    hundred = dated(tmp_path, months(120), seasons=[12], window=24, horizon=12)
    assert len(data.load(hundred).blocks.validation) == 1


def test_usual_seasons_are_named_when_the_defaults_do_not_fit(tmp_path: Path) -> None:
    settings = dated(tmp_path, days(2000), seasons=[24, 168], window=216)
    assert any("usual seasons are data.seasons=[7]" in note for note in data.load(settings).notes)


def without(columns: dict[str, list], rows: slice) -> dict[str, list]:
    kept = {name: list(cells) for name, cells in columns.items()}
    for cells in kept.values():
        del cells[rows]
    return kept


@pytest.mark.parametrize(("gaps", "month"), [("interpolate", 2), ("seasonal", 3)])
def test_gaps_are_refused_or_filled_and_counted(tmp_path: Path, gaps: Any, month: int) -> None:
    columns = {"time": hours(start=datetime(2021, month, 1)), "load": series().tolist()}
    path = write(tmp_path / "gaps.csv", without(columns, slice(400, 402)))
    message = refusal(DataSettings(path=path, **HOURLY))
    assert message.endswith("data.gaps=interpolate or seasonal fills up to data.max_gap=6 steps")
    assert "2 rows of 1 h are missing between row 401" in message
    assert "daylight" not in message
    dataset = data.load(DataSettings(path=path, gaps=gaps, **HOURLY))
    one, values = dataset.series[0], series()
    assert len(one.values) == 1500
    assert np.flatnonzero(one.filled).tolist() == [400, 401]
    expected = (
        np.interp([400, 401], [399, 402], values[[399, 402]])
        if gaps == "interpolate"
        else values[[376, 377]]
    )
    np.testing.assert_allclose(one.values[400:402], expected, atol=1e-6)
    assert any("2 of 1,500 steps had no value and were filled" in note for note in dataset.notes)
    refused = refusal(DataSettings(path=path, gaps=gaps, max_gap=1, **HOURLY))
    assert "row 401, " in refused
    assert "the gap of 2 steps after this row is longer than data.max_gap" in refused


def test_no_forecast_starts_on_a_filled_step_or_is_measured_on_one(tmp_path: Path) -> None:
    values: list[Any] = series().tolist()
    for place in (700, 1400, 1401):
        values[place] = ""
    path = write(tmp_path / "gaps.csv", {"time": hours(), "load": values})
    dataset = data.load(DataSettings(path=path, gaps="interpolate", **HOURLY))
    one = dataset.series[0]
    for name in ("train", "validation", "test"):
        rows = one.find(getattr(dataset, name)["origin"])
        assert not one.filled[rows].any()
        if name != "train":
            assert not any(one.filled[row + 1 : row + 7].any() for row in rows)
    # what follows an origin never changes what its window shows of the past
    values[1402] = 500.0
    write(path, {"time": hours(), "load": values})
    after = data.load(DataSettings(path=path, gaps="interpolate", **HOURLY))
    rows = one.find(dataset.test["origin"])
    early = rows < 1402
    np.testing.assert_array_equal(
        after.test["history"][early[: len(rows)].nonzero()[0]],
        dataset.test["history"][early.nonzero()[0]],
    )


def test_unsorted_rows_are_sorted_and_told(tmp_path: Path) -> None:
    straight = data.load(hourly(tmp_path))
    order = np.random.default_rng(0).permutation(1500)
    for rows in (order, np.arange(1500)[::-1]):
        columns = {"time": np.array(hours())[rows], "load": series()[rows]}
        path = write(tmp_path / "mixed.csv", columns)
        dataset = data.load(DataSettings(path=path, **HOURLY))
        assert "of 1,500 rows were not in order of time; all were sorted" in dataset.notes[0]
        assert dataset.fingerprint == straight.fingerprint
    assert straight.notes == ()


def unequal_series(tmp_path: Path, short: np.ndarray) -> Path:
    """A series of 1,500 hours, then a shorter one that ends with it."""
    times, count = hours(), len(short)
    columns = {
        "time": times + times[-count:],
        "id": ["a"] * 1500 + ["b"] * count,
        "load": np.concatenate([series(), short]),
    }
    return write(tmp_path / "unequal.csv", columns)


@pytest.mark.parametrize(
    ("short", "reason"),
    [
        (series(250), "25 of these 250 rows are in the training part"),
        (np.full(1500, 3.0), "the values never change"),
    ],
)
def test_unusable_series_is_named_with_its_rows_or_left_out(
    tmp_path: Path, short: np.ndarray, reason: str
) -> None:
    path, last = unequal_series(tmp_path, short), 1501 + len(short)
    message = refusal(DataSettings(path=path, id="id", **HOURLY))
    assert f"rows 1502 to {last}, series 'b'" in message
    assert reason in message
    assert message.endswith("; data.unusable=skip leaves such series out")
    dataset = data.load(DataSettings(path=path, id="id", unusable="skip", **HOURLY))
    assert list(dataset.contract.series) == ["a"]
    assert "1 series left out (data.unusable=skip)" in dataset.notes[0]
    assert "series 'b'" in dataset.notes[0]


def sites(tmp_path: Path, **more: Any) -> DataSettings:
    """Two series with a covariate known ahead, one of the past, and two static ones."""
    rng = np.random.default_rng(0)
    columns = {
        "time": hours() * 2,
        "site": ["north"] * 1500 + ["south"] * 1500,
        "load": np.concatenate([series(seed=1), series(seed=2)]),
        "price": rng.normal(5, 2, 3000),
        "wind": rng.normal(9, 3, 3000),
        "size": [3.5] * 1500 + [7] * 1500,
        "kind": ["rural"] * 1500 + ["urban"] * 1500,
    }
    path = write(tmp_path / "sites.csv", columns)
    names = {"id": "site", "covariates": ["price"], "past_covariates": ["wind"]}
    return DataSettings(path=path, **{**HOURLY, **names, "static": ["size", "kind"], **more})


def test_future_of_past_covariates_is_never_an_input(tmp_path: Path) -> None:
    settings = sites(tmp_path)
    dataset = data.load(settings)
    contract_ = dataset.contract
    assert contract_.channels == contract_.calendar_channels + 2 + 3
    price, wind = contract_.calendar_channels, contract_.calendar_channels + 1
    for split in (dataset.train, dataset.validation, dataset.test):
        known = split["known"][:40]
        assert (known[:, contract_.window :, wind] == 0).all()
        assert known[:, : contract_.window, wind].std() > 0.5
        assert known[:, contract_.window :, price].std() > 0.5
    item = dataset.example()
    assert len(item["covariates"]["price"]) == contract_.window + contract_.horizon
    assert len(item["covariates"]["wind"]) == contract_.window
    encoded = contract_.encode([Item.model_validate(item)])
    np.testing.assert_allclose(encoded["known"], dataset.test["known"][:1], atol=1e-5)
    for name, reason in (("wind", "its future is not used"), ("price", "and 6 ahead")):
        wrong = {**item["covariates"], name: [1.0] * 31}
        with pytest.raises(InvalidItem, match=f"{name}: got 31, expected .*{reason}"):
            contract_.encode([Item.model_validate({**item, "covariates": wrong})])


def test_static_covariates_belong_to_the_series_and_must_be_constant(tmp_path: Path) -> None:
    dataset = data.load(sites(tmp_path))
    static = {key: scale.static for key, scale in dataset.contract.series.items()}
    assert static == {"north": [-1.0, 1.0, 0.0], "south": [1.0, 0.0, 1.0]}
    south = np.flatnonzero(dataset.test["series"] == 1)[0]
    assert (dataset.test["known"][south][:, -3:] == [1, 0, 1]).all()
    text = (tmp_path / "sites.csv").read_text()
    (tmp_path / "sites.csv").write_text(text.replace("7,urban\n", "8,urban\n", 1))
    settings = DataSettings(path=tmp_path / "sites.csv", id="site", static=["size"], **HOURLY)
    assert "row 1502, column 'size': is '8'" in refusal(settings) or "row 1503" in refusal(settings)
    with pytest.raises(ValidationError, match="name the series' column in id"):
        DataSettings(static=["size"])


def test_ridge_with_all_kinds_of_covariates_fits_and_predicts(tmp_path: Path) -> None:
    dataset = data.load(sites(tmp_path))
    ridge = Ridge(dataset.contract).fit(dataset.train, dataset.validation)
    error = np.abs(ridge.predict(dataset.test) - dataset.test["target"]).mean()
    assert error < 1


def test_file_or_request_of_another_target_is_refused(tmp_path: Path) -> None:
    dataset = data.load(hourly(tmp_path))
    item = dataset.example()
    path = write(tmp_path / "x.csv", {"time": item["times"], "price": item["values"]})
    other = Item.model_validate(contract.item_from_file(path))
    with pytest.raises(InvalidItem, match=r"'price' is not what this model forecasts \('load'\)"):
        dataset.contract.encode([other])
    unnamed = {key: value for key, value in item.items() if key != "target"}
    dataset.contract.encode([Item.model_validate(unnamed), Item.model_validate(item)])


def test_past_covariates_of_a_file_end_where_its_values_end(tmp_path: Path) -> None:
    item = data.load(sites(tmp_path)).example()
    path = write(
        tmp_path / "x.csv",
        {
            "time": [*item["times"], *[""] * 6],
            "load": [*item["values"], *[""] * 6],
            "price": item["covariates"]["price"],
            "wind": [*item["covariates"]["wind"], *[""] * 6],
            "id": ["north"] * 36,
        },
    )
    assert contract.item_from_file(path) == item
    text = path.read_text().splitlines()
    text[-1] = text[-1].replace(f"{item['covariates']['price'][-1]}", "")
    path.write_text("\n".join(text))
    with pytest.raises(UserError, match="row 37, column 'price': an empty cell"):
        contract.item_from_file(path)


def test_windows_are_made_when_needed_and_equal_copies(tmp_path: Path) -> None:
    source = np.arange(40.0).reshape(20, 2)
    made = windows.Windows(source, np.array([0, 5, 9]), 4)
    assert made.shape == (3, 4, 2)
    assert len(made) == 3
    np.testing.assert_array_equal(made[1], source[5:9])
    np.testing.assert_array_equal(made[[2, 0]], np.stack([source[9:13], source[:4]]))
    np.testing.assert_array_equal(made.take(np.array([1]))[:], source[None, 5:9])
    np.testing.assert_array_equal(np.asarray(made)[:, 0], source[[0, 5, 9]])
    dataset = data.load(hourly(tmp_path))
    for name in ("history", "known"):
        column = dataset.train[name]
        np.testing.assert_array_equal(column[7], column[:][7])
        np.testing.assert_array_equal(column[np.array([3, 1])], column[:][[3, 1]])
        assert column[2:2].shape == (0, *column.shape[1:])


def test_contract_from_before_there_were_frequencies_still_loads(tmp_path: Path) -> None:
    now = data.load(hourly(tmp_path)).contract
    fields = now.model_dump(mode="json")
    del fields["frequency"]
    for scale in fields["series"].values():
        del scale["static"]
    assert Contract.model_validate({**fields, "step": 3600, "timezone": None}) == now


@pytest.mark.parametrize("setting", ["fortnight", "0h", "BM", "h2", "-1D"])
def test_unknown_frequency_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match="frequency"):
        DataSettings(frequency=setting)


def test_frequency_that_the_rows_contradict_is_refused(tmp_path: Path) -> None:
    message = refusal(dated(tmp_path, days(500), frequency="B"))
    assert "row 6, column 'time': 2019-01-05 is no step of 1 business day" in message
    twice = [datetime(2019, 1, 1) + timedelta(hours=12 * n) for n in range(500)]
    assert "steps are 1 d" in refusal(dated(tmp_path, twice, frequency="D"))
    assert "data.holidays is for days" in refusal(hourly(tmp_path, holidays=["2021-03-05"]))
