"""Requests, predictions and their encoding, the same in training and on the server.

The server imports this module: it needs NumPy, Pillow and pydantic only.
"""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ..arrays import Arrays
from ..interfaces import InvalidItem
from .classes import MAX_LISTED, SCORE, ClassContract, Classified, GroundTruth, TopK
from .classes import OUTPUTS as OUTPUTS
from .pixels import (
    FORMATS,
    ImageSpec,
    Resize,
    UnusableImage,
    decoding_seconds,
    read_picture,
)

# In the order of `forward`; per input, the names of its variable axes ({1: "time"}).
INPUTS: dict[str, dict[int, str]] = {"image": {}}

Pixel = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# fail_fast: a body full of invalid values must not cost more than one.
PixelRows = Annotated[list[Annotated[list[Pixel], Field(fail_fast=True)]], Field(fail_fast=True)]


class Item(BaseModel):
    """One image, either as a file or as grey levels."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(default=None, description=f"a file in base64: {', '.join(FORMATS)}")
    pixels: PixelRows | None = Field(
        default=None, description="grey levels from 0 to 1, row by row, in the model's size"
    )
    top_k: TopK = None


class Prediction(Classified):
    """The most probable class and the probability of each class."""


class Contract(ClassContract):
    """The classes, and what every image file becomes before the network sees it.

    The defaults are how bundles were trained that do not have the field.
    """

    TASK: ClassVar[str] = "image-classification"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth

    size: tuple[int, int]  # height, width
    color: bool
    resize: Resize = "squeeze"
    background: str = "black"  # under transparent and around padded images
    value_range: tuple[float, float] | None = None  # black and white of more than 8 bits
    max_pixels: int = 16_000_000  # the server refuses larger images before it decodes them

    @property
    def channels(self) -> int:
        return 3 if self.color else 1

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(
            size=self.size,
            color=self.color,
            resize=self.resize,
            background=self.background,
            value_range=self.value_range,
            max_pixels=self.max_pixels,
        )

    def encode(self, items: list[Item]) -> Arrays:
        """Encode items as `image`, float32 (item, channel, row, column) in 0..1.

        Raises InvalidItem for what the schema cannot express.
        """
        images = np.empty((len(items), self.channels, *self.size), np.float32)
        for index, item in enumerate(items):
            if (item.image is None) == (item.pixels is None):
                raise InvalidItem(index, "image", "give exactly one of image and pixels")
            if item.image is not None:
                images[index] = self._from_base64(index, item.image)
            else:
                images[index] = self._from_pixels(index, item.pixels or [])
        return {"image": images}

    def encode_columns(self, columns: Arrays) -> tuple[Arrays, np.ndarray] | None:
        pixels, lists_all = columns.get("pixels"), len(self.labels) <= MAX_LISTED
        if pixels is None or len(columns) > 1 or self.color or not lists_all:
            return None
        if pixels.shape[1:] != self.size:
            return None
        valid = np.asarray(((pixels >= 0) & (pixels <= 1)).all(axis=(1, 2)))  # NaN is neither
        return {"image": pixels[valid][:, None].astype(np.float32)}, valid

    def encoding_seconds(self, item: Item) -> float:
        return 0.0 if item.image is None else decoding_seconds(item.image, self.max_pixels)

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """Decode `logits` (item, class) into one prediction per item."""
        return [Prediction(**fields) for fields in self.decoded(outputs, [i.top_k for i in items])]

    def item(self, image: np.ndarray) -> dict[str, Any]:
        """Build a request's item (JSON) from an encoded image (channel, row, column)."""
        if not self.color:
            return {"pixels": np.round(image[0], 4).tolist()}
        file, levels = BytesIO(), np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(levels).save(file, "PNG")
        return {"image": base64.b64encode(file.getvalue()).decode()}

    def features(self, inputs: Arrays) -> Arrays:
        """Return mean, standard deviation and share of bright pixels (item,) of each image."""
        pixels = inputs["image"].reshape(len(inputs["image"]), -1)
        return {
            "brightness": pixels.mean(axis=1),
            "contrast": pixels.std(axis=1),
            "bright_share": (pixels > 0.5).mean(axis=1),
        }

    def _from_base64(self, index: int, text: str) -> np.ndarray:
        try:
            file = BytesIO(base64.b64decode(text, validate=True))
            return scaled(read_picture(file, self.spec, self.max_pixels).levels)
        except UnusableImage as error:
            raise InvalidItem(index, "image", str(error)) from None
        except ValueError:
            raise InvalidItem(index, "image", "is not valid base64") from None

    def _from_pixels(self, index: int, pixels: list[list[float]]) -> np.ndarray:
        if self.color:
            raise InvalidItem(index, "pixels", "this model needs colour: send image instead")
        height, width = self.size
        for number, row in enumerate(pixels):
            if len(row) != width:
                reason = f"row {number} has {len(row)} values, this model needs {width}"
                raise InvalidItem(index, "pixels", reason)
        if len(pixels) != height:
            raise InvalidItem(index, "pixels", f"has {len(pixels)} rows, this model needs {height}")
        return np.asarray(pixels, np.float32)


def item_from_file(path: Path) -> dict[str, Any]:
    """Read an image file as a request's item (JSON)."""
    return {"image": base64.b64encode(path.read_bytes()).decode()}


def scaled(levels: np.ndarray) -> np.ndarray:
    """Scale the levels of images, uint8, to float32 in 0..1."""
    values = levels.astype(np.float32)
    values /= 255  # in place: of a whole data set a copy may be too much
    return values
