"""Decode a folder's images once; hold them in memory or, if they are too many, on disk.

What takes long is kept in a cache: an SQLite file, so a killed, a parallel or a later command finds
every image that was committed, and decodes only the others. Deleting the cache costs time only.
"""

import hashlib
import math
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import PIL
from tqdm import tqdm

from ..arrays import LazyArray
from ..config import UserError, WorkError
from . import pixels
from .contract import scaled
from .pixels import ImageSpec
from .settings import DataSettings

MB = 1_000_000
# Fewer files, with fewer bytes, are decoded in seconds: they are not kept on disk.
UNCACHED_FILES, UNCACHED_BYTES = 1000, 50 * MB
MAX_WORKERS = 8  # by default: each may hold an image of pixels.MAX_PIXELS
CHUNK = 128  # images between two commits

TABLE = """create table if not exists images (
    id integer primary key, file blob, stamp text, digest text, facts text, levels blob,
    unique (file, stamp))"""


class _Entry(NamedTuple):
    id: int
    digest: str
    facts: frozenset[str]


class ImageCache:
    """Decoded images by file, size and time of change; without a path in memory only."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        with self.reporting_errors():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Reading ahead is done in another thread; SQLite itself takes turns.
            name = path or ":memory:"
            self.connection = sqlite3.connect(name, timeout=60, check_same_thread=False)
            self.connection.execute(TABLE)

    def entries(self) -> dict[tuple[bytes, str], _Entry]:
        """Return what is known of every image, by its file and stamp."""
        query = "select file, stamp, id, digest, facts from images"
        with self.reporting_errors():
            rows = self.connection.execute(query).fetchall()
        return {
            (file, stamp): _Entry(number, digest, frozenset(facts.split()))
            for file, stamp, number, digest, facts in rows
        }

    def add(self, rows: Sequence[tuple[bytes, str, str, str, bytes]]) -> None:
        """Write rows of the table, all or none; an image that is there already stays."""
        query = (
            "insert or ignore into images (file, stamp, digest, facts, levels) "
            "values (?, ?, ?, ?, ?)"
        )
        with self.reporting_errors(), self.connection:
            self.connection.executemany(query, rows)

    def levels(self, ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Read the levels of images, uint8 (image, *shape)."""
        levels = np.empty((len(ids), math.prod(shape)), np.uint8)
        query = "select levels from images where id = ?"
        with self.reporting_errors():
            for row, number in zip(levels, ids.tolist(), strict=True):
                row[:] = np.frombuffer(
                    self.connection.execute(query, (number,)).fetchone()[0], np.uint8
                )
        return levels.reshape(-1, *shape)

    @contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Turn what goes wrong with the file into one line that says what can be done."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise WorkError(
                f"{self.path}: the cache of decoded images cannot be used: {reason}; free space, "
                "delete this file, or set data.cache to another folder"
            ) from None


class CachedImages(LazyArray):
    """float32 images (image, channel, row, column) in 0..1, read from a cache."""

    dtype = np.dtype(np.float32)

    def __init__(self, cache: ImageCache, ids: np.ndarray, shape: tuple[int, ...]) -> None:
        self.cache, self.ids, self.shape = cache, ids, (len(ids), *shape)

    def __getitem__(self, rows: Any) -> np.ndarray:
        ids = self.ids[rows]
        levels = self.cache.levels(np.atleast_1d(ids), self.shape[1:])
        return scaled(levels if np.ndim(ids) else levels[0])

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.cache, self.ids[rows], self.shape[1:])


class LoadedImages(NamedTuple):
    """The readable images of a list of files, a row each, in the order of the list."""

    pixels: Any  # CachedImages, read when they are needed
    fits: bool  # into data.memory_mb
    files: list[Path]
    digests: list[str]  # SHA-256 of the files
    facts: list[frozenset[str]]  # keys of `pixels.FACTS`
    problems: list[str]  # of the other files: "FILE: why"


def load_images(files: Sequence[Path], spec: ImageSpec, settings: DataSettings) -> LoadedImages:
    """Decode the files that are not in the cache, in threads: Pillow works outside Python's lock.

    Images beyond `data.memory_mb` are decoded onto the disk. Ctrl-C keeps in the cache what is
    decoded. Raises UserError if the images need a cache and none is set.
    """
    shape = (3 if spec.color else 1, *spec.size)
    fits = 4 * len(files) * math.prod(shape) <= settings.memory_mb * MB
    keys, problems, total = _stamped(files)
    cache = ImageCache(_cache_path(spec, settings, fits, len(files), total))
    before = cache.entries()
    missing = [file for file, key in keys.items() if key not in before]
    _announce(cache, len(keys), len(missing))
    problems |= _decode(cache, [(file, keys[file]) for file in missing], spec, settings)

    known = cache.entries() if missing else before
    readable = [file for file in files if file not in problems]
    entries = [known[keys[file]] for file in readable]
    images = CachedImages(cache, np.array([entry.id for entry in entries], np.int64), shape)
    return LoadedImages(
        pixels=images,
        fits=fits,
        files=readable,
        digests=[entry.digest for entry in entries],
        facts=[entry.facts for entry in entries],
        problems=[f"{file}: {problems[file]}" for file in files if file in problems],
    )


def _stamped(files: Sequence[Path]) -> tuple[dict[Path, tuple[bytes, str]], dict[Path, str], int]:
    """Return each file's key in the cache, what is wrong with the others, and the sum of bytes."""
    keys, problems, total = {}, {}, 0
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            problems[file] = f"cannot be read: {error.strerror}"
            continue
        # The time of the last change of any kind too: unpacking an archive sets the other one.
        stamp = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        keys[file] = os.fsencode(file.absolute()), stamp
        total += stat.st_size
    return keys, problems, total


def _cache_path(
    spec: ImageSpec, settings: DataSettings, fits: bool, count: int, total: int
) -> Path | None:
    """Name the cache of images of this form, read by this code; None if none is needed."""
    if fits and (settings.cache is None or (count <= UNCACHED_FILES and total <= UNCACHED_BYTES)):
        return None
    if settings.cache is None:
        raise UserError(
            f"{settings.path}: {count:,} images of {spec.size[0]} × {spec.size[1]} need more than "
            f"data.memory_mb={settings.memory_mb}; set data.cache to a folder, or raise it"
        )
    code = Path(pixels.__file__).read_bytes()
    version = hashlib.sha256(f"{spec} {PIL.__version__}".encode() + code).hexdigest()[:12]
    form = f"{spec.size[1]}x{spec.size[0]}-{'rgb' if spec.color else 'grey'}"
    return settings.cache / f"images-{form}-{version}.sqlite"


def _announce(cache: ImageCache, count: int, missing: int) -> None:
    if cache.path is not None:
        size = f"{cache.path.stat().st_size / MB:,.0f} MB, may be deleted"
        action = (
            f"decoding {missing:,} of {count:,}, once" if missing else f"{count:,} decoded before"
        )
        print(f"images: {action}; kept in {cache.path} ({size})", file=sys.stderr)


def _decode(
    cache: ImageCache,
    missing: Sequence[tuple[Path, tuple[bytes, str]]],
    spec: ImageSpec,
    settings: DataSettings,
) -> dict[Path, str]:
    """Decode images into the cache; return what is wrong with the unreadable ones."""

    def decode(job: tuple[Path, tuple[bytes, str]]) -> tuple[bytes, str, str, str, bytes] | str:
        file, key = job
        try:
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            picture = pixels.read_picture(file, spec)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except ValueError as error:
            return str(error)
        return *key, digest, " ".join(sorted(picture.facts)), picture.levels.tobytes()

    problems: dict[Path, str] = {}
    tenth = max(len(missing) // 10, 10 * CHUNK)
    workers = settings.workers or min(os.cpu_count() or 1, MAX_WORKERS)
    title = {"desc": "decoding images", "unit": "image", "leave": False, "disable": None}
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(missing), **title) as bar:
        for start in range(0, len(missing), CHUNK):
            jobs = missing[start : start + CHUNK]
            results = list(pool.map(decode, jobs))
            cache.add([result for result in results if not isinstance(result, str)])
            problems |= {
                file: result
                for (file, _), result in zip(jobs, results, strict=True)
                if isinstance(result, str)
            }
            bar.update(len(jobs))
            done = start + len(jobs)
            if bar.disable and done // tenth > start // tenth:  # no terminal: a line now and then
                print(f"images: {done:,} of {len(missing):,} decoded", file=sys.stderr)
    return problems
