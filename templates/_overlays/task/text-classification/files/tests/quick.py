"""What the tests of all tasks need to know about this one."""

import csv
import random
from pathlib import Path

from {{ cookiecutter.package_name }}.task.data import Dataset

# The cache is in the project's ignored folder, so that tests in folders of their own share it.
CACHE = Path(__file__).parents[1] / "data" / "docstrings"

# settings that train in seconds and still beat chance
QUICK = [
    f"data.cache={CACHE}",
    'data.libraries=["numpy","pandas"]',
    "data.limit=400",
    "data.tokens=32",
    "data.vocabulary=1000",
    "model.width=32",
    "model.layers=1",
    "pretrain.epochs=1",
    "train.seeds=[0,1]",
    "train.epochs=4",
    "train.lr=0.004",
    "train.choose_epoch=last",
    "model.ngrams=2",
    "objective.hidden=0.2",
]

# invalid items, and the field that the error has to name
BAD_ITEMS = [
    ({}, "text"),
    ({"text": ""}, "text"),
    ({"text": 5}, "text"),
    ({"text": None}, "text"),
    ({"text": ["axis"]}, "text"),
    ({"text": " \n\t "}, "text"),
    ({"text": "\u0000\u0007"}, "text"),
    ({"text": "axis " * 20_001}, "text"),
    ({"text": "axis", "label": "int"}, "label"),
    ({"text": "axis", "top_k": 0}, "top_k"),
    ({"text": "axis", "top_k": "3"}, "top_k"),
]


# unusual items, which are answered or refused
ODD_ITEMS = [
    {"text": text}
    for text in (
        "axis\0 : int",
        "\ud800 axis",
        "a" * 100_000,
        "\u0301" * 5_000,
        "中文" * 5_000,
        "[CLS] [MASK] [SEP]",
        "\u202e\u200b\ufeff",
        "\x85\u2028",
        "🦘" * 300,
        "." * 3_000,
    )
]


def request_items(dataset: Dataset) -> list[dict]:
    """Build the items (JSON) of requests from the rows of the test split."""
    return [{"text": text} for text in dataset.texts["test"]]


# invalid ground truths, and a word that the error has to name
BAD_GROUND_TRUTHS = [
    ({}, "label"),
    ({"label": ""}, "label"),
    ({"label": 5}, "label"),
    ({"label": "x" * 201}, "label"),
    ({"label": "haiku"}, "haiku"),
    ({"label": "int", "sure": True}, "sure"),
]


def ground_truths(prediction: dict) -> tuple[dict, dict]:
    """Return a ground truth by which this prediction is right, and one by which it is wrong."""
    other = next(name for name in prediction["probabilities"] if name != prediction["label"])
    return {"label": prediction["label"]}, {"label": other}


# what no page may say once other data is used
DEFAULT_WORDS = (
    r"docstring|parameter's|of parameters|the documentation of|numpy|pandas|installed librar"
)


def own_data(folder: Path) -> list[str]:
    """Write data of another kind, with names that pages must show as text; return its settings."""
    folder.mkdir(parents=True)
    generator = random.Random(0)
    words = {"a|b": "dog cat cow", "<b>x</b>": "car bus train", "`tick` *star*": "red blue green"}
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for name, known in words.items():
            for number in range(60):
                rows.writerow([f"{number} {' '.join(generator.choices(known.split(), k=5))}", name])
    quick = [setting for setting in QUICK if setting.partition("=")[0] not in SOURCE_SETTINGS]
    return ["data.source=csv", f"data.path={folder / 'texts.csv'}", *quick]


SOURCE_SETTINGS = {"data.cache", "data.libraries"}
