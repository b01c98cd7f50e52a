"""Settings of forecasting."""

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from ..base_settings import BaseSettings
from ..settings import Section, TrainSettings

Name = Annotated[str, Field(min_length=1)]


class DataSettings(Section):
    """Which series, what of them is seen, and how they are split by time."""

    path: Path | None = Field(default=None, description="a CSV file; without one Victoria's demand")
    separator: str = Field(default=",", min_length=1, max_length=1, description="between cells")
    time: Name = Field(default="time", description="column of ISO 8601 times, in regular steps")
    target: Name = Field(default="demand_gw", description="column that is forecast")
    covariates: list[Name] = Field(
        default=[], max_length=50, description="columns that are known beyond the present"
    )
    id: Name | None = Field(default=None, description="column that tells several series apart")
    timezone: str | None = Field(
        default=None,
        description="zone of times without UTC offset and of the calendar, for example "
        "Europe/Berlin; without one times are taken as they stand",
    )
    horizon: int = Field(default=24, ge=1, le=1000, description="steps that are forecast")
    seasons: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default=[24, 168],
        min_length=1,
        max_length=2,
        description="steps of each season, the shorter first; the last one is the reference",
    )
    window: int = Field(
        default=216, ge=8, le=10_000, description="past steps that are seen, a season at least"
    )
    test_share: float = Field(
        default=0.15, gt=0, lt=0.5, description="share of the time, at its end, to test on"
    )
    validation_share: float = Field(
        default=0.12, gt=0, lt=0.5, description="share of the time, in blocks, to validate on"
    )
    validation_blocks: int = Field(
        default=4, ge=1, le=50, description="validation blocks spread over the time before the test"
    )
    stride: int = Field(default=1, ge=1, description="steps between two training windows")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None else ZoneInfo(value).key
        except (ValueError, OSError, KeyError):
            raise ValueError("is no time zone known here, give one like Europe/Berlin") from None

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.seasons != sorted(set(self.seasons)):
            raise ValueError("seasons must be given in ascending order, each once")
        if self.window < self.seasons[-1]:
            raise ValueError(f"window={self.window} must hold a season of {self.seasons[-1]}")
        columns = [self.time, self.target, *self.covariates, *([self.id] if self.id else [])]
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the column {twice!r} cannot serve twice")
        return self


class ModelSettings(Section):
    """A network on patches of steps; `kind` says what goes over the patches."""

    kind: Literal["lstm", "transformer"] = Field(
        default="lstm", description="recurrent, or attention over all patches"
    )
    width: int = Field(default=64, ge=4, le=2048, multiple_of=4, description="channels of a patch")
    layers: int = Field(default=1, ge=1, le=24, description="LSTM layers or Transformer blocks")
    heads: int = Field(default=4, ge=1, le=64, description="attention heads (transformer)")
    patch: int = Field(default=4, ge=1, le=64, description="steps that make one patch")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="share dropped in training")

    @model_validator(mode="after")
    def _divides(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class ObjectiveSettings(Section):
    """The loss is the mean pinball loss of the quantiles; this weighs the median against them."""

    median_weight: float = Field(
        default=1.0, gt=0, le=100, description="weight of the median, the outer quantiles having 1"
    )


class Settings(BaseSettings):
    """Everything that can be set."""

    train: TrainSettings = TrainSettings(epochs=5, lr=1e-3)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
