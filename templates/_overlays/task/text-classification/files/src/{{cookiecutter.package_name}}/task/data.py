"""Load, check, split and tokenize the texts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ..arrays import Arrays, random_holdout
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import docstrings, splits, tables
from .contract import Contract
from .settings import DataSettings
from .texts import SPLIT_NAMES, LabelledTexts

SPECIAL = ["[PAD]", "[UNK]", "[MASK]"]
ALPHABET_SIZE = 300  # the most frequent characters; others are unknown to the tokenizer


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `tokens` int64 (n, token), padded with `contract.pad`, and `label` int64 (n,)."""

    contract: Contract
    texts: dict[str, list[str]]  # the original texts of each split and of `unseen`
    unlabelled: np.ndarray  # tokens (n, token) of the texts for pre-training
    unseen: dict[str, Arrays]  # by name: out-of-domain data, evaluated separately

    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test text."""
        return {"text": self.texts["test"][0]}

    @property
    def pad_value(self) -> int:
        """The id of the token that pads shorter texts."""
        return self.contract.pad

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Encode items and their classes as rows of a split; ValueError for unusable ones."""
        return splits.encode_labelled_items(self.contract, pairs)

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """Split a random `share` of the test rows off; return the other splits and these rows.

        The rows also have `text`, an array of objects.
        """
        texts = np.array(self.texts["test"], dtype=object)
        kept, held_out = random_holdout(len(texts), share)
        test = {name: array[kept] for name, array in self.test.items()}
        rows = {name: array[held_out] for name, array in self.test.items()}
        remaining = replace(self, test=test, texts={**self.texts, "test": texts[kept].tolist()})
        return remaining, {**rows, "text": texts[held_out]}

    def keep_rows(self, rows: Mapping[str, np.ndarray]) -> Self:
        """Keep only these rows (n,) of the splits that are named."""
        texts = {name: [self.texts[name][row] for row in chosen] for name, chosen in rows.items()}
        return replace(super().keep_rows(rows), texts={**self.texts, **texts})

    def with_examples(self, new: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """Append labelled items to the splits; `new` holds them by the split's name."""
        texts = {
            name: [*self.texts[name], *(item.text for item, _ in pairs)]
            for name, pairs in new.items()
        }
        return replace(super().with_examples(new), texts={**self.texts, **texts})


def load(settings: DataSettings) -> Dataset:
    """Load the data that the settings name; UserError in one line that names a bad file."""
    # 1. Read the texts.
    is_table = settings.source == "csv"
    corpus = tables.read_tables(settings) if is_table else docstrings.read_docstrings(settings)
    by_split, unlabelled = corpus.by_split, corpus.unlabelled
    if settings.limit is not None:
        for part in by_split.values():
            part.limit(settings.limit)
        unlabelled = unlabelled[: 4 * settings.limit]
    labels = sorted({label for part in by_split.values() for label in part.labels})
    splits.require_two_classes(corpus.source, labels)
    # 2. Train or fetch the tokenizer.
    if settings.tokenizer is not None:
        tokenizer = fetch_tokenizer(settings.tokenizer)
    else:
        tokenizer = train_tokenizer([*by_split["train"].texts, *unlabelled], settings.vocabulary)
    contract = make_contract(tokenizer, labels, settings)
    # 3. Encode.
    arrays, cut = {}, {}
    for name, part in by_split.items():
        arrays[name], cut[name] = encode(contract, part, corpus.source)
    notes = [*corpus.notes, *_note_on_length(settings, by_split, cut)]
    dataset = Dataset(
        *(arrays.pop(name) for name in SPLIT_NAMES),
        about=corpus.about,
        contract=contract,
        texts={name: part.texts for name, part in by_split.items()},
        unlabelled=contract.stack([row for row in contract.tokenize(unlabelled) if row.ids]),
        unseen=arrays,
        limits=() if is_table else docstrings.LIMITS,
        notes=tuple(notes),
    )
    shares = "data.validation_share, data.test_share"
    return splits.check_splits(corpus.source, dataset, labels, "text", shares)


def folds(settings: DataSettings, count: int) -> list[DataSettings]:
    """Return the settings of each fold: every source file, or every text of a table, tests once."""
    if settings.source == "csv" and (settings.test_path or settings.split):
        raise UserError(
            "data.test_path and data.split name the test texts, so every fold would test the same "
            "ones; for folds leave them out"
        )
    return [settings.model_copy(update={"folds": count, "test_fold": k}) for k in range(count)]


def encode(contract: Contract, part: LabelledTexts, source: str) -> tuple[Arrays, int]:
    """Encode texts and classes as `tokens` (n, token) and `label` (n,); count the texts cut."""
    rows = contract.tokenize(part.texts)
    for text, row in zip(part.texts, rows, strict=True):
        if contract.is_empty(row):
            raise UserError(f"{source}: the text {text[:40]!r} contains no readable character")
    index_of = {label: index for index, label in enumerate(contract.labels)}
    labels = np.array([index_of[label] for label in part.labels], np.int64)
    cut = sum(map(contract.is_truncated, part.texts, rows))
    return {"tokens": contract.stack(rows), "label": labels}, cut


def _note_on_length(
    settings: DataSettings, by_split: dict[str, LabelledTexts], cut: dict[str, int]
) -> Iterator[str]:
    """Tell how many texts the network reads only in part."""
    count, total = sum(cut.values()), sum(len(part.texts) for part in by_split.values())
    if count:
        yield (
            f"{count:,} of {total:,} texts ({count / total:.1%}) are longer than data.tokens="
            f"{settings.tokens}: the network reads only their beginning."
        )


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """Train a WordPiece tokenizer. Wu et al., https://arxiv.org/abs/1609.08144"""
    normalizer = normalizers.BertNormalizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    del counts[" "]
    by_frequency = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    alphabet = [character for character, _ in by_frequency[:ALPHABET_SIZE]]
    tokenizer = _wordpiece(normalizer, {})
    # Without this declaration as special tokens, characters inside words get ids in an order that
    # differs between processes, and ties between equally frequent pairs are broken by these ids.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *(f"##{character}" for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = _wordpiece(normalizer, tokenizer.get_vocab())
    trained.add_special_tokens(SPECIAL)
    return trained


def _wordpiece(normalizer: normalizers.Normalizer, vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def fetch_tokenizer(name: str) -> Tokenizer:
    """Load tokenizer.json from a folder or, if there is no such folder, from the hub."""
    try:
        if Path(name).is_dir():
            return Tokenizer.from_file(str(Path(name) / "tokenizer.json"))
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises nothing more specific
        reason = " ".join(str(error).split())
        raise UserError(f"data.tokenizer: {name}: cannot load tokenizer.json: {reason}") from None


def make_contract(tokenizer: Tokenizer, labels: list[str], settings: DataSettings) -> Contract:
    """Make the contract of a tokenizer and the classes."""
    ids = tokenizer.get_vocab()
    pad = ids.get("[PAD]", ids.get("<pad>"))
    if pad is None:
        raise UserError(f"data.tokenizer: {settings.tokenizer}: has no token [PAD] or <pad>")
    unknown, text = ids.get("[UNK]", ids.get("<unk>", -1)), tokenizer.to_str()
    tokens = settings.tokens
    return Contract(labels=labels, max_tokens=tokens, pad=pad, unknown=unknown, tokenizer=text)
