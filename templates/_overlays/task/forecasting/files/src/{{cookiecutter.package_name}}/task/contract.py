"""Requests, predictions and their encoding, the same in training and on the server.

The server imports this module: it needs NumPy and pydantic only.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from ..arrays import Arrays
from ..interfaces import BaseContract, InvalidItem, ScoreMetric
from . import clock
from .frequency import Frequency
from .items import GroundTruth as GroundTruth
from .items import Item as Item
from .items import Prediction as Prediction
from .request_file import item_from_file as item_from_file

# In the order of `forward`; per input, the names of its variable axes besides the batch: none.
INPUTS: dict[str, dict[int, str]] = {"history": {}, "known": {}}
OUTPUTS = ("quantiles",)
SCORE = ScoreMetric("mase", False)
QUANTILES = (0.1, 0.5, 0.9)

MAX_SCALED = 1e6  # larger scaled values lose too much precision in 32 bits


class Scale(BaseModel):
    """A series' mean and its mean change from season to season in training, in its own units."""

    model_config = ConfigDict(frozen=True)

    center: float
    unit: float
    static: list[float] = []  # the series' static covariates, encoded


class Covariate(BaseModel):
    """A covariate's mean and standard deviation in training."""

    model_config = ConfigDict(frozen=True)

    name: str
    center: float
    spread: float
    past_only: bool = False  # whether its future values are unknown


class Contract(BaseContract):
    """The frequency, the window, the covariates and the scalers, fitted to the training split."""

    TASK: ClassVar[str] = "forecasting"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth

    target: str
    frequency: Frequency
    seasons: list[int]  # steps
    window: int
    horizon: int
    offsets: bool  # whether times have UTC offsets
    calendar: list[str]
    covariates: list[Covariate]  # those known ahead first
    series: dict[str, Scale]  # by id; a single series without an id is called ""
    special_days: tuple[date, ...] = ()  # in local time, future ones too

    @model_validator(mode="before")
    @classmethod
    def _steps_of_seconds(cls, values: Any) -> Any:
        """Read a contract from before there were frequencies."""
        if isinstance(values, dict) and "step" in values:
            old = {key: values[key] for key in values if key not in ("step", "timezone")}
            zone = values.get("timezone")
            return {
                **old,
                "frequency": Frequency(unit="second", count=values["step"], timezone=zone),
            }
        return values

    @property
    def season(self) -> int:
        """The season, in steps, that forecasts are relative to."""
        return self.seasons[-1]

    @property
    def calendar_channels(self) -> int:
        return sum(clock.CHANNELS[period] for period in self.calendar)

    @property
    def ahead_channels(self) -> int:
        """The number of channels, the first ones, that are known ahead and change with time."""
        return self.calendar_channels + sum(not column.past_only for column in self.covariates)

    @property
    def static_channels(self) -> int:
        return len(next(iter(self.series.values())).static)

    @property
    def channels(self) -> int:
        """The number of channels of `known`: the calendar's, one per covariate, static ones, those
        of special days."""
        ordinary = self.calendar_channels + len(self.covariates) + self.static_channels
        return ordinary + self.special_channels

    @property
    def special_channels(self) -> int:
        return (1 + clock.CHANNELS["day"] * ("day" in self.calendar)) * bool(self.special_days)

    @property
    def zone(self) -> ZoneInfo | None:
        return self.frequency.zone

    def scaled(self, values: np.ndarray, key: str) -> np.ndarray:
        """Scale a series' values, float32: 0 is its training mean, 1 its change between seasons."""
        scale = self.series[key]
        return ((values - scale.center) / scale.unit).astype(np.float32)

    def calendar_at(self, stamps: np.ndarray) -> np.ndarray:
        """Compute the calendar's channels, float32 (…, channel), at times in seconds (…)."""
        local = clock.local_seconds(stamps, self.zone)
        return clock.calendar_features(local, self.calendar)

    def special_at(self, stamps: np.ndarray) -> np.ndarray:
        """Compute the channels of special days, float32 (…, channel), at times in seconds (…).

        They are zero on other days, else one and the hour's sine and cosine: a profile of the day.
        """
        if not self.special_days:
            return np.zeros((*stamps.shape, 0), np.float32)
        local = clock.local_seconds(stamps, self.zone)
        listed = np.array(self.special_days, "datetime64[D]").astype(int)
        is_special = np.isin(local // clock.DAY, listed)
        profile = [np.ones((*stamps.shape, 1), np.float32)]
        if "day" in self.calendar:
            profile.append(clock.calendar_features(local, ["day"]))
        return is_special[..., None] * np.concatenate(profile, axis=-1)

    def known(self, stamps: np.ndarray, covariates: np.ndarray, key: str) -> np.ndarray:
        """Compute the inputs beside the target, float32 (n, channel), of the series `key`.

        `stamps` are seconds (n,), `covariates` unscaled (n, name).
        """
        center = np.array([covariate.center for covariate in self.covariates])
        spread = np.array([covariate.spread for covariate in self.covariates])
        scaled = ((covariates - center) / spread).astype(np.float32)
        static = np.tile(np.array(self.series[key].static, np.float32), (len(stamps), 1))
        parts = [self.calendar_at(stamps), scaled, static, self.special_at(stamps)]
        return np.concatenate(parts, axis=1)

    def hide_future(self, known: np.ndarray) -> None:
        """Replace what is not known ahead by its mean, in place; `known` is a batch of windows."""
        first = self.calendar_channels + len(self.covariates)
        known[:, self.window :, self.ahead_channels : first] = 0

    def encode(self, items: list[Item]) -> Arrays:
        """Encode items, float32: `history` (item, window), the scaled target, and `known`
        (item, window + horizon, channel).

        Raises InvalidItem for what the schema cannot express.
        """
        history = np.empty((len(items), self.window), np.float32)
        known = np.empty((len(items), self.window + self.horizon, self.channels), np.float32)
        for index, item in enumerate(items):
            key = self._series_key(index, item)
            if (item.horizon or 1) > self.horizon:
                limit = f"the {self.horizon} steps that this model forecasts"
                raise InvalidItem(index, "horizon", f"{item.horizon} exceeds {limit}")
            if item.target not in (None, self.target):
                reason = f"{item.target[:40]!r} is not what this model forecasts ({self.target!r})"
                raise InvalidItem(index, "target", reason)
            stamps = self._window_times(index, item)
            history[index] = self._scaled_history(index, item, key)
            known[index] = self.known(stamps, self._item_covariates(index, item), key)
        self.hide_future(known)
        return {"history": history, "known": known}

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """Decode `quantiles` (item, horizon, 3) into one prediction per item."""
        predictions = []
        for item, quantiles in zip(items, outputs["quantiles"].astype(np.float64), strict=True):
            steps = item.horizon or self.horizon
            scale = self.series[item.id or next(iter(self.series))]
            last = self.origin(item)
            stamps = self.frequency.after(last, np.arange(1, steps + 1)).tolist()
            low, median, high = (scale.center + scale.unit * quantiles[:steps]).T.tolist()
            times = clock.format_times(stamps, datetime.fromisoformat(item.times[-1]), self.zone)
            predictions.append(Prediction(times=times, p10=low, p50=median, p90=high, id=item.id))
        return predictions

    def score(self, prediction: Prediction, ground_truth: GroundTruth) -> float:
        """Return the median's mean absolute error in units of the series' change between seasons,
        over the steps with actual values. ValueError for an impossible ground truth."""
        actual_steps, steps = len(ground_truth.values), len(prediction.p50)
        if actual_steps > steps:
            raise ValueError(f"values: got {actual_steps}, but only {steps} steps were forecast")
        if prediction.id is None and len(self.series) > 1:
            raise ValueError("id: the forecast does not name its series")
        key = next(iter(self.series)) if prediction.id is None else prediction.id
        if key not in self.series:
            raise ValueError(f"id: {key[:40]!r} is not a series of this model")
        actual = self.scaled_actual(ground_truth, key)
        median = self.scaled(np.array(prediction.p50[:actual_steps]), key)
        return float(np.abs(median - actual).mean())

    def scaled_actual(self, ground_truth: GroundTruth, key: str) -> np.ndarray:
        """Scale actual values, float32 (n,); ValueError if they are far outside training's."""
        try:
            return self._scaled_in_range(ground_truth.values, key)
        except ValueError as error:
            raise ValueError(f"values: {error}") from None

    def origin(self, item: Item) -> int:
        """Return the newest time of an item in seconds."""
        # In an hour that clocks repeat, the time before tells which pass it is.
        moments = [datetime.fromisoformat(text) for text in item.times[-2:]]
        return int(clock.to_seconds(moments, self.zone)[-1])

    def features(self, inputs: Arrays) -> Arrays:
        """Return statistics (item,) of the scaled history: level, spread, change between the last
        two seasons, distance of these seasons, roughness."""
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
        """Return the mean forecast and the mean width of the interval (item,), scaled."""
        low, median, high = np.moveaxis(outputs["quantiles"].astype(np.float64), 2, 0)
        return {"forecast": median.mean(axis=1), "interval": (high - low).mean(axis=1)}

    def _series_key(self, index: int, item: Item) -> str:
        if item.id is None and len(self.series) == 1:
            return next(iter(self.series))
        if item.id is None:
            raise InvalidItem(index, "id", f"is required: this model has {len(self.series)} series")
        if item.id not in self.series:
            names = ", ".join(list(self.series)[:5])
            reason = f"{item.id[:40]!r} is not a series of this model ({names})"
            raise InvalidItem(index, "id", reason)
        return item.id

    def _window_times(self, index: int, item: Item) -> np.ndarray:
        """Check that times are regular; return the window's and the steps ahead, in seconds."""
        if len(item.times) < self.window:
            reason = f"got {len(item.times)}, this model needs the last {self.window}"
            raise InvalidItem(index, "times", reason)
        skipped = len(item.times) - self.window
        try:
            moments = clock.parse_times(item.times[skipped:])
            if self.zone is None and self.offsets != (moments[0].tzinfo is not None):
                kind = "no" if self.offsets else "a"
                raise clock.BadTime(0, f"has {kind} UTC offset, unlike the times in training")
            past = clock.to_seconds(moments, self.zone)
        except clock.BadTime as error:
            place = f"entry {skipped + error.position}: {error}"
            raise InvalidItem(index, "times", place) from None
        irregular = self.frequency.irregular(past)
        if irregular.any():
            wrong = int(np.argmax(irregular))
            entry, span = skipped + wrong + 1, clock.span_name(int(past[wrong + 1] - past[wrong]))
            reason = (
                f"entry {entry}: {item.times[entry]} is {span} after the entry before, this model "
                f"needs steps of {self.frequency.name}"
            )
            raise InvalidItem(index, "times", reason)
        ahead = self.frequency.after(past[-1], np.arange(1, self.horizon + 1))
        return np.concatenate([past, ahead])

    def _scaled_history(self, index: int, item: Item, key: str) -> np.ndarray:
        try:
            if len(item.values) != len(item.times):
                raise ValueError(f"got {len(item.values)} for {len(item.times)} times")
            return self._scaled_in_range(item.values[-self.window :], key)
        except ValueError as error:
            raise InvalidItem(index, "values", str(error)) from None

    def _scaled_in_range(self, numbers: list[float], key: str) -> np.ndarray:
        values = np.array(numbers)
        with np.errstate(over="ignore"):
            scaled = self.scaled(values, key)
        if not (np.abs(scaled) < MAX_SCALED).all():
            worst = values[np.argmax(np.abs(values))]
            raise ValueError(f"{worst:g} is far outside the training data")
        return scaled

    def _item_covariates(self, index: int, item: Item) -> np.ndarray:
        """Return the covariates (window + horizon, name) of an item, unscaled."""
        names = [covariate.name for covariate in self.covariates]
        for name in item.covariates:
            if name not in names:
                reason = f"{name[:40]!r} is not a covariate of this model ({', '.join(names)})"
                raise InvalidItem(index, "covariates", reason)
        columns = np.empty((self.window + self.horizon, len(names)))
        for column, covariate in enumerate(self.covariates):
            values, count = item.covariates.get(covariate.name, []), len(item.times)
            ahead = 0 if covariate.past_only else self.horizon
            if len(values) != count + ahead:
                more = f" and {ahead} ahead" if ahead else "; its future is not used"
                reason = (
                    f"{covariate.name}: got {len(values)}, expected {count + ahead}: one for each "
                    f"time{more}"
                )
                raise InvalidItem(index, "covariates", reason)
            columns[:, column] = covariate.center
            columns[: self.window + ahead, column] = values[count - self.window :]
            distance = np.abs(columns[:, column] - covariate.center)
            if not (distance < MAX_SCALED * covariate.spread).all():
                reason = f"{covariate.name}: is far outside the training data"
                raise InvalidItem(index, "covariates", reason)
        return columns
