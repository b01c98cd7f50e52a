"""Requests, predictions and their encoding, the same in training and on the server.

The server imports this module: it needs NumPy and pydantic only.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..arrays import Arrays
from ..config import UserError
from ..interfaces import BaseContract, ScoreMetric
from . import imports, ranking

# In the order of `forward`; per input, the names of its variable axes besides the batch.
INPUTS: dict[str, dict[int, str]] = {"history": {1: "length"}}
OUTPUTS = ("scores",)
SCORE = ScoreMetric("recall_at_10", True)

MAX_NAME = 200  # characters
MAX_ITEMS = 1000  # per list of a request; longer ones are refused before they are validated
MAX_K = 100
ORDINARY_ITEMS, ITEM_SECONDS = 50, 2e-6  # of a request; to look one up, measured on one core
K = 10  # so many recommendations are scored

WHOLE_ID = re.compile(r"(-?(?:0|[1-9]\d*))(\.0+)?")  # a whole number; with decimals, of a float


def _whole(value: Any) -> Any:
    """Turn 12.0 into 12: JSON has one kind of number, and some clients write floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# strict: `true` is not an item's number. Numbers fit into 64 bits.
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, strict=True)]
Number = Annotated[
    int, Field(ge=-(2**63), lt=2**63, strict=True), BeforeValidator(_whole, float | int)
]
# fail_fast: a body full of invalid values must not cost more than one.
Items = Annotated[list[Name | Number], Field(max_length=MAX_ITEMS, fail_fast=True)]


class Item(BaseModel):
    """The items that a user has."""

    model_config = ConfigDict(extra="forbid")

    items: Items = Field(description="names or ids of the user's items, may be empty")
    k: int = Field(
        default=10, ge=1, le=MAX_K, strict=True, description="how many items to recommend"
    )
    exclude: Items = Field(default=[], description="items not to recommend")


class Recommended(BaseModel):
    """A recommended item.

    `score` is the item's softmax probability among all items that the user does not have: scores
    are comparable within one prediction only.
    """

    item: str
    title: str | None
    score: float


class Prediction(BaseModel):
    """The best items first, without those that the user has or excludes.

    Names that the model does not know are ignored and listed in `unknown`. If it knows none of the
    user's items, the most popular ones are recommended and `fallback` is true.
    """

    items: list[Recommended]
    unknown: list[str]
    fallback: bool


class GroundTruth(BaseModel):
    """What a user chose after a request."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[Items, Field(min_length=1)] = Field(
        description="names or ids of the items that the user chose next"
    )


class Contract(BaseContract):
    """The items, and the number of training users who have each."""

    TASK: ClassVar[str] = "recommendation"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth

    items: list[str]  # ids, unique
    titles: list[str] | None  # in the order of `items`, if the data has titles
    counts: list[int]
    users: int

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number, from 1, of each id and of each title that only one item has.

        Where a title is another item's id, the id counts.
        """
        count = Counter(self.titles or [])
        titles = enumerate(self.titles or [], 1)
        unique = {title: number for number, title in titles if count[title] == 1}
        return unique | {item: number for number, item in enumerate(self.items, 1)}

    @cached_property
    def float_ids(self) -> bool:
        """Whether all ids are whole numbers, so that the text "12.0" is item 12."""
        return all(WHOLE_ID.fullmatch(item) for item in self.items)

    def unclear_titles(self) -> tuple[int, int]:
        """Count the items that share a title, and the titles that are another item's id."""
        titles = self.titles or []
        count, ids = Counter(titles), set(self.items)
        shared = sum(count[title] > 1 for title in titles)
        pairs = zip(self.items, titles, strict=False)
        return shared, sum(title != item and title in ids for item, title in pairs)

    @cached_property
    def shares(self) -> np.ndarray:
        """The share (item,) of training users who have each item."""
        return np.array(self.counts) / max(self.users, 1)

    def encode(self, items: list[Item]) -> Arrays:
        """Encode items as `history`, int32 (item, length): item numbers from 1, padded with 0."""
        rows = [self.numbers_of(item.items) for item in items]
        history = np.zeros((len(rows), max(1, *map(len, rows))), np.int32)
        for number, row in enumerate(rows):
            history[number, : len(row)] = row
        return {"history": history}

    def encoding_seconds(self, item: Item) -> float:
        return ITEM_SECONDS * max(0, len(item.items) + len(item.exclude) - ORDINARY_ITEMS)

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """Decode `scores` (item, catalogue) into one prediction per item."""
        rows = zip(outputs["scores"], items, strict=True)
        return [self._prediction(scores, item) for scores, item in rows]

    def score(self, prediction: Prediction, ground_truth: GroundTruth) -> float:
        """Return the recall of the first 10 recommendations (fewer if fewer were requested).

        Items that the model does not know are ignored; ValueError if it knows none.
        """
        relevant = self.numbers_of(ground_truth.items)
        if not relevant:
            first = str(ground_truth.items[0])
            name = first if len(first) <= 40 else f"{first[:39]}…"
            raise ValueError(f"items: this model knows none of them (the first is {name!r})")
        top = self.numbers_of([recommended.item for recommended in prediction.items[:K]])
        return len(set(top) & set(relevant)) / len(relevant)

    def item(self, history: np.ndarray) -> dict[str, Any]:
        """Build a request's item (JSON) from item numbers (length,)."""
        return {"items": [self.name_of(number) for number in history.tolist() if number], "k": 5}

    def features(self, inputs: Arrays) -> Arrays:
        """Return the number of known items, their mean popularity and that of the rarest (item,).

        An item's popularity is the share of training users who have it.
        """
        history = inputs["history"]
        shares = np.append(0.0, self.shares)[history]
        count = ranking.lengths(history)
        rarest = np.where(history > 0, shares, 1.0).min(axis=1)
        return {
            "known_items": count,
            "popularity": shares.sum(axis=1) / np.maximum(count, 1),
            "rarest": np.where(count > 0, rarest, 0.0),
        }

    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """Return the item with the highest score and its popularity (item,)."""
        first = outputs["scores"].argmax(axis=1)
        return {"item": np.array(self.items)[first], "popularity": self.shares[first]}

    def numbers_of(self, names: Sequence[str | int]) -> list[int]:
        """Return the numbers of the known names, each once, in their order."""
        numbers = (self.number_of(name) for name in names)
        return list(dict.fromkeys(number for number in numbers if number is not None))

    def number_of(self, name: str | int) -> int | None:
        """Return the number of an id or title, or None; blanks around it do not count."""
        text = str(name)
        number = self.numbers.get(text) or self.numbers.get(text.strip())
        if number is None and self.float_ids and (match := WHOLE_ID.fullmatch(text.strip())):
            number = self.numbers.get(match[1])
        return number

    def name_of(self, number: int) -> str:
        """Return an item's title if requests may name it so, else its id."""
        title = self.titles[number - 1] if self.titles else ""
        named = self.numbers.get(title) == number and 0 < len(title) <= MAX_NAME
        return title if named else self.items[number - 1]

    def _prediction(self, scores: np.ndarray, item: Item) -> Prediction:
        """Recommend the items with the best scores (catalogue,)."""
        # 1. Mark the items that the user has, and those not to recommend.
        history, excluded = self.numbers_of(item.items), self.numbers_of(item.exclude)
        has = ranking.membership(np.array([history], int), len(self.items))
        hidden = has | ranking.membership(np.array([excluded], int), len(self.items))
        # 2. Turn scores, or counts as the fallback, into shares; take the best.
        counts = np.array(self.counts, float)
        weights = np.exp(scores - scores.max(), dtype=float) if history else counts
        shares = weights / max(weights[~has[0]].sum(), np.finfo(float).tiny)
        top = ranking.best(shares[None], hidden, item.k)[0]
        # 3. Write the prediction.
        recommended = []
        for place in (top[top > 0] - 1).tolist():
            item_id, title = self.items[place], self.titles[place] if self.titles else None
            recommended.append(Recommended(item=item_id, title=title, score=float(shares[place])))
        names = dict.fromkeys([*item.items, *item.exclude])
        unknown = dict.fromkeys(str(name) for name in names if self.number_of(name) is None)
        return Prediction(items=recommended, unknown=list(unknown), fallback=not history)


def item_from_file(path: Path) -> dict[str, Any]:
    """Read a file as a request's item: JSON, a Python file's imports, or a name per line.

    UserError in one line that names the file if it is none of these.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            item = json.loads(content)
        elif path.suffix == ".py":
            item = {"items": sorted(imports.modules(content, imports.package(path)))}
        else:
            lines = content.decode().splitlines()
            item = {"items": [line.strip() for line in lines if line.strip()]}
        return Item.model_validate(item).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {place}: {first['msg']}") from None
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
