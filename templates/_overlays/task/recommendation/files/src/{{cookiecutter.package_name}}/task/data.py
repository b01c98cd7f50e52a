"""Load the interactions, filter and split them.

Users are stored as lists of at most `data.longest` items: 12 MB for MovieLens-1M (6,040 × 3,706),
where each (user × item) matrix would take 90 MB. The network expands one batch at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from ..arrays import Arrays, random_holdout
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import imports
from .contract import MAX_ITEMS, Contract
from .interactions import Interactions, read_interactions
from .movielens import read_movielens
from .settings import DataSettings
from .user_splits import HOLDOUT_RATIO, SplitUsers, UserRow, split_by_time, split_by_user

MANY_ITEMS = 10_000  # models of items × items take gigabytes beyond
IMPORTS_LIMITS = (
    "The sources of a few dozen libraries: some packages dominate, other people's code imports "
    "differently, and many internal modules are useless elsewhere.",
    "They contain no personal data.",
)
REQUEST_USER = "from a request"  # the name of users added to the test split


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `history` and `target`, int32 (user, length): item numbers from 1, padded with 0;
    and `seen` bool (user,): whether the user is in training.

    In the training split, history and target are both learned from.
    """

    contract: Contract
    test_users: list[str]  # the name of each row of the test split
    by_library: bool = field(default=False, kw_only=True)  # users are the files of libraries

    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test user."""
        return self.contract.item(self.test["history"][0])

    def test_clusters(self) -> np.ndarray | None:
        """Number the library (n,) of each test user that is a file: its files import alike."""
        if not self.by_library:
            return None
        names = enumerate(self.test_users)
        groups = [f"{row}" if name == REQUEST_USER else name.split("/")[0] for row, name in names]
        return np.unique(groups, return_inverse=True)[1]

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Encode requests and the items chosen after them as rows of a split.

        Unknown items are left out, and chosen items that the user already has. Raises ValueError
        if one of the lists is then empty.
        """
        rows: list[UserRow] = []
        for place, (item, ground_truth) in enumerate(pairs):
            history = self.contract.numbers_of(item.items)[-MAX_ITEMS:]
            chosen = self.contract.numbers_of(ground_truth.items)
            target = [number for number in chosen if number not in history]
            for action, numbers in (("has no", history), ("chose no new", target)):
                if not numbers:
                    reason = f"the user {action} item that this model knows"
                    raise ValueError(f"example {place}: {reason}")
            rows.append(UserRow(np.array(history, np.int32), np.array(target, np.int32), False))
        longest = max((len(row.history) for row in rows), default=1)
        return _pad(rows, longest, max((len(row.target) for row in rows), default=1))

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """Split a random `share` of the test rows off; return the other splits and these rows."""
        kept, held_out = random_holdout(len(self.test_users), share)
        test = {name: array[kept] for name, array in self.test.items()}
        users = [self.test_users[row] for row in kept]
        rows = {name: array[held_out] for name, array in self.test.items()}
        return replace(self, test=test, test_users=users), rows

    def with_examples(self, new: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """Append labelled items to the splits; `new` holds them by the split's name."""
        users = [*self.test_users, *[REQUEST_USER] * len(new.get("test", []))]
        return replace(super().with_examples(new), test_users=users)


def load(settings: DataSettings) -> Dataset:
    """Load the data that the settings name; UserError in one line that names a bad file."""
    if settings.source == "imports":
        interactions, about = _load_imports(settings)
    else:
        read = read_movielens if settings.source == "movielens" else read_interactions
        interactions, about = read(settings), f"Interactions from {settings.path}."
    by_time = settings.split == "time"
    split = (split_by_time if by_time else split_by_user)(settings, interactions)
    for name, rows in split.rows.items():
        if not rows:
            where = settings.path or "data.libraries"
            setting = "data.newest" if by_time else "data.folds"
            raise UserError(f"{where}: too few users, none is left for {name} ({setting})")
    contract = _contract(split)
    users, items, count = len(np.unique(split.kept.user)), len(contract.items), len(split.kept.user)
    about += (
        f" {users:,} users, {items:,} items, {count:,} interactions "
        f"({count / users / items:.2%} of the possible) {'in training ' if by_time else ''}after "
        f"dropping users and items with fewer than {settings.core}. {split.about}"
    )
    return Dataset(
        *_pad_splits(split),
        about,
        contract,
        split.test_users,
        notes=tuple(interactions.notes),
        limits=IMPORTS_LIMITS if settings.source == "imports" else (),
        by_library=settings.source == "imports",
    )


def folds(settings: DataSettings, count: int) -> list[DataSettings]:
    """Return the settings of each fold: every user tests once, or by time a rolling origin."""
    return [settings.model_copy(update={"folds": count, "test_fold": k}) for k in range(count)]


def _load_imports(settings: DataSettings) -> tuple[Interactions, str]:
    files, versions = imports.imports_of_libraries(settings.libraries, settings.cache)
    users: dict[tuple[str, ...], str] = {}
    for name, modules in files.items():
        if len(modules) >= settings.core:
            users.setdefault(tuple(modules), name)  # copies would be in two splits
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(module, len(numbers)) for modules in users for module in modules]
    interactions = Interactions(
        users=list(users.values()),
        items=list(numbers),
        user=np.repeat(np.arange(len(users)), [len(modules) for modules in users]),
        item=np.array(places, np.int64),
    )
    about = (
        f"The imports of the source files of Python {versions['python']}'s standard library and of "
        f"{len(versions) - 1} installed libraries: a file is a user, an imported module an item. "
        "Tests and files with the same imports as another are left out."
    )
    return interactions, about


def _contract(split: SplitUsers) -> Contract:
    """Number the items of the catalogue and count what training has of each; note unclear names."""
    kept, train = split.kept, split.rows["train"]
    names = [kept.items[place] for place in np.unique(kept.item)]
    learned = np.concatenate([np.concatenate([row.history, row.target]) for row in train])
    contract = Contract(
        items=names,
        titles=[kept.titles.get(name) or name for name in names] if kept.titles else None,
        counts=np.bincount(learned - 1, minlength=len(names)).tolist(),
        users=len(train),
    )
    untitled = sum(name not in kept.titles for name in names) if kept.titles else 0
    shared, hidden = contract.unclear_titles()
    many = len(names) if len(names) > MANY_ITEMS else 0
    gigabytes = 8 * len(names) ** 2 / 1e9
    for what, count, then in (
        ("Items without a title", untitled, "their id stands for it"),
        ("Items that share a title", shared, "requests find them by id only"),
        ("Titles that are another item's id", hidden, "in requests the id counts"),
        ("Items", many, f"{gigabytes:.1f} GB per item-item matrix; data.core leaves fewer"),
    ):
        if count:
            kept.notes.append(f"{what}: {count:,}; {then}.")
    return contract


def _pad_splits(split: SplitUsers) -> tuple[Arrays, Arrays, Arrays]:
    """Return the arrays of training, validation and test."""
    everyone = [row for rows in split.rows.values() for row in rows]
    length = max(len(row.history) for row in everyone)
    # By users a fifth, rounded, is held out: the longest history bounds the targets.
    bound = max(1, round((length + 1) / (HOLDOUT_RATIO - 1)) + 1)
    target_length = max(bound, *(len(row.target) for row in everyone))
    train, validation, test = (_pad(rows, length, target_length) for rows in split.rows.values())
    return train, validation, test


def _pad(rows: list[UserRow], length: int, target_length: int) -> Arrays:
    arrays = {
        "history": np.zeros((len(rows), length), np.int32),
        "target": np.zeros((len(rows), target_length), np.int32),
        "seen": np.array([row.seen for row in rows], bool),
    }
    for number, row in enumerate(rows):
        arrays["history"][number, : len(row.history)] = row.history
        arrays["target"][number, : len(row.target)] = row.target
    return arrays
