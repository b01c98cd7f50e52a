"""Split interactions into training, validation and test, by users or by time.

By users: validation and test users are not in training. A fifth of each user's items, the last ones
if times are known, is held out and to be predicted from the rest. The hash of a user's name decides
the split, so adding users moves none. A few training users are tested too: the items held out for
the test are not in training.

By time: training has what came before a cut, validation what came next, and the test the newest.
Whoever chose something after the cut is tested on it, given the items from before it. Nothing from
after the cut decides about users, items or the order in training.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from ..config import UserError
from .interactions import YEAR_SECONDS, Interactions
from .settings import DataSettings
from .table_times import EPOCH_YEARS

HOLDOUT_RATIO = 5  # one of so many items is held out


class UserRow(NamedTuple):
    """A user's item numbers, and whether the user is in training."""

    history: np.ndarray
    target: np.ndarray
    seen: bool


@dataclass
class SplitUsers:
    """The rows of each split, and the interactions left in them, whose items are the catalogue."""

    kept: Interactions
    rows: dict[str, list[UserRow]]
    test_users: list[str]  # the name of each test row
    about: str


def split_by_user(settings: DataSettings, interactions: Interactions) -> SplitUsers:
    """Assign users to splits by a hash of their name and hold items of each out."""
    kept = frequent(interactions, settings)
    rows: dict[str, list[UserRow]] = {"train": [], "validation": [], "test": []}
    test_fold = settings.folds - 1 if settings.test_fold is None else settings.test_fold
    test_users, validation_fold = [], (test_fold - 1) % settings.folds
    for person, numbers, _ in _lists(kept):
        name = kept.users[person]
        digest = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        remainder, fold = divmod(digest, settings.folds)
        history, target = _hold_out(numbers[-settings.longest :])
        if fold == validation_fold:
            rows["validation"].append(UserRow(history, target, False))
            continue
        in_train = fold != test_fold
        in_test = not in_train or remainder % 1000 < 1000 * settings.warm
        if in_test:
            rows["test"].append(UserRow(history, target, in_train))
            test_users.append(name)
        if in_train:
            halves = _hold_out(history) if in_test else (history, target)
            rows["train"].append(UserRow(*halves, True))
    lengths = np.bincount(kept.user)
    if long := int((lengths > settings.longest).sum()):
        kept.notes.append(
            f"Users with more than {settings.longest} items: {long:,}, the longest list has "
            f"{lengths.max():,}; of each the last ones count (data.longest)."
        )
    seen = sum(row.seen for row in rows["test"])
    about = (
        f"{'The last' if kept.time is not None else 'A'} fifth of each user's items is held out. "
        f"Users are split by a hash of their name; of the {len(test_users):,} test users "
        f"{len(test_users) - seen:,} are not in training, and of the other {seen:,} all but the "
        "held-out items are."
    )
    return SplitUsers(kept, rows, test_users, about)


def split_by_time(settings: DataSettings, interactions: Interactions) -> SplitUsers:
    """Train before a cut, validate on what came next, test on the newest interactions.

    With `data.test_fold` what came after that fold of the rolling origin is left out first; all
    folds together test the newer half at most.
    """
    time = interactions.time
    assert time is not None, "checked by the settings"
    # 1. The cuts; interactions of the same time are never on both sides.
    newest = settings.newest
    shares = [0, 1 - 2 * newest, 1 - newest, 1]
    if settings.test_fold is not None:
        newest = min(newest, 0.5 / settings.folds)
        later = settings.folds - 1 - settings.test_fold
        shares = [0, *(round(1 - (later + folds) * newest, 9) for folds in (2, 1, 0))]
    oldest, *cuts, latest = np.quantile(time, shares, method="higher").tolist()
    if shares[-1] < 1:
        interactions = interactions.select(time < latest)
        time = time[time < latest]
    if not oldest < cuts[0] < cuts[1]:
        reason = f"too few different times for data.newest={settings.newest:g}"
        raise UserError(f"{settings.path}: {reason}; a smaller share or data.split=users may do")
    # 2. The items and users of training; later ones of other items cannot be predicted.
    early = interactions.select(time < cuts[0])
    train = frequent(early, settings)
    catalogue = np.isin(np.arange(len(interactions.items)), train.item)
    learned = np.isin(np.arange(len(interactions.users)), train.user)
    known = interactions.select(catalogue[interactions.item])
    # 3. A row per user of training, and for each cut per user with items on both sides.
    rows = {name: [] for name in ("train", "validation", "test")}
    test_users, newcomers = [], {"validation": 0, "test": 0}
    for _, numbers, _ in _lists(train):
        rows["train"].append(UserRow(*_hold_out(numbers[-settings.longest :]), True))
    numbering = np.cumsum(catalogue)
    for person, items, times in _lists(known, numbering):
        start, end = np.searchsorted(times, cuts).tolist()
        seen = bool(learned[person])
        for name, cut, until in (("validation", start, end), ("test", end, len(items))):
            history, target = items[:cut][-settings.longest :], items[cut:until][: settings.longest]
            if len(history) and len(target):
                rows[name].append(UserRow(history, target, seen))
                test_users += [known.users[person]] if name == "test" else []
            elif len(target):
                newcomers[name] += 1
    # 4. What to tell.
    later = time >= cuts[0]
    unknown = int((later & ~catalogue[interactions.item]).sum())
    interactions.notes.append(
        f"{unknown:,} of {later.sum():,} interactions after the cut are of items that training "
        f"does not have, and {newcomers['validation']:,} users in validation and "
        f"{newcomers['test']:,} in the test have no item from before: both are left out "
        "(data.split=time)."
    )
    about = (
        f"The split is by time: training has what came from {_moment(oldest)} until "
        f"{_moment(cuts[0])}, validation what came next, and the test the newest interactions, "
        f"from {_moment(cuts[1])} to {_moment(latest)}. Of the {len(test_users):,} test users, all "
        f"with items from before, {sum(row.seen for row in rows['test']):,} are in training."
    )
    return SplitUsers(train, rows, test_users, about)


def frequent(interactions: Interactions, settings: DataSettings) -> Interactions:
    """Drop users and items with fewer than `data.core` interactions until all have as many.

    Notes how many. UserError if none is left.
    """
    user, item, least = interactions.user, interactions.item, settings.core
    kept = np.ones(len(user), bool)
    while True:
        again = kept.copy()
        for axis in (user, item):
            again &= (np.bincount(axis[kept], minlength=axis.max() + 1) >= least)[axis]
        if again.sum() == kept.sum():
            break
        kept = again
    if not kept.any():
        where = settings.path or "data.libraries"
        reason = f"no user with {least} items that {least} users have is left (data.core)"
        raise UserError(f"{where}: {reason}")
    dropped = interactions.select(~kept)
    if len(dropped.user):
        lost = [
            len(np.setdiff1d(axis, axis[kept])) for axis in (interactions.user, interactions.item)
        ]
        interactions.notes.append(
            f"Users and items with fewer than {least} interactions are left out (data.core): "
            f"{lost[0]:,} users, {lost[1]:,} items, {len(dropped.user):,} interactions."
        )
    return interactions.select(kept)


def _lists(
    interactions: Interactions, numbering: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each user's place, item numbers from 1 in their order, and times (empty if unknown).

    The order is that of time, or else of a hash.
    """
    user, item, time = interactions.user, interactions.item, interactions.time
    if numbering is None:
        numbering = np.cumsum(np.isin(np.arange(len(interactions.items)), item))
    keys = (
        [_pair_hashes(interactions), user]
        if time is None
        else [_pair_hashes(interactions), time, user]
    )
    order = np.lexsort(keys)
    people, starts = np.unique(user[order], return_index=True)
    numbers = np.split(numbering[item[order]], starts[1:])
    times = np.split(time[order], starts[1:]) if time is not None else [np.empty(0)] * len(people)
    yield from zip(people.tolist(), numbers, times, strict=True)


def _pair_hashes(interactions: Interactions) -> np.ndarray:
    """Hash each pair of names (row,): an order that does not depend on the other rows."""
    heads = [zlib.crc32(f"{name}\0".encode()) for name in interactions.users]
    tails = [name.encode() for name in interactions.items]
    pairs = zip(interactions.user, interactions.item, strict=True)
    hashes = (zlib.crc32(tails[item], heads[user]) for user, item in pairs)
    return np.fromiter(hashes, np.int64, len(interactions.user))


def _hold_out(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a list into history and the last fifth, the target, of at least one item each."""
    count = max(1, round(len(items) / HOLDOUT_RATIO))
    return items[:-count], items[-count:]


def _moment(time: float) -> str:
    """Write a time as a date, or as a number if its unit is unknown."""
    year = 1970 + time / YEAR_SECONDS
    known = EPOCH_YEARS.start <= year < EPOCH_YEARS.stop
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}" if known else f"{time:,.0f}"
