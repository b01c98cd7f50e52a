"""Settings of image classification."""

from pathlib import Path
from typing import Annotated, Literal

from PIL import ImageColor
from pydantic import Field, field_validator, model_validator

from ..base_settings import BaseSettings
from ..config import Search
from ..settings import Section, setting

Side = Annotated[int, Field(ge=4, le=1024)]


class DataSettings(Section):
    """The images and their splits; what begins with "folder:" is for that source alone."""

    source: Literal["digits", "mnist5k", "mnist", "folder"] = setting(
        "digits",
        "digits: built in, no download; mnist5k: 5,000 of MNIST's images (extra: mnist); "
        "mnist: IDX files; folder: <class>/<image>",
    )
    path: Path | None = setting(None, "mnist, folder: the data's folder")
    test_path: Path | None = setting(None, "folder: another folder with the test images")
    layout: Literal["auto", "classes"] = setting(
        "auto",
        "folder: train/, val/, test/ of class folders are the splits; classes: they are classes",
    )
    size: Side | tuple[Side, Side] = setting(28, "folder: resize to size × size or [height,width]")
    resize: Literal["squeeze", "crop", "pad"] = setting(
        "squeeze", "folder: squeeze: distort to the size; crop: keep the middle; pad: add borders"
    )
    color: bool | Literal["auto"] = setting(
        "auto", "folder: RGB instead of grey levels; auto: unless the files are grey"
    )
    background: str = setting("white", "folder: under transparent and around padded images")
    value_range: tuple[float, float] | None = setting(
        None, "folder: black and white of images of more than 8 bits; default: by their type"
    )
    broken: Literal["refuse", "skip"] = setting("refuse", "folder: images that cannot be read")
    conflicts: Literal["refuse", "drop"] = setting(
        "refuse", "folder: the same image in several classes; drop all its copies"
    )
    duplicates: Literal["drop", "keep", "refuse"] = setting(
        "drop", "folder: the same image in two given splits; drop: keep it in test or validation"
    )
    max_pixels: int = setting(
        16_000_000, "folder: pixels of the largest image that the server accepts", ge=1
    )
    folds: int = setting(5, "folds; one tests, one validates", ge=3, le=100)
    test_fold: int = setting(4, "the test fold; the one before validates", ge=0)
    validation_share: float | None = setting(
        None, "digits: share of all images that validates, at most a fold; null: a fold", gt=0, lt=1
    )
    memory_mb: int = setting(
        500, "folder: images of more MB (float32) are read from data.cache in training", ge=0
    )
    cache: Path | None = setting(
        Path("data/.cache"), "folder: keeps many images decoded, may be deleted; null: never kept"
    )
    workers: int | None = setting(
        None, "folder: threads that decode; null: one per core, at most 8", ge=1, le=256
    )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @field_validator("background")
    @classmethod
    def _known_color(cls, color: str) -> str:
        if len(ImageColor.getrgb(color)) != 3:
            raise ValueError("must be opaque, such as white or #ff8800")
        return color

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        if self.source in ("mnist", "folder") and self.path is None:
            raise ValueError(f"source={self.source} needs data.path=<folder>")
        if self.test_path is not None and self.source != "folder":
            raise ValueError("test_path needs source=folder")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range must be [black,white], the smaller value first")
        if self.test_fold >= self.folds:
            raise ValueError(f"test_fold must be below folds={self.folds}")
        return self


class ModelSettings(Section):
    """A convolutional network whose blocks double the channels, or a pretrained network."""

    width: Annotated[int, Search(choices=(16, 24, 32))] = Field(
        default=24, ge=1, le=1024, description="channels of the first block"
    )
    dropout: Annotated[float, Search(0.0, 0.5)] = Field(
        default=0.3, ge=0, lt=1, description="dropout rate"
    )
    members: int = Field(
        default=1,
        ge=1,
        le=32,
        description="networks that are trained side by side; their mean logits are the prediction",
    )
    pretrained: str | None = Field(
        default=None,
        description="folder or hub id in Hugging Face's format (extra: pretrained); of the "
        "settings above width is not used then",
    )
    frozen: Annotated[int, Field(ge=0, le=200)] | Literal["all"] = Field(
        default=0,
        description="pretrained: freeze this many first stages, or all but the last layer",
    )


class ObjectiveSettings(Section):
    """The loss and the augmentation of training images."""

    label_smoothing: Annotated[float, Search(0.0, 0.2)] = Field(
        default=0.05, ge=0, lt=1, description="of the cross entropy"
    )
    rotate: Annotated[float, Search(0.0, 20.0)] = Field(
        default=12.0, ge=0, le=180, description="augmentation: rotate, ± degrees"
    )
    shift: Annotated[float, Search(0.0, 2.0)] = Field(
        default=1.0, ge=0, description="augmentation: shift, ± pixels"
    )
    scale: Annotated[float, Search(0.0, 0.25)] = Field(
        default=0.12, ge=0, lt=1, description="augmentation: scale, ± share"
    )
    elastic: Annotated[float, Search(0.0, 1.0)] = Field(
        default=0.0, ge=0, description="augmentation: bend, standard deviation in pixels"
    )
    flip: bool = Field(default=False, description="augmentation: mirror every other image")
    brightness: float = Field(default=0.0, ge=0, lt=1, description="augmentation: ± share")
    contrast: float = Field(default=0.0, ge=0, lt=1, description="augmentation: ± share")
    edges: Literal["zeros", "border", "reflection"] = Field(
        default="zeros", description="augmentation: what a moved image uncovers; zeros: black"
    )
    resample: Literal["bilinear", "bicubic"] = Field(
        default="bilinear", description="augmentation: bicubic blurs less, for images of few pixels"
    )


class Settings(BaseSettings):
    """All settings."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
