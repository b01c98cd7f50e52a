"""Load, check and split the texts, and turn them into tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ..config import UserError
from ..interfaces import Arrays, LabelledItem, Splits
from . import docstrings, splits, tables
from .contract import Contract
from .settings import DataSettings
from .texts import PARTS, Part

SPECIAL = ["[PAD]", "[UNK]", "[MASK]"]
SIGNS = 300  # so many different signs are told apart, the most frequent ones


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `tokens` int64 (n, token), filled up with the contract's `pad`, and `label`
    int64 (n,)."""

    contract: Contract
    texts: dict[str, list[str]]  # of each split and of `unseen`, as they were read
    unlabelled: np.ndarray  # tokens (n, token) of texts to learn the language from
    unseen: dict[str, Arrays]  # by name: data of another kind, to be measured apart

    def example(self) -> dict[str, Any]:
        """A request's item, made of the first test text."""
        return {"text": self.texts["test"][0]}

    @property
    def filler(self) -> int:
        """The token that fills up shorter texts."""
        return self.contract.pad

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Requests with their classes as a split's arrays; ValueError for unusable ones."""
        return splits.labelled_arrays(self.contract, pairs)

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """The splits without a random `share` of the test rows, and these rows; they have their
        `text` too, which is an array of objects."""
        texts = np.array(self.texts["test"], dtype=object)
        kept, aside = splits.drawn(len(texts), share)
        test = {name: array[kept] for name, array in self.test.items()}
        rest = {name: array[aside] for name, array in self.test.items()} | {"text": texts[aside]}
        less = replace(self, test=test, texts={**self.texts, "test": texts[kept].tolist()})
        return less, rest

    def with_examples(self, fresh: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """The splits with more examples at their ends; `fresh` has them by the split's name."""
        texts = {
            name: [*self.texts[name], *(item.text for item, _ in pairs)]
            for name, pairs in fresh.items()
        }
        return replace(super().with_examples(fresh), texts={**self.texts, **texts})


def load(settings: DataSettings) -> Dataset:
    """The data that the settings name; UserError in one line naming the file when it is unfit."""
    found = (docstrings if settings.source == "docstrings" else tables).read(settings)
    parts, unlabelled = found.parts, found.unlabelled
    if settings.limit is not None:
        for part in parts.values():
            del part.texts[settings.limit :], part.labels[settings.limit :]
        unlabelled = unlabelled[: 4 * settings.limit]
    labels = sorted({label for part in parts.values() for label in part.labels})
    splits.two_classes(found.where, labels)
    if settings.tokenizer is None:
        tokenizer = learn([*parts["train"].texts, *unlabelled], settings.vocabulary)
    else:
        tokenizer = fetch(settings.tokenizer)
    contract = describe(tokenizer, labels, settings)
    arrays = {name: encode(contract, part, found.where) for name, part in parts.items()}
    dataset = Dataset(
        *(arrays.pop(name) for name in PARTS),
        about=found.about,
        contract=contract,
        texts={name: part.texts for name, part in parts.items()},
        unlabelled=contract.stack([row for row in contract.tokenize(unlabelled) if row.ids]),
        unseen=arrays,
    )
    shares = "data.validation_share, data.test_share"
    return splits.checked(found.where, dataset, labels, "text", shares)


def encode(contract: Contract, part: Part, where: str) -> Arrays:
    """A part's texts and classes as arrays."""
    rows = contract.tokenize(part.texts)
    for text, row in zip(part.texts, rows, strict=True):
        if contract.is_empty(row):
            raise UserError(f"{where}: the text {text[:40]!r} holds nothing to read")
    number = {label: index for index, label in enumerate(contract.labels)}
    labels = np.array([number[label] for label in part.labels], np.int64)
    return {"tokens": contract.stack(rows), "label": labels}


def learn(texts: list[str], vocabulary: int) -> Tokenizer:
    """A WordPiece tokenizer for texts like these. Wu et al., https://arxiv.org/abs/1609.08144"""
    normalizer = normalizers.BertNormalizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    del counts[" "]
    signs = [sign for sign, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))][:SIGNS]
    tokenizer = _wordpiece(normalizer, {})
    # The library numbers signs inside of words as it meets them, in an order that changes from one
    # process to the next, and decides by these numbers between equally frequent pairs. Named
    # beforehand, as if they were special, they have the same numbers each time.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *(f"##{sign}" for sign in signs)],
        initial_alphabet=signs,
        limit_alphabet=len(signs),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    final = _wordpiece(normalizer, tokenizer.get_vocab())
    final.add_special_tokens(SPECIAL)
    return final


def _wordpiece(normalizer: normalizers.Normalizer, vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def fetch(name: str) -> Tokenizer:
    """The tokenizer.json of a folder or, if there is no such folder, of a repository on the hub."""
    try:
        if Path(name).is_dir():
            return Tokenizer.from_file(str(Path(name) / "tokenizer.json"))
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises nothing more special
        reason = " ".join(str(error).split())
        raise UserError(f"data.tokenizer: {name}: no tokenizer.json to be had: {reason}") from None


def describe(tokenizer: Tokenizer, labels: list[str], settings: DataSettings) -> Contract:
    """The contract of a tokenizer and its classes."""
    numbers = tokenizer.get_vocab()

    def number(*names: str) -> int:
        return next((numbers[name] for name in names if name in numbers), -1)

    pad = number("[PAD]", "<pad>")
    if pad < 0:
        raise UserError(f"data.tokenizer: {settings.tokenizer}: has no token [PAD] or <pad>")
    return Contract(
        labels=labels,
        max_tokens=settings.tokens,
        pad=pad,
        unknown=number("[UNK]", "<unk>"),
        tokenizer=tokenizer.to_str(),
    )
