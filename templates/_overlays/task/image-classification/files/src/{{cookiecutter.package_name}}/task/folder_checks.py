"""Check what a folder's image files hold; refuse, leave out or note what would mislead training."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import in_chunks, select_rows
from ..config import UserError
from .folders import ImageFile, listed
from .images import LoadedImages
from .pixels import FACTS
from .settings import DataSettings

BRIGHT = 0.3  # some pixel of images of more than 8 bits should be brighter, else their range is odd
SAMPLE = 32  # images of a class that are compared before all are
BODY_BYTES = 4 * 2**20  # the server's default for max_body_bytes; base64 needs 4 bytes for 3


def check_files(
    folder: Path,
    files: Sequence[ImageFile],
    loaded: LoadedImages,
    color: bool,
    settings: DataSettings,
) -> tuple[list[int], list[str]]:
    """Return the rows to use and notes; UserError for what would make training wrong.

    `files` and `loaded` have the same rows.
    """
    notes = [*_unreadable(folder, loaded, settings), *_describe(files, loaded, color, settings)]
    _refuse_dark(loaded, settings)
    notes += _alike_classes(files, loaded.pixels, settings)
    rows, notes_on_copies = _without_copies(files, loaded.digests, settings)
    _refuse_single([files[row] for row in rows])
    return rows, [*notes, *notes_on_copies]


def _unreadable(folder: Path, loaded: LoadedImages, settings: DataSettings) -> Iterator[str]:
    """Refuse or note the images that cannot be read, all in one line."""
    if loaded.problems:
        count = len(loaded.problems)
        text = f"{count:,} of {count + len(loaded.files):,} images cannot be read"
        named = listed(loaded.problems, "; ")
        if settings.broken == "refuse" or not loaded.files:
            raise UserError(f"{folder}: {text} (data.broken=skip leaves them out): {named}")
        yield f"Skipped: {text}: {named}."


def _without_copies(
    files: Sequence[ImageFile], digests: Sequence[str], settings: DataSettings
) -> tuple[list[int], list[str]]:
    """Return the rows without copies that contradict each other or leak, and notes on the others.

    Raises UserError naming both files if the settings refuse them.
    """
    copies: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests):
        copies[digest].append(row)
    groups = [rows for rows in copies.values() if len(rows) > 1]
    dropped, notes = set[int](), []

    conflicts = [rows for rows in groups if len({files[row].label for row in rows}) > 1]
    if conflicts:
        pairs = [_pair(files, rows, lambda file: file.label) for rows in conflicts]
        if settings.conflicts == "refuse":
            hint = "data.conflicts=drop leaves out all copies"
            raise UserError(f"{listed(pairs, '; ')}, in another class ({hint})")
        dropped.update(row for rows in conflicts for row in rows)
        notes.append(
            f"Dropped {len(dropped):,} images that are in several classes: {listed(pairs)}."
        )

    leaks = [rows for rows in groups if len({files[row].split for row in rows}) > 1]
    if leaks:
        pairs = [_pair(files, rows, lambda file: file.split) for rows in leaks]
        text = f"{len(leaks):,} images are in two splits: {listed(pairs, '; ')}"
        if settings.duplicates == "refuse":
            raise UserError(f"{text} (data.duplicates=drop keeps them out of training)")
        if settings.duplicates == "drop":
            surplus = {row for rows in leaks for row in _surplus(files, rows)}
            text += f"; {len(surplus):,} copies were left out of training or validation"
            dropped |= surplus
            if all(file.split for row, file in enumerate(files) if row not in dropped):
                raise UserError(f"{text}: none would be left for training")
        notes.append(f"{text}.")
    return [row for row in range(len(files)) if row not in dropped], notes


def _pair(files: Sequence[ImageFile], rows: list[int], key: Any) -> str:
    first = files[rows[0]]
    other = next(files[row] for row in rows if key(files[row]) != key(first))
    return f"{other.path}: is the same image as {first.path}"


def _surplus(files: Sequence[ImageFile], rows: list[int]) -> list[int]:
    """Select the copies outside the split that matters most: test, then validation."""
    splits = {files[row].split for row in rows}
    kept = "test" if "test" in splits else "validation"
    return [row for row in rows if files[row].split != kept]


def _refuse_single(files: Sequence[ImageFile]) -> None:
    """Refuse classes of a single image, which cannot be in training and in test."""
    counts = Counter(file.label for file in files)
    single = [f"{file.label} ({file.path})" for file in files if counts[file.label] == 1]
    if single:
        raise UserError(f"too few images: classes with a single one are {listed(single)}")


def _alike_classes(
    files: Sequence[ImageFile], images: np.ndarray, settings: DataSettings
) -> list[str]:
    """Refuse, or note if duplicates are kept, classes whose images all have the same pixels.

    Images that are alike in all classes are always refused.
    """
    labels = np.array([file.label for file in files])
    alike = {}
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if (
            len(rows) > 1
            and _alike(images, rows[:: len(rows) // SAMPLE + 1])
            and _alike(images, rows)
        ):
            alike[str(label)] = rows
    firsts = np.array([rows[0] for rows in alike.values()])
    if len(alike) == len(np.unique(labels)) and _alike(images, firsts):
        names = listed([files[row].path for row in firsts])
        raise UserError(
            f"all {len(files):,} images are alike once they are read, such as {names}; transparent "
            f"drawings may need another data.background than {settings.background}"
        )
    if not alike:
        return []
    pairs = [
        f"{label} ({files[rows[0]].path}, {files[rows[1]].path})" for label, rows in alike.items()
    ]
    text = f"all images are alike in {listed(pairs)}"
    if settings.duplicates != "keep":
        raise UserError(f"{text}; data.duplicates=keep trains on them")
    return [f"Within a class {text}."]


def _alike(images: np.ndarray, rows: np.ndarray) -> bool:
    first = images[rows[0]]
    chunks = in_chunks(select_rows({"image": images}, rows))
    return all((chunk["image"] == first).all() for chunk in chunks)


def _refuse_dark(loaded: LoadedImages, settings: DataSettings) -> None:
    """Refuse images of more than 8 bits that use a small part of their range only."""
    deep = np.array([row for row, facts in enumerate(loaded.facts) if "deep" in facts], np.int64)
    if not len(deep) or settings.value_range is not None:
        return
    rows = deep[:: len(deep) // 1000 + 1]
    chunks = in_chunks(select_rows({"image": loaded.pixels}, rows))
    brightest = max(float(chunk["image"].max()) for chunk in chunks)
    if brightest < BRIGHT:
        raise UserError(
            f"{loaded.files[deep[0]]} and {len(deep) - 1:,} other images of more than 8 bits are "
            f"nearly black, their brightest level is {brightest:.3f} of what their type can hold; "
            "say which values are black and white: data.value_range=[0,4095] for 12 bits"
        )


def _describe(
    files: Sequence[ImageFile], loaded: LoadedImages, color: bool, settings: DataSettings
) -> Iterator[str]:
    """Note what reading changed in some of the files, and what the server would refuse."""
    count = len(files)
    for fact, text in FACTS.items():
        some = [file for file, facts in zip(files, loaded.facts, strict=True) if fact in facts]
        if fact == "grey":
            yield from _describe_grey(files, some, color)
        elif some:
            yield f"{len(some):,} of {count:,} images are {text} (such as {some[0].path})."
    bulky = [file for file in files if file.path.stat().st_size > BODY_BYTES * 3 // 4]
    if bulky:
        yield (
            f"{len(bulky):,} of {count:,} files are larger than 3 MiB (such as {bulky[0].path}): "
            "the server takes such ones only with a larger APP_MAX_BODY_BYTES."
        )


def _describe_grey(
    files: Sequence[ImageFile], grey: Sequence[ImageFile], color: bool
) -> Iterator[str]:
    if not color and len(grey) < len(files):
        number = f"{len(files) - len(grey):,} of {len(files):,}"
        yield f"{number} images have colour and become grey levels (data.color=true keeps it)."
    elif color and grey:
        every, some = Counter(file.label for file in files), Counter(file.label for file in grey)
        shares = [f"{label} {some[label]:,} of {count:,}" for label, count in sorted(every.items())]
        yield f"Grey images among those in colour: {listed(shares)}."
