"""What the tests of all tasks need to know about this one."""

import base64
import math
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from {{ cookiecutter.package_name }}.task.data import Dataset

# settings that train in seconds and still beat chance
QUICK = [
    "train.epochs=4",
    "train.seeds=[0,1]",
    "train.choose_epoch=last",
    "model.width=8",
    "model.members=2",
]

# invalid items, and the field that the error has to name
BAD_ITEMS = [
    ({}, "image"),
    ({"image": "no base64!"}, "image"),
    ({"image": "bm8gcGljdHVyZQ=="}, "image"),
    ({"image": 5}, "image"),
    ({"pixels": [[0.0] * 8] * 7}, "pixels"),
    ({"pixels": [[0.0] * 8] * 7 + [[0.0] * 9]}, "pixels"),
    ({"pixels": []}, "pixels"),
    ({"pixels": [[math.nan] * 8] * 8}, "pixels"),
    ({"pixels": [[math.inf] * 8] * 8}, "pixels"),
    ({"pixels": [[-0.1] * 8] * 8}, "pixels"),
    ({"pixels": [["dark"] * 8] * 8}, "pixels"),
    ({"pixels": [[0.0] * 8] * 8, "image": "x"}, "image"),
    ({"pixels": [[0.0] * 8] * 8, "colour": "red"}, "colour"),
    ({"pixels": [[0.0] * 8] * 8, "top_k": 0}, "top_k"),
    ({"pixels": [[0.0] * 8] * 8, "top_k": True}, "top_k"),
]


def _file(image: Image.Image, format: str = "PNG", end: int | None = None, **options: Any) -> dict:
    """Save an image as an item, cut at a byte."""
    file = BytesIO()
    image.save(file, format, **options)
    return {"image": base64.b64encode(file.getvalue()[:end]).decode()}


def _odd_items() -> list[dict]:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    picture, deep = Image.fromarray(grey), grey.astype(np.uint16) * 900
    colour, palette = picture.convert("RGB"), picture.convert("P")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    crc = zlib.crc32(b"IHDR" + header)
    huge = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s13sI", 13, b"IHDR", header, crc)
    entry = struct.pack(">HHII", 0x0112, 2, 2**31, 50)  # an orientation that is text from far away
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 9) + entry
    frames = [Image.fromarray(grey + shift) for shift in (60, 120)]
    return [
        _file(colour, "JPEG", exif=exif),
        _file(colour, "JPEG", exif=b"Exif\0\0nonsense"),
        _file(colour, "JPEG", end=-30),
        _file(colour, "JPEG", end=100),
        _file(picture, end=-20),
        _file(picture, end=30),
        _file(Image.fromarray(deep)),
        _file(Image.fromarray(deep.astype(np.int32) * 99), "TIFF"),
        _file(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
        _file(palette, transparency=3),
        _file(palette, "GIF", end=-9),
        _file(colour.convert("CMYK"), "JPEG"),
        _file(colour.convert("LAB"), "TIFF"),
        _file(picture, "GIF", save_all=True, append_images=frames),
        _file(picture, "PNG", save_all=True, append_images=frames),
        _file(Image.new("L", (5000, 1))),
        _file(Image.new("1", (1, 1))),
        {"image": base64.b64encode(huge).decode()},
        {"image": base64.b64encode(huge + b"\0" * 100).decode()},
        {"image": "A" * 100_000},
        {"image": "\ud800"},
        {"pixels": grey.tolist()},
        {"pixels": [[True] * 8] * 8},
        {"pixels": [[1e-320] * 8] * 8},
    ]


ODD_ITEMS = _odd_items()  # unusual items, which are answered or refused


def request_items(dataset: Dataset) -> list[dict]:
    """Build the items (JSON) of requests from the rows of the test split."""
    return [dataset.contract.item(image) for image in dataset.test["image"]]


# invalid ground truths, and a word that the error has to name
BAD_GROUND_TRUTHS = [
    ({}, "label"),
    ({"label": ""}, "label"),
    ({"label": 5}, "label"),
    ({"label": "5" * 201}, "label"),
    ({"label": "a zebra"}, "zebra"),
    ({"label": "5", "sure": True}, "sure"),
]


def ground_truths(prediction: dict) -> tuple[dict, dict]:
    """Return a ground truth by which this prediction is right, and one by which it is wrong."""
    other = next(name for name in prediction["probabilities"] if name != prediction["label"])
    return {"label": prediction["label"]}, {"label": other}


# what no page may say once other data is used
DEFAULT_WORDS = r"(?<!letters, )\bdigits|handwrit|scikit-learn's|by writer|scanne|\bUCI\b"


def own_data(folder: Path) -> list[str]:
    """Write data of another kind, with names that pages must show as text; return its settings."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(["a|b", "<b>x", "`tick` *star*"]):
        (folder / name).mkdir(parents=True)
        for picture in range(30):
            pixels = generator.integers(0, 90, (16, 16), np.uint8)
            pixels[5 * number : 5 * number + 5] += 150
            Image.fromarray(pixels).save(folder / name / f"{picture}.png")
    return ["data.source=folder", f"data.path={folder}", "data.size=16", *QUICK]
