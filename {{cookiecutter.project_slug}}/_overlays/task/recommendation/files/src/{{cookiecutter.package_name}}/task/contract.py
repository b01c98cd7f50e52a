"""What a request and an answer look like, and the way from one to the network and back.

Training and the server call these same functions, so the two cannot drift apart. The server's
environment holds no torch: this module needs NumPy and pydantic only.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import UserError
from ..interfaces import Arrays, BaseContract, ScoreMetric
from . import imports, ranking

# The network's inputs in the order of its `forward`, each with the names of those axes beside the
# first that may have any length.
INPUTS: dict[str, dict[int, str]] = {"history": {1: "length"}}
OUTPUTS = ("scores",)
SCORE = ScoreMetric("recall_at_10", True)

MAX_ITEMS = 1000  # of a request's lists; more are refused before they are looked at
MAX_K = 100
K = 10  # so many recommendations are compared with what the user took

# strict: `true` is no item's number, and 3.0 is not "3". Numbers are bounded as databases' are.
Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63, strict=True)]
# fail_fast: one wrong value is enough to answer, a body full of them must not cost more.
Items = Annotated[list[Name | Number], Field(max_length=MAX_ITEMS, fail_fast=True)]


class Item(BaseModel):
    """What a user has; the answer is what the user may want next."""

    model_config = ConfigDict(extra="forbid")

    items: Items = Field(description="names or ids of the items that the user has, may be empty")
    k: int = Field(
        default=10, ge=1, le=MAX_K, strict=True, description="how many items to recommend"
    )
    exclude: Items = Field(default=[], description="items that must not be recommended")


class Recommended(BaseModel):
    """An item; `score` is the share of its wish that the model gives it among all that the user
    does not have, so the scores of one answer can be compared with each other."""

    item: str
    title: str | None
    score: float


class Prediction(BaseModel):
    """The best items first, without those that the user has or excludes.

    `unknown` are names that the model does not know; it ignores them. With `fallback` no item of
    the user is known, and the most popular items are the answer.
    """

    items: list[Recommended]
    unknown: list[str]
    fallback: bool


class GroundTruth(BaseModel):
    """What turned out to be right about one item."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[Items, Field(min_length=1)] = Field(
        description="names or ids of what the user took next"
    )


class Contract(BaseContract):
    """The items, and how many of the training users have each."""

    TASK: ClassVar[str] = "recommendation"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth

    items: list[str]  # ids, unique
    titles: list[str] | None  # names for people, like `items`, where the data has such
    counts: list[int]
    users: int

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number, from 1, of each id and of each title that only one item has."""
        titles = self.titles or []
        found = {title: number for number, title in enumerate(titles, 1)}
        twice = {title for number, title in enumerate(titles, 1) if found[title] != number}
        found = {title: number for title, number in found.items() if title not in twice}
        return found | {item: number for number, item in enumerate(self.items, 1)}

    @cached_property
    def shares(self) -> np.ndarray:
        """The share (item,) of training users who have each item."""
        return np.array(self.counts) / max(self.users, 1)

    def encode(self, items: list[Item]) -> Arrays:
        """Requests to the network's inputs: `history`, int32 (item, length), 0 to fill up."""
        rows = [self.known(item.items) for item in items]
        history = np.zeros((len(rows), max(1, *map(len, rows))), np.int32)
        for number, row in enumerate(rows):
            history[number, : len(row)] = row
        return {"history": history}

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """The network's outputs for these items to answers."""
        rows = zip(outputs["scores"], items, strict=True)
        return [self._answer(scores, item) for scores, item in rows]

    def score(self, prediction: Prediction, truth: GroundTruth) -> float:
        """The share of what the user took that is among the first 10 recommendations, or among all
        where fewer were asked for.

        What the model does not know is not asked of it; ValueError when it knows none.
        """
        wanted = self.known(truth.items)
        if not wanted:
            first = str(truth.items[0])
            shown = first if len(first) <= 40 else f"{first[:39]}…"
            raise ValueError(f"items: this model knows none of them ({shown!r} is the first)")
        first = self.known([recommended.item for recommended in prediction.items[:K]])
        return len(set(first) & set(wanted)) / len(wanted)

    def item(self, history: np.ndarray) -> dict[str, Any]:
        """A list of numbers as a request's item."""
        return {"items": [self.items[number - 1] for number in history.tolist() if number], "k": 5}

    def features(self, inputs: Arrays) -> Arrays:
        """The few numbers per item that drift is watched on: how many known items a user has, and
        which share of the training users has them: the mean, and the rarest of them."""
        history = inputs["history"]
        shares = np.append(0.0, self.shares)[history]
        known = ranking.lengths(history)
        rarest = np.where(history > 0, shares, 1.0).min(axis=1)
        return {
            "known_items": known,
            "popularity": shares.sum(axis=1) / np.maximum(known, 1),
            "rarest": np.where(known > 0, rarest, 0.0),
        }

    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """What of the answers drift is watched on."""
        first = outputs["scores"].argmax(axis=1)
        return {"item": np.array(self.items)[first], "popularity": self.shares[first]}

    def known(self, names: Sequence[str | int]) -> list[int]:
        """The numbers of the known ones, each once, in their order."""
        found = (self.numbers.get(str(name)) for name in names)
        return list(dict.fromkeys(number for number in found if number is not None))

    def _answer(self, scores: np.ndarray, item: Item) -> Prediction:
        known, excluded = self.known(item.items), self.known(item.exclude)
        own = ranking.marks(np.array([known], int), len(self.items))
        hidden = own | ranking.marks(np.array([excluded], int), len(self.items))
        odds = np.exp(scores - scores.max(), dtype=float) if known else np.array(self.counts, float)
        shares = odds / max(odds[~own[0]].sum(), np.finfo(float).tiny)
        first = ranking.best(shares[None], hidden, item.k)[0]
        asked = [str(name) for name in [*item.items, *item.exclude]]
        return Prediction(
            items=[
                self._recommended(place, float(shares[place])) for place in first[first > 0] - 1
            ],
            unknown=list(dict.fromkeys(name for name in asked if name not in self.numbers)),
            fallback=not known,
        )

    def _recommended(self, place: int, score: float) -> Recommended:
        title = self.titles[place] if self.titles else None
        return Recommended(item=self.items[place], title=title, score=score)


def item_from_file(path: Path) -> dict[str, Any]:
    """A file as a request's item: JSON as it is, a Python file by its imports, else a name a line.

    UserError in one line naming the file when it is none of these.
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
