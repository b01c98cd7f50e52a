"""What the tests of all tasks need to know about this one."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from {{ cookiecutter.package_name }}.task.data import Dataset

# settings that train in seconds and still beat chance
QUICK = ["train.epochs=4", "train.seeds=[0,1]", "model.width=8"]

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
]


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
