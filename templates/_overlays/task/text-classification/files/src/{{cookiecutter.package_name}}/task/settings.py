"""Settings of text classification."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..config import Search
from ..settings import Section, TrainSettings
from .table_settings import TableSettings, with_old_keys


class DataSettings(Section):
    """The texts, their splits and their tokens."""

    source: Literal["docstrings", "csv"] = Field(
        default="docstrings",
        description="docstrings: of installed libraries, no download; csv: a table",
    )
    libraries: list[str] = Field(
        default=["numpy", "scipy", "sklearn", "pandas", "statsmodels"],
        min_length=1,
        description="docstrings: installed packages to read",
    )
    unseen: str | None = Field(
        default="numpy", description="docstrings: library evaluated separately, not trained on"
    )
    cache: Path = Field(default=Path("data/docstrings"), description="docstrings: cache folder")
    path: Path | None = Field(default=None, description="csv: the file, CSV, JSON or Parquet")
    test_path: Path | None = Field(default=None, description="csv: a separate test file")
    table: TableSettings = TableSettings()
    text: list[str] = Field(default=["text"], min_length=1, description="csv: text columns, joined")
    label: str = Field(default="label", description="csv: column of the class")
    names: dict[str, str] = Field(
        default={}, description="csv: class in the file → its name, for example data.names.1=World"
    )
    split: str | None = Field(default=None, description="csv: column with train/validation/test")
    conflicts: Literal["refuse", "drop"] = Field(
        default="refuse", description="csv: what to do with texts that are in two classes"
    )
    empty: Literal["refuse", "drop"] = Field(
        default="refuse", description="csv: what to do with rows without text or class"
    )
    label_separator: str | None = Field(
        default=None,
        min_length=1,
        description="csv: mark between several labels in a cell; such rows are left out, as a text "
        "has one class",
    )
    validation_share: float = Field(
        default=0.12, gt=0, le=0.5, description="validation share of the files or texts, by hash"
    )
    test_share: float = Field(
        default=0.25, gt=0, le=0.5, description="test share of the files or texts, by hash"
    )
    folds: int = Field(default=5, ge=2, le=100, description="folds that data.test_fold counts")
    test_fold: int | None = Field(
        default=None, ge=0, description="test on this fold instead of data.test_share"
    )
    limit: int | None = Field(default=None, ge=10, description="maximum texts per split")
    tokens: int = Field(
        default=64, ge=4, le=4096, description="maximum length; longer texts are cut"
    )
    vocabulary: int = Field(default=6000, ge=300, le=200_000, description="of a trained tokenizer")
    tokenizer: str | None = Field(
        default=None, description="folder with tokenizer.json, or a hub id, instead of training one"
    )

    @model_validator(mode="before")
    @classmethod
    def _old_keys(cls, raw: Any) -> Any:
        return with_old_keys(raw, header="header")

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source == "csv" and self.path is None:
            raise ValueError("source=csv needs data.path=<file>")
        if self.unseen is not None and self.libraries == [self.unseen]:
            raise ValueError("unseen is the only library, none is left to train on")
        if len(set(self.libraries)) < len(self.libraries):
            raise ValueError("libraries must be unique")
        if self.test_fold is not None and self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """Our own transformer encoder, or a pretrained one."""

    width: Annotated[int, Search(choices=(64, 96, 128))] = Field(
        default=96, ge=8, le=4096, multiple_of=8, description="token embedding size"
    )
    layers: Annotated[int, Search(choices=(1, 2, 3))] = Field(
        default=2, ge=1, le=48, description="transformer blocks"
    )
    heads: int = Field(default=4, ge=1, le=64, description="attention heads; must divide the width")
    dropout: Annotated[float, Search(0.0, 0.4)] = Field(
        default=0.1, ge=0, lt=1, description="dropout rate"
    )
    ngrams: int = Field(
        default=0,
        ge=0,
        le=5,
        description="longest n-gram of tokens for a logistic regression on TF-IDF that is blended "
        "in; 0: none",
    )
    pretrained: str | None = Field(
        default=None,
        description="folder or hub id in Hugging Face's format (extra: pretrained); of the "
        "settings above only dropout and ngrams are used then",
    )
    frozen: int = Field(
        default=0, ge=0, le=200, description="pretrained: freeze embeddings, this many first layers"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
        return self


class PretrainSettings(Section):
    """Masked language modelling on unlabelled texts, before the training."""

    epochs: int = Field(default=2, ge=0, description="passes over the texts; 0: from scratch")
    batch_size: int = Field(default=32, ge=1, description="texts per step")
    lr: float = Field(default=3e-3, gt=0, le=10, description="peak of the one-cycle schedule")
    masked: float = Field(default=0.2, gt=0, lt=1, description="share of tokens to predict")


class ObjectiveSettings(Section):
    """The loss and the augmentation."""

    label_smoothing: Annotated[float, Search(0.0, 0.2)] = Field(
        default=0.05, ge=0, lt=1, description="of the cross entropy"
    )
    hidden: Annotated[float, Search(0.0, 0.3)] = Field(
        default=0.1, ge=0, lt=1, description="augmentation: masked token share"
    )


class TextTrainSettings(TrainSettings):
    """The training of the classifier."""

    epochs: int = Field(default=5, ge=1, description="passes over the training split")
    lr: float = Field(default=2.5e-3, gt=0, le=10, description="peak of the one-cycle schedule")


class Settings(BaseSettings):
    """All settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    pretrain: PretrainSettings = PretrainSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    train: TrainSettings = TextTrainSettings()

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_the_encoder(cls, raw: Any) -> Any:
        """Use a pretrained encoder's own tokenizer: it understands no other."""
        model = raw.get("model") if isinstance(raw, dict) else None
        if isinstance(model, dict) and model.get("pretrained"):
            data = dict(raw.get("data") or {})
            data["tokenizer"] = data.get("tokenizer") or model["pretrained"]
            return {**raw, "data": data}
        return raw
