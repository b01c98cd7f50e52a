"""A request's item, its prediction, and what turned out to be right about it, as JSON."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_HISTORY = 20_000  # entries of a request; only the newest `window` are used

Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Item(BaseModel):
    """The recent past of one series, and how many steps to forecast."""

    model_config = ConfigDict(extra="forbid")

    # fail_fast: a body full of invalid values must not cost more than one.
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
        max_length=100,
        description="for each covariate one value per time and, if it is known ahead, per step "
        "ahead",
    )
    horizon: int | None = Field(
        default=None, ge=1, description="steps to forecast; by default as many as in training"
    )
    id: str | None = Field(default=None, max_length=200, description="the series, if several")
    target: str | None = Field(
        default=None, max_length=200, description="what the values are; refused if it is another"
    )


class Prediction(BaseModel):
    """The time and the quantiles of each step ahead."""

    times: list[str]
    p10: list[float]
    p50: list[float]
    p90: list[float]
    id: str | None = None  # the series, as in the request


class GroundTruth(BaseModel):
    """The actual values that followed an item."""

    model_config = ConfigDict(extra="forbid")

    values: list[Number] = Field(
        min_length=1,
        max_length=MAX_HISTORY,
        fail_fast=True,
        description="the actual values of the forecast steps, from the first",
    )
