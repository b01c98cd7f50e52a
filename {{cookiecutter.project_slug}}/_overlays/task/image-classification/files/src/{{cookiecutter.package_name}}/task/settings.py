"""Settings of image classification."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ..base_settings import BaseSettings
from ..settings import Section


class DataSettings(Section):
    """Which images, and how they are split."""

    source: Literal["digits", "mnist", "folder"] = Field(
        default="digits",
        description="digits: no download; mnist: IDX files; folder: <class>/<image>",
    )
    path: Path | None = Field(default=None, description="folder of the data (mnist and folder)")
    size: int = Field(default=28, ge=4, le=512, description="folder: scale to size × size")
    color: bool = Field(default=False, description="folder: keep red, green and blue")
    folds: int = Field(default=5, ge=3, le=100, description="parts the data is cut into")
    test_fold: int = Field(
        default=4,
        ge=0,
        description="the test part; the one before it validates",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source != "digits" and self.path is None:
            raise ValueError(f"source={self.source} needs data.path=<folder>")
        if self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """Two convolution blocks; `width` and twice that many channels."""

    width: int = Field(default=24, ge=1, le=1024, description="channels of the first block")
    dropout: float = Field(default=0.3, ge=0, lt=1, description="share dropped in training")


class ObjectiveSettings(Section):
    """The loss, and the small changes of an image that do not change its class."""

    label_smoothing: float = Field(
        default=0.05, ge=0, lt=1, description="share of target spread out"
    )
    rotate: float = Field(default=12.0, ge=0, le=180, description="augmentation: up to ± degrees")
    shift: float = Field(default=1.0, ge=0, description="augmentation: up to ± pixels")
    scale: float = Field(default=0.12, ge=0, lt=1, description="augmentation: up to ± share")


class Settings(BaseSettings):
    """Everything that can be set."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
