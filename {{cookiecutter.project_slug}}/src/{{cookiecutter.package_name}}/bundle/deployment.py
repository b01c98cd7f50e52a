"""The deployment folder: which bundles are served, and to whom. The server reads nothing else.

deployment/
    deployment.json         champion, challenger, how traffic is split, previous champions
    bundles/<version>-…/    model.onnx manifest.json reference.json contract.json …
    history.jsonl           who changed what, when and why

`deployment.json` is replaced atomically: a reader sees the old state or the new one.
"""

import errno
import getpass
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from ..config import WorkError
from ..files import first_error, write_text
from .load import MANIFEST, BadBundle

DEPLOYMENT = "deployment.json"
HISTORY = "history.jsonl"
MAX_PREVIOUS = 10  # champions that rollback can return to
PRUNE_HOURS = 24  # a younger bundle may be in use by who has read an older deployment.json

TrafficMode = Literal["split", "shadow"]


class BundleRef(BaseModel, frozen=True, extra="forbid"):
    """A bundle in the deployment folder."""

    version: str
    bundle: str  # its folder, relative to the deployment folder
    manifest_sha256: str
    registry_version: str | None = None  # in MLflow


class Challenger(BundleRef, frozen=True):
    """A bundle under test: it serves a share of the callers, or in shadow mode none."""

    mode: TrafficMode = "split"
    share: float = Field(gt=0, le=1)  # of the callers (split), of the requests (shadow)
    since: str  # ISO 8601, UTC: start of the test with this mode and share


class Deployment(BaseModel, frozen=True, extra="forbid"):
    """The content of `deployment.json`."""

    champion: BundleRef
    challenger: Challenger | None = None
    previous: list[BundleRef] = []  # champions, the newest first
    deployed_at: str  # ISO 8601, UTC

    @property
    def test(self) -> str | None:
        """Identify the running test by versions, mode, share and start; None without one."""
        if (challenger := self.challenger) is None:
            return None
        versions = f"{self.champion.version}~{challenger.version}"
        return f"{versions}@{challenger.mode}:{challenger.share:g}:{challenger.since}"

    @property
    def active(self) -> list[BundleRef]:
        """The bundles that answer requests, the champion first."""
        return [self.champion, *filter(None, [self.challenger])]


def read_deployment(folder: Path) -> Deployment:
    """Read what is deployed. Raises BadBundle when nothing is, or when the file is invalid."""
    path = folder / DEPLOYMENT
    try:
        deployment = parse_deployment(path.read_bytes(), path)
    except FileNotFoundError:
        raise BadBundle(f"{path}: nothing is deployed yet; run the command deploy") from None
    except OSError as error:
        raise BadBundle(f"{path}: cannot be read: {error.strerror}") from None
    for ref in deployment.active:
        if not bundle_path(folder, ref).is_relative_to(folder.resolve()):
            raise BadBundle(f"{path}: {ref.bundle} lies outside the deployment folder")
    return deployment


def parse_deployment(content: bytes, source: object) -> Deployment:
    """Parse the content of a `deployment.json`. Raises BadBundle, which names `source`."""
    try:
        return Deployment.model_validate_json(content)
    except ValidationError as error:
        raise BadBundle(f"{source}: is not a deployment: {first_error(error)}") from None


def bundle_path(folder: Path, ref: BundleRef) -> Path:
    """Return the absolute path of a bundle in the deployment folder. Raises BadBundle."""
    try:
        return (folder / ref.bundle).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise BadBundle(f"{folder / DEPLOYMENT}: {ref.bundle!r} is no folder: {error}") from None


def champion_path(folder: Path) -> tuple[Path, str]:
    """Return the champion's folder and the SHA-256 of its manifest. Raises BadBundle."""
    champion = read_deployment(folder).champion
    return bundle_path(folder, champion), champion.manifest_sha256


@contextmanager
def deployment_lock(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Lock a deployment folder for a change, waiting for other processes; `name` is the file."""
    from filelock import FileLock  # not installed beside the server, which only reads

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / name):
        yield


def write_deployment(folder: Path, deployment: Deployment) -> None:
    """Replace `deployment.json`; running servers notice."""
    write_text(folder / DEPLOYMENT, deployment.model_dump_json(indent=2) + "\n")


def with_champion(folder: Path, champion: BundleRef) -> Deployment:
    """Return the deployment with a new champion; the one so far becomes the newest previous one."""
    try:
        before = read_deployment(folder)
        previous = [before.champion, *before.previous]
    except BadBundle:
        previous = []
    previous = [ref for ref in previous if ref.version != champion.version][:MAX_PREVIOUS]
    return Deployment(champion=champion, previous=previous, deployed_at=utc_now())


def set_aside(place: Path) -> None:
    """Rename a bundle's folder whose content is not what it should be; nothing is lost."""
    place.rename(place.with_name(f"{place.name}.damaged-{datetime.now(UTC):%H%M%S%f}"))


def prune_bundles(folder: Path, keep: int | None) -> list[str]:
    """Delete from a (locked) deployment folder all but `keep` of the unreferenced bundles, None
    keeps all; return what was deleted, such as `bundles/<version>-…`."""
    try:
        deployment = read_deployment(folder)
    except BadBundle:  # without knowing what is referenced, nothing may go
        return []
    manifests = folder.glob(f"bundles/*/{MANIFEST}")
    modified = {
        path.parent.relative_to(folder).as_posix(): path.stat().st_mtime for path in manifests
    }
    old = prunable(modified, deployment, keep)
    for bundle in old:
        (folder / bundle / MANIFEST).unlink()  # first: what is half deleted is no bundle
        shutil.rmtree(folder / bundle)
    return old


def prunable(modified: Mapping[str, float], deployment: Deployment, keep: int | None) -> list[str]:
    """Choose bundles to delete, the oldest first, from the times (s) at which they were written.

    Never one that champion, challenger or a previous champion refers to, none of the last day, and
    not the newest `keep` of the rest.
    """
    if keep is None:
        return []
    referenced = {ref.bundle for ref in (*deployment.active, *deployment.previous)}
    unused = sorted(modified.keys() - referenced, key=lambda bundle: modified[bundle])
    latest = time.time() - 3600 * PRUNE_HOURS
    return [bundle for bundle in unused[: len(unused) - keep] if modified[bundle] < latest]


def replace_deployment(
    folder: Path, after: Deployment, action: str, reason: str, **details: Any
) -> None:
    """Append to the history, then replace `deployment.json`: no change goes unrecorded."""
    append_history(folder, action, reason, **details)
    write_deployment(folder, after)


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append_history(folder: Path, action: str, reason: str, **details: Any) -> None:
    """Append a line to `history.jsonl`: when, who, what, why. Raises WorkError."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
    line = {"at": utc_now(), "who": user, "action": action, "reason": reason, **details}
    text = f"{json.dumps(line, ensure_ascii=False, default=str)}\n".encode()
    try:
        with (folder / HISTORY).open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # half a line would make the whole history unreadable
                raise
    except OSError as error:
        raise WorkError(f"{folder / HISTORY}: cannot be written: {error.strerror}") from None


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read all lines of the history, the oldest first."""
    path = folder / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
