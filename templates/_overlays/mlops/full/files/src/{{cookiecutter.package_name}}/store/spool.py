"""The spool: files in which predictions wait for the database.

A server appends a chunk, the predictions of one model since its last write, to a segment of its
own, which it keeps locked. The collector reads all segments, writes their rows into the database,
notes how far it came, and deletes a segment once it is read and nobody writes it any more.

A chunk is a head (`HEAD`), a JSON description, numbers as float64 and bodies as they came. A head
names the length, so bodies need no escaping, and a checksum, so half a chunk is recognised.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import write_json

if sys.platform != "win32":  # where `serve` keeps no log
    import fcntl

HEAD = struct.Struct("<4sIIId")  # MARK, rows, bytes that follow, their CRC-32, oldest row's time
MARK = b"LOG1"
SEGMENT = "*.spool"
SEGMENT_BYTES = 16 * 2**20  # then a server begins a new segment
POSITIONS = "positions.json"  # bytes of each segment that are in the database


@dataclass
class Chunk:
    """Predictions of one model, by column; all lists have one entry per request."""

    model: list[str | None]  # version, variant, A/B test
    texts: dict[str, list[Any]]  # of JSON's types
    numbers: dict[str, np.ndarray]  # (n,) float64
    bodies: dict[str, list[bytes | None]]

    def pack(self, rows: int, oldest: float) -> bytes:
        """Write the chunk as bytes; `oldest` is in seconds since 1970."""
        lengths = {
            name: [-1 if body is None else len(body) for body in bodies]
            for name, bodies in self.bodies.items()
        }
        counts = {name: len(array) for name, array in self.numbers.items()}
        parts = [array.astype("<f8").tobytes() for array in self.numbers.values()]
        parts += [b"".join(filter(None, bodies)) for bodies in self.bodies.values()]
        text = json.dumps([self.model, self.texts, counts, lengths]).encode()
        content = b"".join((struct.pack("<I", len(text)), text, *parts))
        return HEAD.pack(MARK, rows, len(content), zlib.crc32(content), oldest) + content

    @classmethod
    def unpack(cls, content: bytes) -> Chunk:
        """Read what follows the head."""
        (length,) = struct.unpack_from("<I", content)
        end = 4 + length
        model, texts, counts, lengths = json.loads(content[4:end])
        numbers: dict[str, np.ndarray] = {}
        for name, count in counts.items():
            numbers[name] = np.frombuffer(content, "<f8", count, end)
            end += 8 * count
        bodies: dict[str, list[bytes | None]] = {}
        for name, sizes in lengths.items():
            bodies[name] = []
            for size in sizes:
                bodies[name].append(None if size < 0 else content[end : end + size])
                end += max(0, size)
        return cls(model, texts, numbers, bodies)


class Head(NamedTuple):
    """Where a chunk lies in its segment, and what its head says."""

    start: int  # of what follows the head
    end: int
    rows: int
    checksum: int
    oldest: float


class Waiting(NamedTuple):
    """What has not been collected yet."""

    rows: int
    size: int  # bytes
    oldest: float | None  # seconds since 1970


class DamagedSegment(Exception):
    """A segment holds what is no chunk of this version."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class SpoolFull(Exception):
    """The spool holds as much as it may."""


class SpoolWriter:
    """Append chunks to a spool; one process has one."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._file: int | None = None
        self._path = folder
        self._size = 0

    def append(self, chunk: bytes) -> None:
        """Append a whole chunk. Raises SpoolFull, or OSError with nothing appended."""
        if size_waiting(self.folder) + len(chunk) > self.max_bytes:
            raise SpoolFull
        if self._file is None or not self._path.exists():  # set aside, or removed by somebody
            self.close()
            self._open()
        assert self._file is not None
        try:
            written = 0
            while written < len(chunk):
                written += os.write(self._file, chunk[written:])
        except OSError:
            os.ftruncate(self._file, self._size)  # a full disk: no half chunk stays
            raise
        self._size += written
        if self._size >= SEGMENT_BYTES:
            self.close()

    def close(self) -> None:
        """End the segment; the collector deletes it once it is read."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _open(self) -> None:
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.spool"
        fresh = path.with_suffix(".new")
        # 0600: it holds what callers sent.
        file = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)  # until the process ends, however it does
        fresh.rename(path)  # only now: what has the suffix and no lock is nobody's
        self._file, self._path, self._size = file, path, 0


class SpoolReader:
    """Read a spool; `SpoolReader.lock` sees to it that only one process does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._positions: dict[str, int] | None = None
        self._file: int | None = None

    def lock(self) -> bool:
        """Become the one process that reads the spool; False while another one is."""
        if self._file is None:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            self._file = os.open(self.folder / "collector.lock", os.O_RDWR | os.O_CREAT, 0o600)
        return _locked(self._file)

    def unlock(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def read(self) -> Iterator[tuple[Path, Chunk, int]]:
        """Yield what waits, oldest segments first: segment, chunk and where it ends.

        Raises DamagedSegment.
        """
        if self._positions is None:
            self._positions = read_positions(self.folder)
        for path in sorted(self.folder.glob(SEGMENT)):
            with path.open("rb") as file:
                gone = _locked(file.fileno())  # asked first: what it wrote before is read now
                end = self._positions.get(path.name, 0)
                for head in _heads(file.fileno(), end, path):
                    content = os.pread(file.fileno(), head.end - head.start, head.start)
                    if zlib.crc32(content) != head.checksum:
                        raise DamagedSegment(path, f"damaged at byte {head.start}")
                    end = head.end
                    yield path, Chunk.unpack(content), end
                if gone and end == self._positions.get(path.name, 0):
                    path.unlink()  # a rest that is no whole chunk was never written to its end
                    self._positions.pop(path.name, None)

    def commit(self, ends: Mapping[Path, int]) -> None:
        """Note that everything before these ends is in the database."""
        assert self._positions is not None
        self._positions |= {path.name: end for path, end in ends.items()}
        present = {path.name for path in self.folder.glob(SEGMENT)}
        self._positions = {name: end for name, end in self._positions.items() if name in present}
        write_json(self.folder / POSITIONS, self._positions)


def read_positions(folder: Path) -> dict[str, int]:
    """Read how far each segment is collected; without the file nothing is."""
    try:
        return json.loads((folder / POSITIONS).read_bytes())
    except OSError:
        return {}


def waiting(folder: Path) -> Waiting:
    """Sum up what waits in a spool, by reading the heads of its chunks."""
    rows, size, times = 0, 0, []
    positions = read_positions(folder)
    for path in folder.glob(SEGMENT):
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # collected meanwhile
            continue
        try:
            for head in _heads(file, positions.get(path.name, 0), path):
                rows, size = rows + head.rows, size + head.end - head.start + HEAD.size
                times.append(head.oldest)
        except DamagedSegment:  # the collector says so
            size += os.fstat(file).st_size
        finally:
            os.close(file)
    return Waiting(rows, size, min(times, default=None))


def size_waiting(folder: Path) -> int:
    """Return the bytes that wait in a spool, without reading them."""
    positions = read_positions(folder)
    size = 0
    for path in folder.glob(SEGMENT):
        with suppress(FileNotFoundError):  # collected meanwhile
            size += path.stat().st_size - positions.get(path.name, 0)
    return size


def collected(folder: Path) -> bool:
    """Whether a collector reads this spool now."""
    try:
        file = os.open(folder / "collector.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(file)
    finally:
        os.close(file)


def _heads(file: int, start: int, path: Path) -> Iterator[Head]:
    """Yield the heads of the whole chunks from byte `start` on."""
    size = os.fstat(file).st_size
    while start + HEAD.size <= size:
        mark, rows, length, checksum, oldest = HEAD.unpack(os.pread(file, HEAD.size, start))
        if mark != MARK:
            raise DamagedSegment(path, f"damaged at byte {start}")
        head = Head(start + HEAD.size, start + HEAD.size + length, rows, checksum, oldest)
        if head.end > size:  # being written
            return
        yield head
        start = head.end


def _locked(file: int) -> bool:
    """Take the lock of an open file; False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
