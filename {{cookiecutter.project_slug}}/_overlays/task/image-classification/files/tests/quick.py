"""What the tests of all tasks need to know about this one."""

import math

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
