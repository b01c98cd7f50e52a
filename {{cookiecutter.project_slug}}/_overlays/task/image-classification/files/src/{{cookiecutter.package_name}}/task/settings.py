"""Settings of image classification."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..settings import Section, setting


class DataSettings(Section):
    """The images and their splits."""

    source: Literal["digits", "mnist5k", "mnist", "folder"] = Field(
        default="digits",
        description="digits: built in, no download; mnist5k: 5,000 of MNIST's images (extra: "
        "mnist); mnist: IDX files; folder: <class>/<image>",
    )
    path: Path | None = Field(default=None, description="mnist, folder: the data's folder")
    size: int = Field(default=28, ge=4, le=512, description="folder: resize images to size × size")
    color: bool = Field(default=False, description="folder: RGB instead of grey")
    folds: int = Field(default=5, ge=3, le=100, description="folds; one tests, one validates")
    test_fold: int = Field(default=4, ge=0, description="the test fold; the one before validates")
    memory_mb: int = setting(
        500, "folder: images of more MB (float32) are read from data.cache in training", ge=0
    )
    cache: Path | None = setting(
        Path("data/.cache"), "folder: keeps many images decoded, may be deleted; null: never kept"
    )
    workers: int | None = setting(
        None, "folder: threads that decode; null: one per core, at most 8", ge=1, le=256
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source in ("mnist", "folder") and self.path is None:
            raise ValueError(f"source={self.source} needs data.path=<folder>")
        if self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """A convolutional network whose blocks double the channels, or a pretrained network."""

    width: int = Field(default=24, ge=1, le=1024, description="channels of the first block")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="dropout rate")
    pretrained: str | None = Field(
        default=None,
        description="folder or hub id in Hugging Face's format (extra: pretrained); of the "
        "settings above only dropout is used then",
    )
    frozen: Annotated[int, Field(ge=0, le=200)] | Literal["all"] = Field(
        default=0,
        description="pretrained: freeze this many first stages, or all but the last layer",
    )


class ObjectiveSettings(Section):
    """The loss and the augmentation of training images."""

    label_smoothing: float = Field(default=0.05, ge=0, lt=1, description="of the cross entropy")
    rotate: float = Field(default=12.0, ge=0, le=180, description="augmentation: rotate, ± degrees")
    shift: float = Field(default=1.0, ge=0, description="augmentation: shift, ± pixels")
    scale: float = Field(default=0.12, ge=0, lt=1, description="augmentation: scale, ± share")


class Settings(BaseSettings):
    """All settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
