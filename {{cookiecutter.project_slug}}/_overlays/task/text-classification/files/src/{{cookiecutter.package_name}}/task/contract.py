"""What a request and an answer look like, and the way from one to the network and back.

Training and the server call these same functions, so the two cannot drift apart. The server's
environment holds no torch: this module needs NumPy, tokenizers and pydantic only.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Encoding, Tokenizer

from ..config import UserError
from ..interfaces import Arrays, BaseContract, InvalidItem
from . import classes
from .classes import OUTPUTS, SCORE, Classified, GroundTruth

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "SCORE",
    "Contract",
    "GroundTruth",
    "Item",
    "Prediction",
    "item_from_file",
]

# The network's inputs in the order of its `forward`, each with the names of those axes beside the
# first that may have any length: {1: "time"}.
INPUTS: dict[str, dict[int, str]] = {"tokens": {1: "token"}}

MAX_CHARACTERS = 100_000
# A token rarely stands for more characters than this on average; what lies behind is cut unread,
# so that a long text costs no more than one that just fills the network.
CHARACTERS_PER_TOKEN = 32


class Item(BaseModel):
    """One text."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="what to classify; what goes beyond the model's length is not read",
    )


class Prediction(Classified):
    """The most probable class, how probable each class is, and whether the text was cut."""

    truncated: bool


class Contract(BaseContract):
    """The classes, and the tokenizer, which travels as a file of its own."""

    TASK: ClassVar[str] = "text-classification"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth
    TOKENIZER: ClassVar[str] = "tokenizer.json"

    labels: list[str]
    max_tokens: int
    pad: int  # number of the token that fills up the shorter texts of a batch
    unknown: int  # number of the token for what the tokenizer does not know, -1 without one
    tokenizer: str = Field(exclude=True, repr=False)  # the file's content

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the contract from a bundle's folder; ValueError when it is another's."""
        own = json.loads((folder / cls.FILE).read_bytes())
        if not isinstance(own, dict):
            raise ValueError("holds no names and values")
        text = (folder / cls.TOKENIZER).read_text(encoding="utf-8")
        return cls.model_validate({**own, "tokenizer": text})

    def save(self, folder: Path) -> None:
        """Write the contract into a bundle's folder."""
        super().save(folder)
        (folder / self.TOKENIZER).write_text(self.tokenizer, encoding="utf-8")

    def encode(self, items: list[Item]) -> Arrays:
        """Requests to the network's inputs: `tokens`, int64 (item, token), filled up with `pad`.

        Raises InvalidItem for what the schema cannot express.
        """
        rows = self.tokenize([item.text for item in items])
        for index, row in enumerate(rows):
            if self.is_empty(row):
                raise InvalidItem(index, "text", "holds nothing to read")
        return {"tokens": self.stack(rows)}

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """The network's outputs for these items to answers."""
        rows = self.tokenize([item.text for item in items])
        return [
            Prediction(**fields, truncated=self.is_cut(item.text, row))
            for fields, item, row in zip(
                classes.decode(outputs, self.labels), items, rows, strict=True
            )
        ]

    def score(self, prediction: Prediction, truth: GroundTruth) -> float:
        """1 for a right answer, else 0. ValueError for a truth of a class that is not known."""
        return classes.score(prediction, truth, self.labels)

    def features(self, inputs: Arrays) -> Arrays:
        """The few numbers per item that drift is watched on.

        `rarity` is the mean binary logarithm of the tokens' numbers, for vocabularies list what is
        frequent first.
        """
        tokens = inputs["tokens"]
        there = tokens != self.pad
        count = there.sum(axis=1)
        return {
            "tokens": count.astype(np.float64),
            "unknown_share": ((tokens == self.unknown) & there).sum(axis=1) / count,
            "rarity": (np.log2(tokens + 1.0) * there).sum(axis=1) / count,
        }

    def prediction_stats(self, outputs: Arrays) -> Arrays:
        """What of the answers drift is watched on."""
        return classes.prediction_stats(outputs, self.labels)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._library.get_vocab_size()

    @property
    def mask(self) -> int | None:
        """Number of the token that stands for a hidden one, None without one."""
        numbers = (self._library.token_to_id(name) for name in ("[MASK]", "<mask>"))
        return next((number for number in numbers if number is not None), None)

    def tokenize(self, texts: list[str]) -> list[Encoding]:
        """Each text's tokens, cut to the network's length."""
        return self._library.encode_batch([self._readable(text) for text in texts])

    def stack(self, rows: Sequence[Encoding]) -> np.ndarray:
        """Tokens int64 (text, token), filled up with `pad` to the longest text."""
        longest = max((len(row.ids) for row in rows), default=1)
        tokens = np.full((len(rows), longest), self.pad, np.int64)
        for place, row in zip(tokens, rows, strict=True):
            place[: len(row.ids)] = row.ids
        return tokens

    def is_empty(self, row: Encoding) -> bool:
        """Whether a text has no tokens but those that the tokenizer puts around every text."""
        return 0 not in row.special_tokens_mask

    def is_cut(self, text: str, row: Encoding) -> bool:
        """Whether the network does not read a text to its end."""
        return bool(row.overflowing) or len(self._readable(text)) < len(" ".join(text.split()))

    def _readable(self, text: str) -> str:
        return " ".join(text.split())[: CHARACTERS_PER_TOKEN * self.max_tokens]

    @cached_property
    def _library(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.encode_special_tokens = True  # who writes [PAD] means these signs
        return tokenizer


def item_from_file(path: Path) -> dict[str, Any]:
    """A text file as a request's item."""
    try:
        return {"text": path.read_text(encoding="utf-8")}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
