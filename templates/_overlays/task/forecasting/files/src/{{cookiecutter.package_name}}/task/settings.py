"""Settings of forecasting."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from ..base_settings import BaseSettings
from ..config import Search
from ..settings import Section, TrainSettings
from .table_settings import TableSettings, with_old_keys

FREQUENCIES = r"auto|rows|[1-9]\d{0,5}(s|min|h)|h|([1-9]\d{0,3})?[DW]|B|[MQY][SE]"
NonEmpty = Annotated[str, Field(min_length=1)]


class DataSettings(Section):
    """The series, the window and the splits by time."""

    path: Path | None = Field(
        default=None, description="CSV, JSON or Parquet; by default Victoria's demand"
    )
    table: TableSettings = TableSettings()
    time: NonEmpty = Field(default="time", description="column of times")
    target: NonEmpty = Field(default="demand_gw", description="column to forecast")
    covariates: list[NonEmpty] = Field(
        default=[], max_length=50, description="columns whose future values are known in advance"
    )
    past_covariates: list[NonEmpty] = Field(
        default=[], max_length=50, description="columns known up to the start of a forecast only"
    )
    static: list[NonEmpty] = Field(
        default=[], max_length=50, description="columns, numbers or words, constant in each series"
    )
    id: NonEmpty | None = Field(default=None, description="column with the name of the series")
    frequency: str = Field(
        default="auto",
        pattern=f"^({FREQUENCIES})$",
        description="step of the times: auto, or such as 15min, h, D, W, B (Monday to Friday), "
        "MS, ME, QS, QE, YS, YE (start or end of month, quarter, year); rows: each row is a step",
    )
    holidays: list[date] = Field(
        default=[], max_length=10_000, description="days without a row, future ones too"
    )
    special_days: list[date] = Field(
        default=[],
        max_length=10_000,
        description="dates unlike others of their weekday, such as public holidays, future ones "
        "too; steps of at most a day",
    )
    gaps: Literal["refuse", "interpolate", "seasonal"] = Field(
        default="refuse",
        description="missing rows and empty cells: refused, or filled linearly or with the value "
        "one season before",
    )
    max_gap: int = Field(default=6, ge=1, description="longest gap to fill, in steps")
    unusable: Literal["refuse", "skip"] = Field(
        default="refuse", description="series that are too short, constant or broken, among others"
    )
    timezone: str | None = Field(
        default=None,
        description="time zone of times without UTC offset and of the calendar, for example "
        "Europe/Berlin; by default times are taken as they are",
    )
    horizon: int = Field(default=24, ge=1, le=1000, description="steps to forecast")
    seasons: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default=[24, 168],
        min_length=1,
        max_length=2,
        description="steps per season, ascending; forecasts are relative to the last",
    )
    window: int = Field(
        default=216, ge=8, le=10_000, description="past steps the network sees, at least a season"
    )
    test_share: float = Field(
        default=0.15, gt=0, lt=0.5, description="share of the time, at its end, for the test"
    )
    validation_share: float = Field(
        default=0.12, gt=0, lt=0.5, description="share of the time, in blocks, for validation"
    )
    validation_blocks: int = Field(
        default=4, ge=1, le=50, description="blocks before the test, fewer if the series is short"
    )
    stride: int = Field(default=1, ge=1, description="steps between training windows")
    folds: int = Field(default=5, ge=2, le=100, description="test blocks of a rolling origin")
    test_fold: int | None = Field(
        default=None,
        ge=0,
        description="test on this block of the rolling origin and leave later steps out",
    )

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, raw: Any) -> Any:
        return with_old_keys(raw, separator="separator")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None else ZoneInfo(value).key
        except (ValueError, OSError, KeyError):
            raise ValueError("is not a known time zone, use one like Europe/Berlin") from None

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.seasons != sorted(set(self.seasons)):
            raise ValueError("seasons must be unique and ascending")
        if self.test_fold is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        if self.window < self.seasons[-1]:
            season = f"the season {self.seasons[-1]}"
            raise ValueError(
                f"window={self.window} must not be shorter than {season}; seasons are in steps: "
                "raise window, or set seasons that fit, [12] for monthly data"
            )
        if self.static and self.id is None:
            raise ValueError("static columns tell series apart: name the series' column in id")
        columns = [self.time, self.target, *self.covariates, *self.past_covariates, *self.static]
        columns += [self.id] if self.id else []
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the column {twice!r} is used twice")
        return self


class ModelSettings(Section):
    """A network on patches of consecutive steps."""

    kind: Literal["lstm", "transformer"] = Field(
        default="lstm", description="recurrent network, or attention over all patches"
    )
    width: Annotated[int, Search(choices=(32, 64, 96))] = Field(
        default=64, ge=4, le=2048, multiple_of=4, description="patch embedding size"
    )
    layers: int = Field(default=1, ge=1, le=24, description="LSTM layers or transformer blocks")
    heads: int = Field(default=4, ge=1, le=64, description="attention heads (transformer)")
    patch: Annotated[int, Search(choices=(2, 4, 8))] = Field(
        default=4, ge=1, le=64, description="steps per patch"
    )
    dropout: Annotated[float, Search(0.0, 0.5)] = Field(
        default=0.3, ge=0, lt=1, description="dropout rate"
    )
    smoothing: bool = Field(
        default=True, description="blend in exponential smoothing; its weight is from validation"
    )

    @model_validator(mode="after")
    def _divides(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class ObjectiveSettings(Section):
    """The loss: the mean pinball loss of the quantiles."""

    median_weight: Annotated[float, Search(0.5, 4.0, log=True)] = Field(
        default=1.0, gt=0, le=100, description="weight of the median; the outer quantiles have 1"
    )


class Settings(BaseSettings):
    """All settings."""

    train: TrainSettings = TrainSettings(epochs=5, lr=1e-3)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
