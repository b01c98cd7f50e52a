"""Filter and split the interactions.

The split is by user: validation and test users are not in training. A fifth of each user's items,
the last ones if times are known, is held out and to be predicted from the rest. The hash of a
user's name decides the split, so adding users moves none. A few training users are tested too: the
items held out for the test are not in training.

Users are stored as lists of at most `data.longest` items: 12 MB for MovieLens-1M (6,040 × 3,706),
where each (user × item) matrix would take 90 MB. The network expands one batch at a time.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from ..arrays import Arrays, random_holdout
from ..config import UserError
from ..interfaces import LabelledItem, Splits
from . import imports, tables
from .contract import MAX_ITEMS, Contract
from .settings import DataSettings
from .tables import Interactions

IMPORTS_LIMITS = (
    "The sources of a few dozen libraries: some packages dominate, other people's code imports "
    "differently, and many internal modules are useless elsewhere.",
    "They contain no personal data.",
)
HOLDOUT_RATIO = 5  # one of so many items is held out
REQUEST_USER = "from a request"  # the name of users added to the test split


class UserRow(NamedTuple):
    """A user's item numbers, and whether the user is in training."""

    history: np.ndarray
    target: np.ndarray
    seen: bool


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `history` and `target`, int32 (user, length): item numbers from 1, padded with 0;
    and `seen` bool (user,): whether the user is in training.

    In the training split, history and target are both learned from.
    """

    contract: Contract
    test_users: list[str]  # the name of each row of the test split

    def example(self) -> dict[str, Any]:
        """Build a request's item (JSON) from the first test user."""
        return self.contract.item(self.test["history"][0])

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
        read = tables.read_csv if settings.source == "csv" else tables.read_movielens
        interactions = read(settings)
        order = "the last fifth" if interactions.time is not None else "a fifth"
        about = f"Interactions from {settings.path}; {order} of each user's items is held out."
        if interactions.low:
            about += f" {interactions.low:,} ratings below {settings.min_rating:g} are ignored."
        if interactions.repeated:
            about += f" {interactions.repeated:,} repeated rows count once."
    dataset = _split_users(settings, interactions, about)
    limits = IMPORTS_LIMITS if settings.source == "imports" else ()
    return replace(dataset, limits=limits)


def _load_imports(settings: DataSettings) -> tuple[Interactions, str]:
    files, versions = imports.imports_of_libraries(settings.libraries, settings.cache)
    interactions, numbers, seen = Interactions(), {}, set()
    for name, file_modules in files.items():
        key = tuple(file_modules)
        if key in seen or len(key) < settings.core:
            continue  # copies would be in two splits
        seen.add(key)
        interactions.user.extend([len(interactions.users)] * len(key))
        interactions.item.extend(numbers.setdefault(module, len(numbers)) for module in key)
        interactions.users.append(name)
    interactions.items = list(numbers)
    about = (
        f"The imports of the source files of Python {versions['python']}'s standard library and of "
        f"{len(versions) - 1} installed libraries: a file is a user, an imported module an item. "
        "Tests and files with the same imports as another are left out; a fifth of each file's "
        "modules is held out."
    )
    return interactions, about


def _split_users(settings: DataSettings, interactions: Interactions, about: str) -> Dataset:
    # 1. Drop users and items with too few interactions; number the remaining items.
    user, item, time = interactions.arrays()
    kept = _core(user, item, settings.core)
    where = settings.path or "data.libraries"
    if not kept.any():
        core = settings.core
        reason = f"no user with {core} items that {core} users have is left (data.core)"
        raise UserError(f"{where}: {reason}")
    user, item = user[kept], item[kept]
    ids, item = np.unique(item, return_inverse=True)
    numbers = item + 1
    names = [interactions.items[number] for number in ids]
    # 2. Sort each user's items by time, or else by hash.
    keys = [_pair_hashes(interactions.users, names, user, item), user]
    if time is not None:
        keys.insert(1, time[kept])
    order = np.lexsort(keys)
    people, starts = np.unique(user[order], return_index=True)
    lists = np.split(numbers[order], starts[1:])

    # 3. Assign users to splits by hash; hold items out.
    by_split: dict[str, list[UserRow]] = {"train": [], "validation": [], "test": []}
    test_users, validation_fold = [], (settings.test_fold - 1) % settings.folds
    for person, all_items in zip(people, lists, strict=True):
        name = interactions.users[person]
        digest = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        remainder, fold = divmod(digest, settings.folds)
        history, target = _hold_out(all_items[-settings.longest :])
        if fold == validation_fold:
            by_split["validation"].append(UserRow(history, target, False))
            continue
        in_train = fold != settings.test_fold
        in_test = not in_train or remainder % 1000 < 1000 * settings.warm
        if in_test:
            by_split["test"].append(UserRow(history, target, in_train))
            test_users.append(name)
        if in_train:
            rows = _hold_out(history) if in_test else (history, target)
            by_split["train"].append(UserRow(*rows, True))
    for name, rows in by_split.items():
        if not rows:
            raise UserError(f"{where}: too few users, none is left for {name} (data.folds)")
    # 4. Pad the lists. A fifth, rounded, is held out: the longest history bounds the targets.
    length = max(len(row.history) for rows in by_split.values() for row in rows)
    target_length = max(1, round((length + 1) / (HOLDOUT_RATIO - 1)) + 1)
    arrays = {name: _pad(rows, length, target_length) for name, rows in by_split.items()}
    learned = [np.concatenate([row.history, row.target]) for row in by_split["train"]]
    titles = interactions.titles
    contract = Contract(
        items=names,
        titles=[titles.get(item_id) or item_id for item_id in names] if titles else None,
        counts=np.bincount(np.concatenate(learned) - 1, minlength=len(names)).tolist(),
        users=len(learned),
    )
    seen = int(arrays["test"]["seen"].sum())
    about += (
        f" {len(people):,} users, {len(names):,} items, {len(item):,} interactions "
        f"({len(item) / len(people) / len(names):.2%} of the possible) after dropping users and "
        f"items with fewer than {settings.core}. Users are split by a hash of their name; of the "
        f"{len(test_users):,} test users {len(test_users) - seen:,} are not in training, and of "
        f"the other {seen:,} all but the held-out items are."
    )
    return Dataset(
        *(arrays[name] for name in ("train", "validation", "test")),
        about=about,
        contract=contract,
        test_users=test_users,
    )


def _core(user: np.ndarray, item: np.ndarray, least: int) -> np.ndarray:
    """Drop users and items with fewer than `least` interactions until all have as many.

    Returns which interactions are kept, bool (row,).
    """
    kept = np.ones(len(user), bool)
    while True:
        again = kept.copy()
        for axis in (user, item):
            again &= (np.bincount(axis[kept], minlength=axis.max() + 1) >= least)[axis]
        if again.sum() == kept.sum():
            return again
        kept = again


def _pair_hashes(
    users: list[str], items: list[str], user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Hash each pair of names (row,): an order that does not depend on the other rows."""
    heads = [zlib.crc32(f"{name}\0".encode()) for name in users]
    tails = [name.encode() for name in items]
    pairs = zip(user.tolist(), item.tolist(), strict=True)
    return np.array([zlib.crc32(tails[place], heads[person]) for person, place in pairs], np.int64)


def _hold_out(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a list into history and the last fifth, the target, of at least one item each."""
    count = max(1, round(len(items) / HOLDOUT_RATIO))
    return items[:-count], items[-count:]


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
