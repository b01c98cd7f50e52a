"""What the shared tests need to know of this task."""

import math

# settings that train in seconds; good enough to be told from chance
QUICK = ["train.epochs=4", "train.seeds=[0,1]", "model.width=8"]

# a request's items that must be refused, and the field that the answer has to name
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

# a truth that cannot be, and a word that the answer has to name
BAD_TRUTHS = [
    ({}, "label"),
    ({"label": ""}, "label"),
    ({"label": 5}, "label"),
    ({"label": "5" * 201}, "label"),
    ({"label": "a zebra"}, "zebra"),
    ({"label": "5", "sure": True}, "sure"),
]


def truths(prediction: dict) -> tuple[dict, dict]:
    """What would make this answer right, and what wrong."""
    other = next(name for name in prediction["probabilities"] if name != prediction["label"])
    return {"label": prediction["label"]}, {"label": other}
