"""What a request and an answer look like, and the way from one to the network and back.

Training and the server call these same functions, so the two cannot drift apart. The server's
environment holds no torch: this module needs NumPy and pydantic only.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..config import UserError
from ..interfaces import Arrays, BaseContract, InvalidItem, ScoreMetric
from . import clock, table

# The network's inputs in the order of its `forward`, each with the names of those axes beside the
# first that may have any length. A forecast needs a fixed past, so there is none.
INPUTS: dict[str, dict[int, str]] = {"history": {}, "known": {}}
OUTPUTS = ("quantiles",)
SCORE = ScoreMetric("mase", False)
QUANTILES = (0.1, 0.5, 0.9)

MAX_HISTORY = 20_000  # entries of a request; only the newest `window` are looked at
LARGEST = 1e6  # of a scaled value: beyond it 32-bit arithmetic on differences means nothing

Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Item(BaseModel):
    """The recent past of one series, and how far to look ahead."""

    model_config = ConfigDict(extra="forbid")

    # fail_fast: one wrong value is enough to answer, a body full of them must not cost more.
    times: list[Time] = Field(
        max_length=MAX_HISTORY, fail_fast=True, description="ISO 8601, in the model's steps"
    )
    values: list[Number] = Field(
        max_length=MAX_HISTORY, fail_fast=True, description="the target at these times"
    )
    covariates: dict[
        str, Annotated[list[Number], Field(max_length=2 * MAX_HISTORY, fail_fast=True)]
    ] = Field(
        default={},
        max_length=50,
        description="for each covariate a value per time and one for each step ahead",
    )
    horizon: int | None = Field(
        default=None, ge=1, description="steps ahead; as many as the model was trained for"
    )
    id: str | None = Field(default=None, max_length=200, description="which series, if several")


class Prediction(BaseModel):
    """For each step ahead its time and the quantiles of what may come."""

    times: list[str]
    p10: list[float]
    p50: list[float]
    p90: list[float]
    id: str | None = None  # which series, as the request named it


class GroundTruth(BaseModel):
    """What turned out to be right about one item."""

    model_config = ConfigDict(extra="forbid")

    values: list[Number] = Field(
        min_length=1,
        max_length=MAX_HISTORY,
        fail_fast=True,
        description="the target at the steps that were forecast, from the first on",
    )


class Scale(BaseModel):
    """A series' training mean and the mean change from season to season, in the target's units."""

    model_config = ConfigDict(frozen=True)

    center: float
    unit: float


class Covariate(BaseModel):
    """A covariate's training mean and standard deviation."""

    model_config = ConfigDict(frozen=True)

    name: str
    center: float
    spread: float


class Contract(BaseContract):
    """The grid of time, what is looked at, and the scalers, fitted on the training part."""

    TASK: ClassVar[str] = "forecasting"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth

    target: str
    step: int  # seconds
    seasons: list[int]  # steps
    window: int
    horizon: int
    offsets: bool  # whether the times had UTC offsets
    timezone: str | None
    calendar: list[str]
    covariates: list[Covariate]
    series: dict[str, Scale]  # by id; a file without ids holds one series, called ""

    @property
    def season(self) -> int:
        """The season that forecasts refer to."""
        return self.seasons[-1]

    @property
    def calendar_channels(self) -> int:
        return sum(clock.CHANNELS[part] for part in self.calendar)

    @property
    def channels(self) -> int:
        """Of `known`: the calendar's, then one for each covariate."""
        return self.calendar_channels + len(self.covariates)

    @property
    def zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.timezone) if self.timezone else None

    def scaled(self, values: np.ndarray, key: str) -> np.ndarray:
        """A series' values as float32: 0 is its training mean, 1 its change between seasons."""
        scale = self.series[key]
        return ((values - scale.center) / scale.unit).astype(np.float32)

    def known(self, stamps: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """What is known ahead, float32 (n, channel), at times (n,) with covariates (n, name)."""
        calendar = clock.calendar(clock.wall(stamps, self.zone), self.calendar)
        center = np.array([covariate.center for covariate in self.covariates])
        spread = np.array([covariate.spread for covariate in self.covariates])
        own = ((covariates - center) / spread).astype(np.float32)
        return np.concatenate([calendar, own], axis=1)

    def encode(self, items: list[Item]) -> Arrays:
        """Requests to the network's inputs, float32: `history` (item, window) of the scaled
        target and `known` (item, window + horizon, channel).

        Raises InvalidItem for what the schema cannot express.
        """
        history = np.empty((len(items), self.window), np.float32)
        known = np.empty((len(items), self.window + self.horizon, self.channels), np.float32)
        for index, item in enumerate(items):
            key = self._series(index, item)
            if (item.horizon or 1) > self.horizon:
                reason = f"{item.horizon} is beyond the {self.horizon} steps this model looks ahead"
                raise InvalidItem(index, "horizon", reason)
            last = self._last(index, item)
            history[index] = self._history(index, item, key)
            steps = np.arange(1 - self.window, self.horizon + 1)
            known[index] = self.known(last + self.step * steps, self._covariates(index, item))
        return {"history": history, "known": known}

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """The network's outputs for these items to answers."""
        found = []
        for item, quantiles in zip(items, outputs["quantiles"].astype(np.float64), strict=True):
            steps = item.horizon or self.horizon
            scale = self.series[item.id or next(iter(self.series))]
            last = self.origin(item)
            stamps = [last + self.step * step for step in range(1, steps + 1)]
            low, median, high = (scale.center + scale.unit * quantiles[:steps]).T.tolist()
            times = clock.texts(stamps, datetime.fromisoformat(item.times[-1]), self.zone)
            found.append(Prediction(times=times, p10=low, p50=median, p90=high, id=item.id))
        return found

    def score(self, prediction: Prediction, truth: GroundTruth) -> float:
        """The mean absolute error of the median in units of the series' change between seasons,
        over the steps whose values are given. ValueError for a truth that cannot be."""
        given, forecast = len(truth.values), len(prediction.p50)
        if given > forecast:
            raise ValueError(f"values: {given} are given, {forecast} steps were forecast")
        if prediction.id is None and len(self.series) > 1:
            raise ValueError("id: the forecast does not tell which series it is of")
        key = next(iter(self.series)) if prediction.id is None else prediction.id
        if key not in self.series:
            raise ValueError(f"id: {key[:40]!r} is no series of this model")
        truths = self.believable(truth, key)
        return float(np.abs(self.scaled(np.array(prediction.p50[:given]), key) - truths).mean())

    def believable(self, truth: GroundTruth, key: str) -> np.ndarray:
        """A series' true values, scaled, float32 (n,); ValueError if far outside of training's."""
        values = np.array(truth.values)
        with np.errstate(over="ignore"):
            found = self.scaled(values, key)
        if not (np.abs(found) < LARGEST).all():
            worst = values[np.argmax(np.abs(values))]
            raise ValueError(f"values: {worst:g} is far outside of what was trained on")
        return found

    def origin(self, item: Item) -> int:
        """The newest time of an item in seconds."""
        # The hour that clocks show twice is told by what precedes it.
        moments = [datetime.fromisoformat(text) for text in item.times[-2:]]
        return int(clock.seconds(moments, self.zone)[-1])

    def features(self, inputs: Arrays) -> Arrays:
        """The few numbers per item that drift is watched on, in units of the usual change."""
        history = inputs["history"].astype(np.float64)
        season = min(self.seasons[0], self.window // 2)
        newest, before = history[:, -season:], history[:, -2 * season : -season]
        return {
            "level": history.mean(axis=1),
            "spread": history.std(axis=1),
            "change": (newest - before).mean(axis=1),
            "distance": np.abs(newest - before).mean(axis=1),
            "roughness": np.abs(np.diff(history, axis=1)).mean(axis=1),
        }

    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """What of the answers drift is watched on."""
        low, median, high = np.moveaxis(outputs["quantiles"].astype(np.float64), 2, 0)
        return {"forecast": median.mean(axis=1), "interval": (high - low).mean(axis=1)}

    def _series(self, index: int, item: Item) -> str:
        if item.id is None and len(self.series) == 1:
            return next(iter(self.series))
        if item.id is None:
            raise InvalidItem(index, "id", f"is needed: this model knows {len(self.series)} series")
        if item.id not in self.series:
            some = ", ".join(list(self.series)[:5]) or "none"
            raise InvalidItem(index, "id", f"{item.id[:40]!r} is no series of this model ({some})")
        return item.id

    def _last(self, index: int, item: Item) -> int:
        """The newest time in seconds, once the times are known to be regular."""
        if len(item.times) < self.window:
            reason = f"{len(item.times)} are given, this model needs the last {self.window}"
            raise InvalidItem(index, "times", reason)
        skipped = len(item.times) - self.window
        try:
            moments = clock.parse(item.times[skipped:])
            if moments[0].tzinfo is not None and not self.offsets and self.timezone is None:
                raise clock.BadTime(0, "has a UTC offset, the times in training had none")
            if moments[0].tzinfo is None and self.offsets and self.timezone is None:
                raise clock.BadTime(0, "has no UTC offset, the times in training had one")
            stamps = clock.seconds(moments, self.zone)
        except clock.BadTime as error:
            place = f"entry {skipped + error.position}: {error}"
            raise InvalidItem(index, "times", place) from None
        steps = np.diff(stamps)
        if (steps != self.step).any():
            first = int(np.argmax(steps != self.step))
            reason = (
                f"entry {skipped + first + 1}: {item.times[skipped + first + 1]} is "
                f"{clock.name(int(steps[first]))} after the entry before, this model takes steps "
                f"of {clock.name(self.step)}"
            )
            raise InvalidItem(index, "times", reason)
        return int(stamps[-1])

    def _history(self, index: int, item: Item, key: str) -> np.ndarray:
        if len(item.values) != len(item.times):
            reason = f"{len(item.values)} are given for {len(item.times)} times"
            raise InvalidItem(index, "values", reason)
        values = np.array(item.values[-self.window :])
        with np.errstate(over="ignore"):
            found = self.scaled(values, key)
        if not (np.abs(found) < LARGEST).all():
            worst = values[np.argmax(np.abs(values))]
            raise InvalidItem(index, "values", f"{worst:g} is far outside of what was trained on")
        return found

    def _covariates(self, index: int, item: Item) -> np.ndarray:
        """The covariates (window + horizon, name) of an item, unscaled."""
        names = [covariate.name for covariate in self.covariates]
        for name in item.covariates:
            if name not in names:
                there = ", ".join(names) or "none"
                reason = f"{name[:40]!r} is no covariate of this model ({there})"
                raise InvalidItem(index, "covariates", reason)
        found = np.empty((self.window + self.horizon, len(names)))
        wanted = len(item.times) + self.horizon
        for column, covariate in enumerate(self.covariates):
            values = item.covariates.get(covariate.name, [])
            if len(values) != wanted:
                reason = (
                    f"{covariate.name}: {len(values)} are given, needed are {wanted}: one for each "
                    f"time and {self.horizon} ahead"
                )
                raise InvalidItem(index, "covariates", reason)
            found[:, column] = values[-len(found) :]
            if not (np.abs(found[:, column] - covariate.center) < LARGEST * covariate.spread).all():
                reason = f"{covariate.name}: is far outside of what was trained on"
                raise InvalidItem(index, "covariates", reason)
        return found


def item_from_file(path: Path) -> dict[str, Any]:
    """A CSV file as a request's item: times, values, then covariates, a column each.

    The header names the covariates, and may name a column `id`. Rows at the end whose value is
    empty are the steps ahead: they carry the covariates. UserError naming row and column.
    """
    rows = table.read(path)
    names = [name for name in rows.columns if name != "id"]
    if len(names) < 2:
        raise UserError(f"{path}: row 1: needs a column of times and one of values")
    time, value, *covariates = names
    values = rows.columns[value]
    count = len(values)
    while count and not values[count - 1]:
        count -= 1
    past = table.Table(path, {value: values[:count]}, rows.lines[:count])
    item: dict[str, Any] = {
        "times": rows.columns[time][:count],
        "values": past.numbers(value, "values"),
    }
    if covariates:
        item["covariates"] = {name: rows.numbers(name, "covariate") for name in covariates}
    if "id" in rows.columns:
        ids = rows.columns["id"]
        other = next((row for row, key in enumerate(ids) if key != ids[0]), None)
        if other is not None:
            raise UserError(f"{path}: row {rows.lines[other]}, column 'id': two series in one file")
        item["id"] = ids[0]
    return item
