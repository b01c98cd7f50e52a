"""Read one picture file as the levels that the network gets; the same in training and serving.

The server imports this module: it needs NumPy and Pillow only.
"""

import math
import warnings
from binascii import a2b_base64
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

# Decoders of pixels only: no scripts (EPS), no documents (PDF), no programs from elsewhere.
# For AVIF also take its module out of the list in scripts/slim.py, which trims the image.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
MAX_PIXELS = 170_000_000  # just below the size at which Pillow itself suspects a bomb
HEADER = 2**16  # characters of base64 in which nearly all files state their size
# Measured on one core; a JPEG file is decoded at a part of its size.
PIXEL_SECONDS, JPEG_PIXEL_SECONDS, BYTE_SECONDS = 3e-8, 5e-9, 3e-9
STRIP = 2**18  # pixels that are converted at once
REDUCE = 3.0  # decode at this multiple of the size at least; beyond it no difference is visible

# Pillow warns of broken EXIF, which is ignored here, and of large images, which have a limit.
warnings.filterwarnings("ignore", module=r"PIL\.")

Resize = Literal["squeeze", "crop", "pad"]
SIXTEEN_BITS = (0.0, 65_535.0)
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(ValueError):
    """A file that no picture can be made of; the message follows the file's name."""


class ImageSpec(NamedTuple):
    """What every picture becomes; part of the contract."""

    size: tuple[int, int]  # height, width
    color: bool  # RGB, else grey levels
    resize: Resize
    background: str  # under transparent and around padded pictures
    value_range: tuple[float, float] | None  # black and white of 16-bit, 32-bit and float pictures
    max_pixels: int = 16_000_000  # of pictures that the server takes


class Picture(NamedTuple):
    """A picture's levels, uint8 (channel, row, column), and what a person should hear of it."""

    levels: np.ndarray
    facts: frozenset[str]  # keys of `FACTS`


FACTS = {
    "grey": "grey",
    "transparent": "transparent and were put on data.background",
    "frames": "animated or of several pages, of which the first was taken",
    "deep": "of more than 8 bits and were reduced to 8 by data.value_range",
    "large": "larger than data.max_pixels, so the server would refuse them",
}


def read_picture(file: Path | BytesIO, spec: ImageSpec, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file; UnusableImage if it is none, is broken or has too many pixels."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UnusableImage(
                    f"has {image.width * image.height:,} pixels, more than {max_pixels:,}"
                )
            return _read(image, spec)
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage(f"is not an image ({', '.join(FORMATS)})") from None
    except Exception as error:  # a decoder fails at broken bytes with whatever it meets first
        if isinstance(error, OSError) and error.strerror:
            raise UnusableImage(f"cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableImage(f"is a broken image: {reason}") from None


def decoding_seconds(base64: str, max_pixels: int) -> float:
    """Estimate from the header how long a picture in base64 takes; a broken one takes no time."""
    pixels, seconds = max_pixels if len(base64) > HEADER else 0, PIXEL_SECONDS
    with suppress(Exception):  # `read_picture` says what is wrong
        image = Image.open(BytesIO(a2b_base64(base64[:HEADER])), formats=FORMATS)
        pixels = image.width * image.height
        seconds = JPEG_PIXEL_SECONDS if image.format == "JPEG" else PIXEL_SECONDS
    return BYTE_SECONDS * len(base64) + seconds * (pixels if pixels <= max_pixels else 0)


def is_grey(file: Path) -> bool:
    """Return whether a file's header says that it has grey levels only; not so if unreadable."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return _is_grey(image)
    except Exception:
        return False


def _read(image: Image.Image, spec: ImageSpec) -> Picture:
    facts = _facts(image, spec.max_pixels)
    # A JPEG file can be decoded at 1/2, 1/4 or 1/8 of its size, many times faster.
    enough = round(REDUCE * max(spec.size))
    image.draft("RGB" if spec.color else "L", (enough, enough))
    image.load()
    turn = _turn(image)
    if image.mode[0] in "IF":  # 16 or 32 bits per pixel: convert() would clip, not scale
        image = Image.fromarray(_eight_bits(image, spec.value_range))
    elif image.has_transparency_data:
        image, transparent = _flatten(image, spec)
        if transparent:  # many files have an alpha channel for nothing
            facts.add("transparent")
    elif image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every file for Adobe's, which is inverted
    image = image.convert("RGB" if spec.color else "L")
    levels = np.asarray(_fit(image.transpose(turn) if turn is not None else image, spec))
    return Picture(levels.transpose(2, 0, 1) if spec.color else levels[None], frozenset(facts))


def _facts(image: Image.Image, max_pixels: int) -> set[str]:
    checks = {
        "grey": _is_grey(image),
        "deep": image.mode[0] in "IF",
        "large": image.width * image.height > max_pixels,
        # Telephones append a preview to a JPEG file, which is no second frame.
        "frames": image.format in ("GIF", "PNG", "TIFF", "WEBP")
        and getattr(image, "is_animated", False),
    }
    return {name for name, holds in checks.items() if holds}


def _is_grey(image: Image.Image) -> bool:
    return image.mode[0] in "1LIF" and image.mode != "LAB"


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns the picture upright; nothing if its EXIF is broken."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # the pixels are whole without it
        return None


def _flatten(image: Image.Image, spec: ImageSpec) -> tuple[Image.Image, bool]:
    """Put an image on the background; also return whether any of it shows."""
    flat, lowest = Image.new("RGB" if spec.color else "L", image.size), 255
    # In strips: the whole would need three copies, and block the server's other threads.
    for rows in _strips(image.height, image.width):
        box = (0, rows.start, image.width, rows.stop)
        strip = image.crop(box).convert("RGBA")
        lowest = min(lowest, int(np.asarray(strip.getchannel("A")).min()))
        ground = Image.new("RGBA", strip.size, spec.background)
        flat.paste(Image.alpha_composite(ground, strip).convert(flat.mode), box)
    return flat, lowest < 255


def _strips(height: int, width: int) -> Iterator[slice]:
    """Cut an image into rows of about STRIP pixels."""
    step = max(1, STRIP // width)
    yield from (slice(top, min(top + step, height)) for top in range(0, height, step))


def _eight_bits(image: Image.Image, value_range: tuple[float, float] | None) -> np.ndarray:
    """Scale grey levels of 16 or 32 bits to uint8; ValueError if it is unclear from which range."""
    values = np.asarray(image)
    lowest, highest = (float(np.float32(end)) for end in (values.min(), values.max()))
    if not math.isfinite(lowest + highest):  # one NaN makes both NaN
        raise UnusableImage("holds values that are no numbers (NaN or infinite)")
    if value_range is None:
        value_range = (0, 1) if image.mode == "F" else SIXTEEN_BITS
        deep = image.mode == "I" and image.format == "TIFF"
        if deep or lowest < value_range[0] or highest > value_range[1]:
            raise UnusableImage(
                f"holds values from {lowest:g} to {highest:g}; say which are black and white, for "
                f"example data.value_range=[{lowest:g},{highest:g}]"
            )
    black, white = value_range
    levels = np.empty(values.shape, np.uint8)
    for rows in _strips(*values.shape):  # in 32 bits the whole would need four times the memory
        scaled = (values[rows].astype(np.float32) - black) * (255 / (white - black))
        levels[rows] = scaled.clip(0, 255).round()
    return levels


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """Resize an image of mode L or RGB to the size."""
    height, width = spec.size
    scales = width / image.width, height / image.height
    if spec.resize == "crop":
        across, down = width / max(scales), height / max(scales)
        left, top = (image.width - across) / 2, (image.height - down) / 2
        return _resize(image, (width, height), (left, top, left + across, top + down))
    if spec.resize == "squeeze":
        return _resize(image, (width, height))
    inner = tuple(max(1, round(side * min(scales))) for side in image.size)
    padded = Image.new(image.mode, (width, height), spec.background)
    corner = (width - inner[0]) // 2, (height - inner[1]) // 2
    padded.paste(_resize(image, inner), corner)
    return padded


def _resize(
    image: Image.Image, size: tuple[int, ...], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC, box, reducing_gap=REDUCE)
