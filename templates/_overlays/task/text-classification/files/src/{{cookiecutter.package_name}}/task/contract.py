"""Requests, predictions and their encoding, the same in training and on the server.

The server imports this module: it needs NumPy, tokenizers and pydantic only.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Encoding, Tokenizer

from ..arrays import Arrays
from ..config import UserError
from ..interfaces import InvalidItem
from .classes import OUTPUTS as OUTPUTS
from .classes import SCORE, ClassContract, Classified, GroundTruth, TopK

# In the order of `forward`; per input, the names of its variable axes besides the batch.
INPUTS: dict[str, dict[int, str]] = {"tokens": {1: "token"}}

MAX_CHARACTERS = 100_000
# The rest of a text is cut before tokenization, so that long ones cost no more; tokens are rarely
# longer than this on average.
CHARACTERS_PER_TOKEN = 32
ORDINARY_CHARACTERS = 500
# Per character, measured on one core: to cut a text, and to tokenize what is left of it.
CUT_SECONDS, TOKENIZE_SECONDS = 3e-8, 5e-7


class Item(BaseModel):
    """One text."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="text to classify; what exceeds the model's length is not read",
    )
    top_k: TopK = None


class Prediction(Classified):
    """The most probable class, the probability of each class, and whether the text was cut."""

    truncated: bool


class Contract(ClassContract):
    """The classes, and the tokenizer, which is a separate file in the bundle."""

    TASK: ClassVar[str] = "text-classification"
    SCORE: ClassVar = SCORE
    PREDICTION: ClassVar = Prediction
    GROUND_TRUTH: ClassVar = GroundTruth
    TOKENIZER: ClassVar[str] = "tokenizer.json"

    max_tokens: int
    pad: int  # id of the token that pads the shorter texts of a batch
    unknown: int  # id of the token for unknown words, -1 without one
    tokenizer: str = Field(exclude=True, repr=False)  # the content of tokenizer.json

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the contract from a bundle's folder; ValueError if it belongs to another task."""
        fields = json.loads((folder / cls.FILE).read_bytes())
        if not isinstance(fields, dict):
            raise ValueError("is not a JSON object")
        text = (folder / cls.TOKENIZER).read_text(encoding="utf-8")
        return cls.model_validate({**fields, "tokenizer": text})

    def save(self, folder: Path) -> None:
        """Write the contract into a bundle's folder."""
        super().save(folder)
        (folder / self.TOKENIZER).write_text(self.tokenizer, encoding="utf-8")

    def encode(self, items: list[Item]) -> Arrays:
        """Encode items as `tokens`, int64 (item, token), padded with `pad`.

        Raises InvalidItem for what the schema cannot express.
        """
        rows = self.tokenize([item.text for item in items])
        for index, row in enumerate(rows):
            if self.is_empty(row):
                raise InvalidItem(index, "text", "contains no readable character")
        return {"tokens": self.stack(rows)}

    def encoding_seconds(self, item: Item) -> float:
        length = len(item.text)
        tokenized = min(length, CHARACTERS_PER_TOKEN * self.max_tokens)
        return CUT_SECONDS * length + TOKENIZE_SECONDS * max(0, tokenized - ORDINARY_CHARACTERS)

    def decode(self, outputs: Arrays, items: Sequence[Item]) -> list[Prediction]:
        """Decode `logits` (item, class) into one prediction per item."""
        rows = self.tokenize([item.text for item in items])
        decoded = self.decoded(outputs, [item.top_k for item in items])
        return [
            Prediction(**fields, truncated=self.is_truncated(item.text, row))
            for fields, item, row in zip(decoded, items, rows, strict=True)
        ]

    def features(self, inputs: Arrays) -> Arrays:
        """Return number of tokens, share of unknown ones and rarity (item,) of each text.

        `rarity` is the mean log2 of the tokens' ids: vocabularies list frequent tokens first.
        """
        tokens = inputs["tokens"]
        is_token = tokens != self.pad
        count = is_token.sum(axis=1)
        return {
            "tokens": count.astype(np.float64),
            "unknown_share": ((tokens == self.unknown) & is_token).sum(axis=1) / count,
            "rarity": (np.log2(tokens + 1.0) * is_token).sum(axis=1) / count,
        }

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the tokenizer knows."""
        return self._library.get_vocab_size()

    @property
    def mask(self) -> int | None:
        """The id of the mask token, None without one."""
        ids = (self._library.token_to_id(name) for name in ("[MASK]", "<mask>"))
        return next((id_ for id_ in ids if id_ is not None), None)

    def tokenize(self, texts: list[str]) -> list[Encoding]:
        """Tokenize texts, truncated to the network's length."""
        return self._library.encode_batch([self._readable(text) for text in texts])

    def stack(self, rows: Sequence[Encoding]) -> np.ndarray:
        """Stack token ids as int64 (text, token), padded with `pad` to the longest text."""
        longest = max((len(row.ids) for row in rows), default=1)
        tokens = np.full((len(rows), longest), self.pad, np.int64)
        for place, row in zip(tokens, rows, strict=True):
            place[: len(row.ids)] = row.ids
        return tokens

    def is_empty(self, row: Encoding) -> bool:
        """Return whether a text has only the tokens that the tokenizer adds to every text."""
        return 0 not in row.special_tokens_mask

    def is_truncated(self, text: str, row: Encoding) -> bool:
        """Return whether the network reads only a part of a text."""
        return bool(row.overflowing) or len(self._readable(text)) < len(" ".join(text.split()))

    def _readable(self, text: str) -> str:
        return " ".join(text.split())[: CHARACTERS_PER_TOKEN * self.max_tokens]

    @cached_property
    def _library(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.encode_special_tokens = True  # "[PAD]" in a text is five characters, not a token
        return tokenizer


def item_from_file(path: Path) -> dict[str, Any]:
    """Read a text file as a request's item (JSON)."""
    try:
        return {"text": path.read_text(encoding="utf-8")}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
