"""Find the images of a folder, their classes and the splits that the folder gives.

Only names are looked at here; what is left out, and how the folder was understood, becomes notes.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..config import UserError
from .settings import DataSettings

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What operating systems and editors leave beside images; so are all names with a dot in front.
JUNK = {"__macosx", "@eadir", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}
MAX_NAMED = 10  # files or folders that a message names


class ImageFile(NamedTuple):
    path: Path
    label: str
    split: str | None  # test or validation if the folder says so, else None


class FoundImages(NamedTuple):
    """The image files of all classes, and what to tell about the folder."""

    files: list[ImageFile]
    notes: list[str]


@dataclass
class _Folder:
    path: Path
    folders: list["_Folder"] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def split(self) -> str | None:
        return SPLIT_NAMES.get(self.name.lower())

    def all_images(self) -> list[Path]:
        return [*self.images, *(image for folder in self.folders for image in folder.all_images())]


# By split; None is what training, and missing splits, come from.
_Parts = dict[str | None, _Folder]


class _Scan:
    """Read folder trees; count what is not an image."""

    def __init__(self) -> None:
        self.junk, self.skipped = 0, Counter[str]()

    def read(
        self, path: Path, without: Path | None = None, above: tuple[Path, ...] = ()
    ) -> _Folder:
        """Read a folder with all that is in it but the folder `without`."""
        folder, here = _Folder(path), path.resolve()
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.name[0] == "." or entry.name.lower() in JUNK:
                self.junk += 1
            elif entry.is_dir():
                if entry.resolve() not in (*above, here, without):  # links may lead in circles
                    folder.folders.append(self.read(entry, without, (*above, here)))
            elif entry.suffix.lower() in SUFFIXES:
                folder.images.append(entry)
            else:
                self.skipped[entry.suffix.lower() or "no suffix"] += 1
        return folder

    def notes(self) -> Iterator[str]:
        if self.junk:
            yield f"Ignored {self.junk:,} hidden files and other leftovers of operating systems."
        if self.skipped:
            counts = ", ".join(
                f"{suffix} {count:,}" for suffix, count in self.skipped.most_common()
            )
            yield f"Skipped {self.skipped.total():,} files that are not taken for images: {counts}."


def find_images(settings: DataSettings, folder: Path) -> FoundImages:
    """List the images with their classes and, where the folder says so, splits.

    Raises UserError, one line, where there is no image or several ways to understand the folder.
    """
    scan, notes = _Scan(), []
    test_path = settings.test_path
    tree = scan.read(folder, without=test_path.resolve() if test_path else None)
    flat = settings.layout == "classes"
    parts: _Parts = {None: tree} if flat else _parts(_unpacked(tree, notes), notes)
    if test_path is not None:
        if not test_path.is_dir():
            raise UserError(f"{test_path}: no such folder (data.test_path)")
        if "test" in parts:
            raise UserError(f"{parts['test'].path}: is a second test split beside data.test_path")
        parts["test"] = _unpacked(scan.read(test_path), notes)
    if not any(part.all_images() for part in parts.values()):
        seen = " ".join(scan.notes())
        raise UserError(
            f"{folder}: is empty, expected one folder of images per class. {seen}".strip()
        )
    files = []
    for split, part in parts.items():
        if not flat:
            _refuse_unclear_classes(part)
        files += _class_files(part, split, notes)
    _refuse_untrained_classes(files, parts)
    return FoundImages(files, [*notes, *scan.notes()])


def _unpacked(tree: _Folder, notes: list[str]) -> _Folder:
    """Step into a folder that holds nothing but one folder of folders, as archives unpack to."""
    inner = tree
    while len(inner.folders) == 1 and not inner.images:
        only = inner.folders[0]
        if not only.folders or only.images or only.split:
            break
        inner = only
    if inner is not tree:
        notes.append(f"{tree.path} holds only {inner.path}: the folders in there are taken.")
    return inner


def _parts(tree: _Folder, notes: list[str]) -> _Parts:
    """Find the folders of the splits, or else take the whole tree."""
    named = [folder for folder in tree.folders if folder.split]
    if not named:
        return {None: tree}
    hint = "data.layout=classes takes every folder for a class"
    others = [folder for folder in tree.folders if not folder.split and folder.all_images()]
    if others:
        raise UserError(
            f"{tree.path}: {_names(named)} would be splits, but {_names(others)} are beside them; "
            f"move them, or {hint}"
        )
    parts: _Parts = {}
    for folder in named:
        key = None if folder.split == "train" else folder.split
        if key in parts:
            raise UserError(
                f"{tree.path}: {_names([parts[key], folder])} are the same split; {hint}"
            )
        parts[key] = _unpacked(folder, notes)
    if None not in parts:
        raise UserError(f"{tree.path}: has {_names(named)}, but no folder train; {hint}")
    for split, folder in list(parts.items()):
        if split and folder.images and not folder.folders:
            count = len(parts.pop(split).images)
            notes.append(f"{folder.path}: {count:,} images without class folders are not used.")
    notes.append(f"The splits are the folders {_names(named)}.")
    taken = [split for split in ("validation", "test") if split not in parts]
    if taken:
        notes.append(f"No labelled folder for {' and '.join(taken)}: taken from train by hash.")
    return parts


def _class_files(part: _Folder, split: str | None, notes: list[str]) -> Iterator[ImageFile]:
    if part.images and not part.folders:
        raise UserError(
            f"{part.path}: holds {len(part.images):,} images but no folder per class, expected "
            f"{part.path}/<class>/<image>"
        )
    if part.images:
        notes.append(f"{part.path}: {len(part.images):,} images in no class folder are not used.")
    empty = [folder for folder in part.folders if not folder.all_images()]
    if empty and split is None:
        raise UserError(
            f"{part.path}: {_names(empty)}: contains no image ({', '.join(SUFFIXES)}); remove what "
            "is no class"
        )
    for folder in part.folders:
        # macOS writes é as two characters, Linux and requests as one.
        label = unicodedata.normalize("NFC", folder.name)
        yield from (ImageFile(path, label, split) for path in folder.all_images())


def _refuse_unclear_classes(part: _Folder) -> None:
    """Refuse folders that all hold the same folders, such as 2023/ and 2024/ with cat/ and dog/."""
    inner = [{folder.name.lower() for folder in outer.folders} for outer in part.folders]
    images = [image for outer in part.folders for image in outer.images]
    if len(inner) > 1 and len(inner[0]) > 1 and not images and inner.count(inner[0]) == len(inner):
        raise UserError(
            f"{part.path}: {_names(part.folders)} all hold the folders "
            f"{_names(part.folders[0].folders)}: which are the classes? Put these outside, or "
            "data.layout=classes takes the outer ones"
        )


def _refuse_untrained_classes(files: Sequence[ImageFile], parts: _Parts) -> None:
    """Refuse classes of a given split that no training image has."""
    labels: dict[str | None, set[str]] = defaultdict(set)
    for file in files:
        labels[file.split].add(file.label)
    for split, part in parts.items():
        unknown = sorted(labels[split] - labels[None])
        if unknown:
            raise UserError(
                f"{part.path}: {listed(unknown)}: not among the classes of "
                f"{parts[None].path} ({listed(sorted(labels[None]))})"
            )


def _names(folders: Iterable[_Folder]) -> str:
    return listed([folder.name for folder in folders])


def listed(names: Sequence[object], separator: str = ", ") -> str:
    """Name the first few of a list, and how many more there are."""
    more = len(names) - MAX_NAMED
    text = separator.join(map(str, names[:MAX_NAMED]))
    return f"{text}{separator}… ({len(names):,} in all)" if more > 0 else text
