"""Settings of recommendation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..config import Search
from ..settings import Section, TrainSettings
from .table_settings import TableSettings

NonEmpty = Annotated[str, Field(min_length=1)]

# Large Python libraries that training needs anyway, so the default data does not depend on what
# else is installed.
LIBRARIES = [
    *("alembic", "anyio", "click", "cryptography", "databricks-sdk", "fastapi", "filelock"),
    *("fonttools", "fsspec", "gitpython", "google-auth", "jinja2", "mako", "matplotlib"),
    *("mlflow-skinny", "mpmath", "networkx", "numpy", "onnx", "onnx-ir", "onnxruntime"),
    *("onnxscript", "opentelemetry-sdk", "pillow", "prometheus-client", "protobuf", "pydantic"),
    *("requests", "sqlalchemy", "starlette", "sympy", "torch", "tqdm", "urllib3", "uvicorn"),
]


class DataSettings(Section):
    """The interactions and their splits."""

    source: Literal["imports", "movielens", "csv"] = Field(
        default="imports",
        description="imports: what source files import, no download; movielens; csv: any table",
    )
    path: Path | None = Field(
        default=None,
        description="movielens: folder or file (u.data, ratings.dat, ratings.csv); csv: file",
    )
    table: TableSettings = TableSettings()
    libraries: list[NonEmpty] = Field(
        default=LIBRARIES, description="imports: libraries to read besides the standard library"
    )
    cache: Path = Field(default=Path("data"), description="imports: cache folder")
    user: NonEmpty = Field(default="user", description="csv: column of the user")
    item: NonEmpty = Field(default="item", description="csv: column of the item")
    time: NonEmpty | None = Field(default=None, description="csv: column of the time, if any")
    rating: NonEmpty | None = Field(default=None, description="csv: column of the rating, if any")
    title: NonEmpty | None = Field(
        default=None,
        description="csv: column of the item's title, if any; in `titles` if it is set",
    )
    titles: Path | None = Field(
        default=None, description="csv: another file with the columns of the item and its title"
    )
    min_rating: float | None = Field(
        default=None, allow_inf_nan=False, description="ignore lower ratings; by default all count"
    )
    repeats: Literal["last", "first", "max", "mean"] = Field(
        default="last", description="which of several ratings of an item by one user counts"
    )
    missing: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="rows without user, item, rating or time: refuse, or skip them",
    )
    core: int = Field(default=5, ge=3, le=1000, description="fewest items per user, users per item")
    longest: int = Field(default=500, ge=10, le=1000, description="last items of a user to keep")
    split: Literal["users", "time"] = Field(
        default="users",
        description="users: test other users than those of training; time: test what came later",
    )
    newest: float = Field(
        default=0.1,
        gt=0,
        le=0.4,
        description="split=time: share of interactions, the newest, that test; as many validate",
    )
    folds: int = Field(default=5, ge=3, le=100, description="folds; one tests, one validates")
    test_fold: int | None = Field(
        default=None,
        ge=0,
        description="the test fold, by default the last; the one before validates",
    )
    warm: float = Field(
        default=0.1, ge=0, le=0.5, description="share of training users tested on held-out items"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source != "imports" and self.path is None:
            raise ValueError(f"source={self.source} needs data.path=<file>")
        if self.source == "csv" and self.min_rating is not None and self.rating is None:
            raise ValueError("min_rating needs data.rating=<column>")
        if self.titles is not None and self.title is None:
            raise ValueError("titles needs data.title=<column of that file>")
        if self.split == "time" and self.source == "imports":
            raise ValueError("split=time needs times, which source=imports has not")
        if self.split == "time" and self.source == "csv" and self.time is None:
            raise ValueError("split=time needs data.time=<column>")
        if self.test_fold is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """The network: item vectors, used for inputs and outputs, and one hidden layer."""

    width: Annotated[int, Search(choices=(192, 384, 512))] = Field(
        default=384, ge=1, le=4096, description="length of an item's vector"
    )
    dropout: Annotated[float, Search(0.0, 0.6)] = Field(
        default=0.3, ge=0, lt=1, description="dropout rate"
    )
    blend: float = Field(
        default=0.0, ge=0, le=100, description="weight of EDLAE's scores, added; 0: none"
    )
    neighbours: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="weight of what the nearest training users have, added; 0: none",
    )
    members: int = Field(
        default=1, ge=1, le=20, description="networks trained together; their mean predicts"
    )


class ObjectiveSettings(Section):
    """The loss: predict all of a user's items from a random part of them."""

    keep_least: Annotated[float, Search(0.2, 0.6)] = Field(
        default=0.4, gt=0, le=1, description="smallest share of items seen"
    )
    keep_most: Annotated[float, Search(0.6, 1.0)] = Field(
        default=0.8, gt=0, le=1, description="largest share of items seen"
    )
    kept_weight: Annotated[float, Search(0.0, 1.0)] = Field(
        default=0.5, ge=0, le=1, description="weight of items that the network sees; others have 1"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "ObjectiveSettings":
        if self.keep_least > self.keep_most:
            raise ValueError("keep_least must not exceed keep_most")
        return self


class RecommendationTrainSettings(TrainSettings):
    """The training, with defaults for this task."""

    epochs: int = Field(default=50, ge=1, description="passes over the training split")
    batch_size: Annotated[int, Search(choices=(64, 128, 256))] = Field(
        default=128, ge=1, description="users per step"
    )
    lr: Annotated[float, Search(5e-4, 2e-2, log=True)] = Field(
        default=3e-3, gt=0, le=10, description="peak of the one-cycle schedule"
    )
    # No early stopping: the blend makes early epochs look good while the rate is still rising.
    patience: int = Field(default=50, ge=1, description="epochs without improvement before a stop")


class Settings(BaseSettings):
    """All settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    train: RecommendationTrainSettings = RecommendationTrainSettings()  # pyright: ignore[reportIncompatibleVariableOverride]
