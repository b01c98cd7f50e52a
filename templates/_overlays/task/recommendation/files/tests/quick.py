"""What the tests of all tasks need to know about this one."""

import random
from pathlib import Path

from {{ cookiecutter.package_name }}.task.data import Dataset

# The cache is beside the project, so that tests in folders of their own share it.
CACHE = Path(__file__).parents[1] / "data"
LIBRARIES = '["numpy", "matplotlib", "sqlalchemy"]'

# settings that train in seconds and still beat chance
QUICK = [
    f"data.cache={CACHE}",
    f"data.libraries={LIBRARIES}",
    "train.epochs=4",
    "train.seeds=[0,1]",
    "train.batch_size=32",
    "model.width=32",
    "model.blend=8",
]

# invalid items, and the field that the error has to name
BAD_ITEMS = [
    ({}, "items"),
    ({"items": "numpy"}, "items"),
    ({"items": [""]}, "items"),
    ({"items": ["x" * 201]}, "items"),
    ({"items": [None]}, "items"),
    ({"items": [True]}, "items"),
    ({"items": [1.5]}, "items"),
    ({"items": [2**63]}, "items"),
    ({"items": [["numpy"]]}, "items"),
    ({"items": ["unknown"] * 10_000}, "items"),
    ({"items": [], "k": 0}, "k"),
    ({"items": [], "k": 101}, "k"),
    ({"items": [], "k": "ten"}, "k"),
    ({"items": [], "exclude": [""]}, "exclude"),
    ({"items": [], "exclude": ["unknown"] * 1001}, "exclude"),
    ({"items": [], "user": 5}, "user"),
]


# unusual items, which are answered or refused
ODD_ITEMS = [
    {"items": ["os\0", "\ud800"]},
    {"items": ["os"] * 1000, "exclude": ["sys"] * 1000, "k": 100},
    {"items": [2**63 - 1, -(2**63), 0, -1]},
    {"items": [1e308]},
    {"items": [True, "os"]},
    {"items": [" os ", "OS", "os\n"]},
    {"items": ["1" * 200]},
    {"items": [], "exclude": list(range(1000)), "k": 1},
    {"items": ["os"], "k": 1e1},
    {"items": [], "k": True},
]


def request_items(dataset: Dataset) -> list[dict]:
    """Build the items (JSON) of requests from the rows of the test split."""
    return [dataset.contract.item(history) for history in dataset.test["history"]]


# invalid ground truths, and a word that the error has to name
BAD_GROUND_TRUTHS = [
    ({}, "items"),
    ({"items": []}, "items"),
    ({"items": "numpy"}, "items"),
    ({"items": [""]}, "items"),
    ({"items": [None]}, "items"),
    ({"items": [1.5]}, "items"),
    ({"items": ["os"] * 1001}, "items"),
    ({"items": ["no.such.module"]}, "no.such.module"),
    ({"items": ["os"], "user": 5}, "user"),
]


COMMON_MODULES = (
    "os",
    "sys",
    "re",
    "json",
    "time",
    "typing",
    "logging",
    "numpy",
    "abc",
    "math",
    "io",
)


def ground_truths(prediction: dict) -> tuple[dict, dict]:
    """Return a ground truth by which this prediction is right, and one by which it is wrong."""
    names = [recommended["item"] for recommended in prediction["items"][:10]]
    other = next(name for name in COMMON_MODULES if name not in names)
    return {"items": names}, {"items": [other]}


# what no page may say once other data is used
DEFAULT_WORDS = r"source files?\b|standard library|imported module|libraries|numpy"


def own_data(folder: Path) -> list[str]:
    """Write data of another kind, with names that pages must show as text; return its settings."""
    folder.mkdir(parents=True)
    generator, lines = random.Random(0), ["user,item"]
    items = ["a|b", "<b>x</b>", "`tick` *star*", *(f"film {number}" for number in range(30))]
    for user in range(150):
        liked = items[user % 2 :: 2] if generator.random() < 0.9 else items
        lines += [f"user {user},{item}" for item in generator.sample(liked, 10)]
    (folder / "likes.csv").write_text("\n".join(lines), encoding="utf-8")
    quick = [setting for setting in QUICK if not setting.startswith("data.")]
    return ["data.source=csv", f"data.path={folder / 'likes.csv'}", *quick]
