"""Windows with what followed them for `make loop`, before and after a simulated shift."""

import numpy as np

from ..arrays import Arrays
from ..interfaces import LabelledItem
from .contract import GroundTruth, Item
from .data import Dataset
from .settings import Settings

SHIFT_DESCRIPTION = (
    "Something new adds to the series, as a large consumer does to a grid: it is on for three "
    "quarters of the shorter season, off as long, and so on, and adds twice as much as the series "
    "usually changes from one longer season to the next."
)
MORE_TRAFFIC = "raise data.test_share, lower data.window or data.horizon, or add rows"

ON_SHARE = 0.75  # of the shorter season
EXTRA_LOAD = 2.0  # in units of the mean change from season to season
NORMAL_SHARE = 0.35  # of the held-out rows


def normal_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the first held-out windows in order of time.

    Windows whose past contains targets of the test split are left out.
    """
    rows = _rows_after(dataset, held_out, int(dataset.test["origin"].max()))
    return [
        _labelled_item(dataset, held_out, row) for row in rows if row < _first_shifted(held_out)
    ]


def shifted_requests(dataset: Dataset, held_out: Arrays, settings: Settings) -> list[LabelledItem]:
    """Return the later windows, with the consumer; they share no step with the normal ones."""
    rows = _rows_after(dataset, held_out, int(held_out["origin"][_first_shifted(held_out) - 1]))
    return [_labelled_item(dataset, held_out, row, EXTRA_LOAD) for row in rows]


def consumer(steps: np.ndarray, season: int) -> np.ndarray:
    """Return 1.0 (n,) at the steps, counted since 1970, at which the consumer is on, else 0."""
    span = max(1, round(ON_SHARE * season))
    return (steps // span % 2).astype(float)


def _first_shifted(held_out: Arrays) -> int:
    return max(1, round(NORMAL_SHARE * len(held_out["origin"])))


def _rows_after(dataset: Dataset, held_out: Arrays, origin: int) -> list[int]:
    """Return the windows that share no step with one whose past ends at `origin` (seconds)."""
    contract = dataset.contract
    gap = np.array(contract.window + contract.horizon)
    return np.flatnonzero(held_out["origin"] >= contract.frequency.after(origin, gap)).tolist()


def _labelled_item(
    dataset: Dataset, held_out: Arrays, row: int, extra_load: float = 0.0
) -> LabelledItem:
    """Turn a window into an item and its ground truth, with the consumer's load on both."""
    contract, origin = dataset.contract, int(held_out["origin"][row])
    item = dataset.item(int(held_out["series"][row]), origin)
    unit, center = float(held_out["unit"][row]), float(held_out["center"][row])
    steps = np.arange(1 - contract.window, contract.horizon + 1)
    first = contract.frequency.number(np.array([origin]))
    is_on = consumer(first + steps, contract.seasons[0])
    load = extra_load * unit * is_on
    item["values"] = (np.array(item["values"]) + load[: contract.window]).tolist()
    actual = held_out["target"][row].astype(float) * unit + center + load[contract.window :]
    return Item.model_validate(item), GroundTruth(values=actual.tolist())
