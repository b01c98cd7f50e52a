"""Filter and split the interactions.

Users are told apart, not interactions: those who validate and test are never trained on. Of each
user a fifth of the items, the last ones where times are known, is held back; from the rest the
model has to guess them. Which part a user is in follows from a hash of the name, so users keep
their part when others are added. A few training users are tested too: what was held back of them
was hidden from training, and the rest was split once more to train on.

Lists are stored, not rows of the (user × item) matrix: for MovieLens-1M's 6,040 users and 3,706
items that is 90 MB per array, and it grows with the catalogue; lists are as long as the longest
history, `data.longest` at most (12 MB here). The network unpacks a batch at a time.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..config import UserError
from ..interfaces import Arrays, LabelledItem, Splits
from . import imports, tables
from .contract import MAX_ITEMS, Contract
from .settings import DataSettings
from .tables import Interactions

HELD_BACK = 5  # one of so many items
OUTSIDE = "from a request"  # the name of users who joined the test split


@dataclass(frozen=True)
class Dataset(Splits):
    """Splits of `history` and `target`, int32 (user, length), items from 1 and 0 to fill up, and
    `seen` bool (user,): whether training knows the user.

    In the training split target and history are two parts of what may be learned from.
    """

    contract: Contract
    test_users: list[str]  # the name of each row of the test split

    def example(self) -> dict[str, Any]:
        """A request's item, made of the first test user."""
        return self.contract.item(self.test["history"][0])

    def encode_labelled(self, pairs: Sequence[LabelledItem]) -> Arrays:
        """Requests, and what was taken after them, as a split's arrays.

        Items that the contract does not know are left out, of what was taken also those that the
        user has. Raises ValueError when one of both lists is empty then.
        """
        rows: list[tuple[np.ndarray, np.ndarray, bool]] = []
        for place, (item, truth) in enumerate(pairs):
            own = self.contract.known(item.items)[-MAX_ITEMS:]
            taken = [number for number in self.contract.known(truth.items) if number not in own]
            for name, numbers in (("has", own), ("took", taken)):
                if not numbers:
                    raise ValueError(f"example {place}: the user {name} nothing that is known here")
            rows.append((np.array(own, np.int32), np.array(taken, np.int32), False))
        longest = max((len(history) for history, _, _ in rows), default=1)
        return _arrays(rows, longest, max((len(target) for _, target, _ in rows), default=1))

    def holdout(self, share: float) -> tuple[Self, Arrays]:
        """The splits without a random `share` of the test rows, and these rows.

        Neighbours are files of one library: the last rows would be users of another kind.
        """
        order = np.random.default_rng(0).permutation(len(self.test_users))
        count = round((1 - share) * len(order))
        kept, aside = np.sort(order[:count]), order[count:]
        test = {name: array[kept] for name, array in self.test.items()}
        less = replace(self, test=test, test_users=[self.test_users[row] for row in kept])
        return less, {name: array[aside] for name, array in self.test.items()}

    def with_examples(self, fresh: Mapping[str, Sequence[LabelledItem]]) -> Self:
        """The splits with more examples at their ends; `fresh` has them by the split's name."""
        users = [*self.test_users, *[OUTSIDE] * len(fresh.get("test", []))]
        return replace(super().with_examples(fresh), test_users=users)


def load(settings: DataSettings) -> Dataset:
    """The data that the settings name; UserError in one line naming the file when it is unfit."""
    if settings.source == "imports":
        found, about = _imports(settings)
    else:
        read = tables.read_csv if settings.source == "csv" else tables.read_movielens
        found = read(settings)
        order = "the last fifth" if found.time is not None else "a fifth"
        about = (
            f"Interactions from {settings.path}; {order} of each user's items is held back."
            + (
                f" {found.low:,} ratings below {settings.min_rating:g} do not count."
                if found.low
                else ""
            )
            + (f" {found.repeated:,} repeated rows count once." if found.repeated else "")
        )
    return _split(settings, found, about)


def _imports(settings: DataSettings) -> tuple[Interactions, str]:
    files, versions = imports.installed(settings.libraries, settings.cache)
    found, numbers, kinds = Interactions(), {}, set()
    for name, modules in files.items():
        kind = tuple(modules)
        if kind in kinds or len(kind) < settings.core:
            continue  # copies and templates would sit in two parts at once
        kinds.add(kind)
        found.user.extend([len(found.users)] * len(kind))
        found.item.extend(numbers.setdefault(module, len(numbers)) for module in kind)
        found.users.append(name)
    found.items = list(numbers)
    about = (
        f"Which modules the source files of Python {versions['python']}'s standard library and of "
        f"{len(versions) - 1} installed libraries import: a file is a user, a module an item. "
        "Tests and files with the same imports as another are left out; a fifth of each file's "
        "modules is held back."
    )
    return found, about


def _split(settings: DataSettings, found: Interactions, about: str) -> Dataset:
    user, item, time = found.arrays()
    kept = _core(user, item, settings.core)
    where = settings.path or "data.libraries"
    if not kept.any():
        raise UserError(
            f"{where}: no user with {settings.core} items that {settings.core} users have is left "
            "(data.core)"
        )
    user, item = user[kept], item[kept]
    ids, item = np.unique(item, return_inverse=True)
    numbers = item + 1
    names = [found.items[number] for number in ids]
    keys = [_hashes(found.users, names, user, item), user]
    if time is not None:
        keys.insert(1, time[kept])
    order = np.lexsort(keys)
    people, starts = np.unique(user[order], return_index=True)
    lists = np.split(numbers[order], starts[1:])

    parts: dict[str, list[tuple[np.ndarray, np.ndarray, bool]]]
    parts = {"train": [], "validation": [], "test": []}
    tested, validating = [], (settings.test_fold - 1) % settings.folds
    for person, own in zip(people, lists, strict=True):
        own = own[-settings.longest :]
        name = found.users[person]
        digest = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        draw, fold = divmod(digest, settings.folds)
        history, target = _hold_back(own)
        if fold == settings.test_fold:
            parts["test"].append((history, target, False))
            tested.append(name)
        elif fold == validating:
            parts["validation"].append((history, target, False))
        elif draw % 1000 < 1000 * settings.warm:
            parts["test"].append((history, target, True))
            tested.append(name)
            parts["train"].append((*_hold_back(history), True))
        else:
            parts["train"].append((history, target, True))
    for name, rows in parts.items():
        if not rows:
            raise UserError(f"{where}: too few users, none is left for {name} (data.folds)")

    length = max(len(history) for rows in parts.values() for history, _, _ in rows)
    # a fifth of a list, rounded, is held back: how many at most follows from the longest rest
    held_back = max(1, round((length + 1) / (HELD_BACK - 1)) + 1)
    arrays = {name: _arrays(rows, length, held_back) for name, rows in parts.items()}
    learned = [np.concatenate(row[:2]) for row in parts["train"]]
    contract = Contract(
        items=names,
        titles=[found.titles.get(own) or own for own in names] if found.titles else None,
        counts=np.bincount(np.concatenate(learned) - 1, minlength=len(names)).tolist(),
        users=len(learned),
    )
    seen = int(arrays["test"]["seen"].sum())
    about += (
        f" {len(people):,} users, {len(names):,} items, {len(item):,} interactions "
        f"({len(item) / len(people) / len(names):.2%} of the possible) after dropping users and "
        f"items with fewer than {settings.core}. Users are split by a hash of their name; of the "
        f"{len(tested):,} test users {len(tested) - seen:,} were never seen, and of the other "
        f"{seen:,} training saw all but the items held back."
    )
    return Dataset(**arrays, about=about, contract=contract, test_users=tested)


def _core(user: np.ndarray, item: np.ndarray, least: int) -> np.ndarray:
    """Which interactions (row,) are left when users and items with fewer than `least` are dropped
    until none is left to drop."""
    kept = np.ones(len(user), bool)
    while True:
        enough = [
            np.bincount(axis[kept], minlength=axis.max() + 1) >= least for axis in (user, item)
        ]
        again = kept & enough[0][user] & enough[1][item]
        if again.sum() == kept.sum():
            return again
        kept = again


def _hashes(users: list[str], items: list[str], user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """A number (row,) for each pair that depends on the names only: an order without a time."""
    heads = {
        number: zlib.crc32(f"{users[number]}\0".encode()) for number in np.unique(user).tolist()
    }
    tails = [name.encode() for name in items]
    pairs = zip(user.tolist(), item.tolist(), strict=True)
    return np.array([zlib.crc32(tails[own], heads[who]) for who, own in pairs], np.int64)


def _hold_back(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items to know, at least one, and the last fifth, at least one, to guess."""
    count = max(1, round(len(own) / HELD_BACK))
    return own[:-count], own[-count:]


def _arrays(rows: list[tuple[np.ndarray, np.ndarray, bool]], length: int, held_back: int) -> Arrays:
    arrays = {
        "history": np.zeros((len(rows), length), np.int32),
        "target": np.zeros((len(rows), held_back), np.int32),
        "seen": np.array([seen for _, _, seen in rows], bool),
    }
    for number, (history, target, _) in enumerate(rows):
        arrays["history"][number, : len(history)] = history
        arrays["target"][number, : len(target)] = target
    return arrays
