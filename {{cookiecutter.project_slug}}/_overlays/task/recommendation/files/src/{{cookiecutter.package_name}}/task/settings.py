"""Settings of recommendation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..settings import Section, TrainSettings

Name = Annotated[str, Field(min_length=1)]

# Large, everyday Python libraries that training needs anyway, so the default data is the same
# whatever else an environment holds.
LIBRARIES = [
    *("alembic", "anyio", "click", "cryptography", "databricks-sdk", "fastapi", "filelock"),
    *("fonttools", "fsspec", "gitpython", "google-auth", "jinja2", "mako", "matplotlib"),
    *("mlflow-skinny", "mpmath", "networkx", "numpy", "onnx", "onnx-ir", "onnxruntime"),
    *("onnxscript", "opentelemetry-sdk", "pillow", "prometheus-client", "protobuf", "pydantic"),
    *("requests", "sqlalchemy", "starlette", "sympy", "torch", "tqdm", "urllib3", "uvicorn"),
]


class DataSettings(Section):
    """Who took what, and how users are split."""

    source: Literal["imports", "movielens", "csv"] = Field(
        default="imports",
        description="imports: modules that source files import, no download; movielens; csv",
    )
    path: Path | None = Field(
        default=None,
        description="movielens: folder or file (u.data, ratings.dat, ratings.csv); csv: file",
    )
    libraries: list[Name] = Field(
        default=LIBRARIES,
        description="imports: installed libraries that are read beside the standard library",
    )
    cache: Path = Field(
        default=Path("data"), description="imports: folder that keeps what was read"
    )
    user: Name = Field(default="user", description="csv: column of the user")
    item: Name = Field(default="item", description="csv: column of the item")
    time: Name | None = Field(default=None, description="csv: column of the time, if there is one")
    rating: Name | None = Field(default=None, description="csv: column of the rating, if any")
    min_rating: float | None = Field(
        default=None, allow_inf_nan=False, description="lower ratings do not count; none: all do"
    )
    core: int = Field(
        default=5, ge=3, le=1000, description="fewest items of a user, and users of an item"
    )
    longest: int = Field(
        default=500, ge=10, le=1000, description="of a user's items the last so many are kept"
    )
    folds: int = Field(default=5, ge=3, le=100, description="parts that the users are cut into")
    test_fold: int = Field(
        default=4, ge=0, description="the test users; the part before it validates"
    )
    warm: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="share of training users who are tested too, by items hidden from training",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source != "imports" and self.path is None:
            raise ValueError(f"source={self.source} needs data.path=<file>")
        if self.source == "csv" and self.min_rating is not None and self.rating is None:
            raise ValueError("min_rating needs data.rating=<column>")
        if self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """The network: a table of item vectors, used on both sides, and one layer between."""

    width: int = Field(default=384, ge=1, le=4096, description="numbers per item")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="share dropped in training")
    blend: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="weight of EDLAE's scores beside the network's own; 0: none",
    )


class ObjectiveSettings(Section):
    """In training the network sees a random part of a user's items and is to name them all."""

    keep_least: float = Field(default=0.4, gt=0, le=1, description="smallest share that it sees")
    keep_most: float = Field(default=0.8, gt=0, le=1, description="largest share that it sees")
    kept_weight: float = Field(
        default=0.5, ge=0, le=1, description="what naming an item that it sees counts"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ObjectiveSettings":
        if self.keep_least > self.keep_most:
            raise ValueError("keep_least must not exceed keep_most")
        return self


class Training(TrainSettings):
    """The shared settings with defaults for this task."""

    epochs: int = Field(default=50, ge=1, description="passes over the training split")
    batch_size: int = Field(default=128, ge=1, description="users per step")
    lr: float = Field(default=3e-3, gt=0, le=10, description="peak of the one-cycle schedule")
    # What is blended in makes the first epochs look good while the rate still climbs: no early end.
    patience: int = Field(default=50, ge=1, description="stop after so many epochs without gain")


class Settings(BaseSettings):
    """Everything that can be set."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    train: Training = Training()  # pyright: ignore[reportIncompatibleVariableOverride]
