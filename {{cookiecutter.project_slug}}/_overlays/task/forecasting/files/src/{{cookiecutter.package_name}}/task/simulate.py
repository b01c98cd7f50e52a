"""Forecasts to be made, with what then came, for `make loop`: as ever, and after a change."""

import numpy as np

from ..interfaces import Arrays, LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT = (
    "A large consumer was connected: it runs for three quarters of a day, rests as long and runs "
    "again, and draws twice as much as the series usually changes within a week."
)

SPAN = 0.75  # of the shorter season
HEIGHT = 2.0  # in units of the usual change from season to season
BEFORE = 0.35  # share of what was set aside that comes before the change


def usual(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The first windows that were set aside, in order of time.

    Those whose past holds hours that the test split forecasts are left out.
    """
    rows = _after(dataset, rest, int(dataset.test["origin"].max()))
    return [_pair(dataset, rest, row) for row in rows if row < _change(rest)]


def shifted(dataset: Dataset, rest: Arrays, settings: Settings) -> list[LabelledItem]:
    """The last windows, those that share no hour with the others, and in them the consumer."""
    rows = _after(dataset, rest, int(rest["origin"][_change(rest) - 1]))
    return [_pair(dataset, rest, row, HEIGHT) for row in rows]


def consumer(stamps: np.ndarray, step: int, season: int) -> np.ndarray:
    """1.0 (n,) at the times (seconds) at which the consumer runs, else 0."""
    span = max(1, round(SPAN * season))
    return (stamps // step // span % 2).astype(float)


def _change(rest: Arrays) -> int:
    """The first window after the change."""
    return max(1, round(BEFORE * len(rest["origin"])))


def _after(dataset: Dataset, rest: Arrays, origin: int) -> list[int]:
    """The windows that share no hour with one that ends its past at `origin` (seconds)."""
    contract = dataset.contract
    gap = contract.step * (contract.window + contract.horizon)
    return np.flatnonzero(rest["origin"] >= origin + gap).tolist()


def _pair(dataset: Dataset, rest: Arrays, row: int, height: float = 0.0) -> LabelledItem:
    """A window's past as a request and its future as the truth, both with so much more."""
    contract, origin = dataset.contract, int(rest["origin"][row])
    item = dataset.item(int(rest["series"][row]), origin)
    unit, center = float(rest["unit"][row]), float(rest["center"][row])
    steps = np.arange(1 - contract.window, contract.horizon + 1)
    runs = consumer(origin + contract.step * steps, contract.step, contract.seasons[0])
    more = height * unit * runs
    item["values"] = (np.array(item["values"]) + more[: contract.window]).tolist()
    truth = rest["target"][row].astype(float) * unit + center + more[contract.window :]
    return Item.model_validate(item), GroundTruth(values=truth.tolist())
