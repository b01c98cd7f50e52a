"""Settings of text classification."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..settings import Section, TrainSettings


class DataSettings(Section):
    """Which texts, how they are split, how they become tokens."""

    source: Literal["docstrings", "csv"] = Field(
        default="docstrings",
        description="docstrings: of installed libraries, no download; csv: a CSV or JSONL file",
    )
    libraries: list[str] = Field(
        default=["numpy", "scipy", "sklearn", "pandas", "statsmodels"],
        min_length=1,
        description="docstrings: packages whose sources are read",
    )
    unseen: str | None = Field(
        default="numpy",
        description="docstrings: library kept out of training and test, measured apart",
    )
    cache: Path = Field(
        default=Path("data/docstrings"), description="docstrings: what was read is kept here"
    )
    path: Path | None = Field(default=None, description="csv: the file; .jsonl is read as JSONL")
    test_path: Path | None = Field(default=None, description="csv: a file of its own for test")
    header: list[str] = Field(
        default=[], description="csv: names of the columns of a file without a header line"
    )
    text: list[str] = Field(default=["text"], min_length=1, description="csv: columns, joined")
    label: str = Field(default="label", description="csv: column of the class")
    names: dict[str, str] = Field(
        default={}, description="csv: class as in the file → name, for example data.names.1=World"
    )
    split: str | None = Field(
        default=None, description="csv: column that says train, validation or test"
    )
    conflicts: Literal["refuse", "drop"] = Field(
        default="refuse", description="csv: what to do with one text in two classes"
    )
    validation_share: float = Field(
        default=0.12, gt=0, le=0.5, description="of the files or texts, by their hash"
    )
    test_share: float = Field(
        default=0.25, gt=0, le=0.5, description="of the files or texts, by their hash"
    )
    limit: int | None = Field(
        default=None, ge=10, description="use at most so many texts of each part, for a quick try"
    )
    tokens: int = Field(default=64, ge=4, le=4096, description="longer texts are cut")
    vocabulary: int = Field(default=6000, ge=300, le=200_000, description="tokens to learn")
    tokenizer: str | None = Field(
        default=None, description="a folder with tokenizer.json, or a hub id, instead of learning"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source == "csv" and self.path is None:
            raise ValueError("source=csv needs data.path=<file>")
        if self.unseen is not None and self.libraries == [self.unseen]:
            raise ValueError("unseen names the only library, none is left to train on")
        if len(set(self.libraries)) < len(self.libraries):
            raise ValueError("every library may stand only once")
        return self


class ModelSettings(Section):
    """A transformer encoder of our own, or a pretrained one."""

    width: int = Field(default=96, ge=8, le=4096, multiple_of=8, description="of a token's vector")
    layers: int = Field(default=2, ge=1, le=48, description="blocks of attention and feed-forward")
    heads: int = Field(default=4, ge=1, le=64, description="attention heads, they divide the width")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="share dropped in training")
    pretrained: str | None = Field(
        default=None,
        description="a folder or hub id in Hugging Face's format (extra: pretrained); the settings "
        "above but dropout then do not count",
    )
    frozen: int = Field(
        default=0,
        ge=0,
        le=200,
        description="pretrained: keep the embeddings and so many of the first layers as they are",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
        return self


class Pretrain(Section):
    """Masked language modelling before the training itself, on texts without labels."""

    epochs: int = Field(default=2, ge=0, description="passes over the texts; 0: from scratch")
    batch_size: int = Field(default=32, ge=1, description="texts per step")
    lr: float = Field(default=3e-3, gt=0, le=10, description="peak of the one-cycle schedule")
    masked: float = Field(default=0.2, gt=0, lt=1, description="share of tokens to be guessed")


class ObjectiveSettings(Section):
    """The loss."""

    label_smoothing: float = Field(
        default=0.05, ge=0, lt=1, description="share of target spread out"
    )
    hidden: float = Field(
        default=0.1, ge=0, lt=1, description="share of tokens replaced by the mask in training"
    )


class TextTrain(TrainSettings):
    """How the classifier is trained."""

    epochs: int = Field(default=5, ge=1, description="passes over the training split")
    lr: float = Field(default=2.5e-3, gt=0, le=10, description="peak of the one-cycle schedule")


class Settings(BaseSettings):
    """Everything that can be set."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    pretrain: Pretrain = Pretrain()
    objective: ObjectiveSettings = ObjectiveSettings()
    train: TrainSettings = TextTrain()

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_the_encoder(cls, given: Any) -> Any:
        """A pretrained encoder reads the tokens of its own tokenizer only."""
        model = given.get("model") if isinstance(given, dict) else None
        if isinstance(model, dict) and model.get("pretrained"):
            data = dict(given.get("data") or {})
            data.setdefault("tokenizer", model["pretrained"])
            data["tokenizer"] = data["tokenizer"] or model["pretrained"]
            return {**given, "data": data}
        return given
