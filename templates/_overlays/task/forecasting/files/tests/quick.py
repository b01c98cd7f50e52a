"""What the tests of all tasks need to know about this one."""

import math
from datetime import datetime, timedelta
from pathlib import Path

from {{ cookiecutter.package_name }}.task.data import Dataset

# settings that train in seconds and still beat chance
QUICK = ["train.epochs=2", "train.seeds=[0,1]", "data.stride=10", "model.width=8", "model.patch=12"]

HOURS = 216
TIMES = [(datetime(2014, 3, 1) + timedelta(hours=hour)).isoformat() for hour in range(HOURS)]
VALUES = [4.0 + hour % 24 / 24 for hour in range(HOURS)]
GOOD = {"times": TIMES, "values": VALUES}


def changed(list_: list, entry: object, place: int = 100) -> list:
    """Return the list with another entry at that place."""
    return [*list_[:place], entry, *list_[place + 1 :]]


# invalid items, and the field that the error has to name
BAD_ITEMS = [
    ({}, "times"),
    ({"times": TIMES}, "values"),
    ({"times": [], "values": []}, "times"),
    ({"times": TIMES[1:], "values": VALUES[1:]}, "times"),
    ({"times": TIMES * 100, "values": VALUES * 100}, "times"),
    ({**GOOD, "times": changed(TIMES, "yesterday")}, "times"),
    ({**GOOD, "times": changed(TIMES, "9" * 10_000)}, "times"),
    ({**GOOD, "times": changed(TIMES, 5)}, "times"),
    ({**GOOD, "times": changed(TIMES, TIMES[99])}, "times"),
    ({**GOOD, "times": changed(TIMES, TIMES[100] + "+10:00")}, "times"),
    ({**GOOD, "times": [time + "+10:00" for time in TIMES]}, "times"),
    ({**GOOD, "times": TIMES[::-1]}, "times"),
    ({**GOOD, "times": changed(TIMES, "9999-12-31T23:00", HOURS - 1)}, "times"),
    ({**GOOD, "values": VALUES[:-1]}, "values"),
    ({**GOOD, "values": changed(VALUES, math.nan)}, "values"),
    ({**GOOD, "values": changed(VALUES, math.inf)}, "values"),
    ({**GOOD, "values": changed(VALUES, 1e300)}, "values"),
    ({**GOOD, "values": changed(VALUES, "high")}, "values"),
    ({**GOOD, "values": changed(VALUES, None)}, "values"),
    ({**GOOD, "values": "4.0"}, "values"),
    ({**GOOD, "horizon": 25}, "horizon"),
    ({**GOOD, "horizon": 0}, "horizon"),
    ({**GOOD, "horizon": 10**30}, "horizon"),
    ({**GOOD, "id": "Tasmania 🦘"}, "id"),
    ({**GOOD, "covariates": {"temperature": [20.0] * 240}}, "covariates"),
    ({**GOOD, "weather": "fine"}, "weather"),
]


# unusual items, which are answered or refused
ODD_ITEMS = [
    {**GOOD, "values": [0.0] * HOURS},
    {**GOOD, "values": [True] * HOURS},
    {**GOOD, "values": changed(VALUES, 1e308)},
    {**GOOD, "values": changed(VALUES, -1e308)},
    {**GOOD, "values": changed(VALUES, 5e-324)},
    {**GOOD, "values": changed(VALUES, 1e6)},
    {**GOOD, "times": changed(TIMES, "0001-01-01T00:00", 0)},
    {**GOOD, "times": changed(TIMES, "2014-W10-1", 0)},
    {**GOOD, "times": changed(TIMES, "2014-03-05T04:00\0", 100)},
    {**GOOD, "covariates": {"\0": [0.0] * 240}},
    {**GOOD, "id": ""},
    {**GOOD, "target": "\0"},
]


def request_items(dataset: Dataset) -> list[dict]:
    """Build the items (JSON) of requests from the rows of the test split."""
    windows = zip(dataset.test["series"].tolist(), dataset.test["origin"].tolist(), strict=True)
    return [dataset.item(number, origin) for number, origin in windows]


# invalid ground truths, and a word that the error has to name
BAD_GROUND_TRUTHS = [
    ({}, "values"),
    ({"values": []}, "values"),
    ({"values": "4.0"}, "values"),
    ({"values": [None]}, "values"),
    ({"values": ["high"]}, "values"),
    ({"values": [math.nan]}, "values"),
    ({"values": [math.inf]}, "values"),
    ({"values": [1e300]}, "values"),
    ({"values": [4.0] * 1001}, "values"),
    ({"values": [4.0], "times": ["2014-03-10T00:00"]}, "times"),
]


def ground_truths(prediction: dict) -> tuple[dict, dict]:
    """Return a ground truth by which this prediction is right, and one by which it is wrong."""
    values = prediction["p50"]
    return {"values": values}, {"values": [10 + 2 * value for value in values]}


# what no page may say once other data is used
DEFAULT_WORDS = r"Victoria|AEMO|demand|Australia|electric|strikes"


def own_data(folder: Path) -> list[str]:
    """Write data of another kind, with names that pages must show as text; return its settings."""
    folder.mkdir(parents=True)
    lines = ["when,a|b <i>"]
    for hour in range(2500):
        value = 50 + 9 * math.sin(hour * math.pi / 12) + hour * 7919 % 13
        lines.append(f"{datetime(2021, 5, 1) + timedelta(hours=hour):%Y-%m-%d %H:%M},{value:.2f}")
    (folder / "load.csv").write_text("\n".join(lines), encoding="utf-8")
    columns = ["data.time=when", "data.target=a|b <i>", "data.seasons=[24]", "data.window=48"]
    return [f"data.path={folder / 'load.csv'}", *columns, "data.horizon=12", *QUICK]
