"""The deployment folder: which bundles answer, and who gets which. The server reads nothing else.

deployment/
    deployment.json         champion, challenger, how traffic is split, champions before
    bundles/<version>-…/    model.onnx manifest.json reference.json contract.json …
    history.jsonl           who changed what, when and why

`deployment.json` is replaced as a whole, so a reader sees the old state or the new one.
"""

import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import WorkError
from ..files import write_text
from .load import BadBundle

DEPLOYMENT = "deployment.json"
HISTORY = "history.jsonl"
MAX_PREVIOUS = 10  # champions to go back to


class BundleRef(BaseModel):
    """A bundle in the deployment folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    bundle: str  # its folder, relative to the deployment folder
    manifest_sha256: str
    registry_version: str | None = None  # in MLflow


class Challenger(BundleRef):
    """A bundle under test: it answers a share of the callers, or in shadow answers nobody."""

    mode: Literal["split", "shadow"] = "split"
    share: float = Field(gt=0, le=1)  # of the callers (split), of the requests (shadow)
    since: str  # when this test began, with this share


class Deployment(BaseModel):
    """The content of `deployment.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    champion: BundleRef
    challenger: Challenger | None = None
    previous: list[BundleRef] = []  # earlier champions, the newest first
    deployed_at: str

    @property
    def test(self) -> str | None:
        """Names the test that runs: these two versions, divided like this, since then."""
        if (challenger := self.challenger) is None:
            return None
        versions = f"{self.champion.version}~{challenger.version}"
        return f"{versions}@{challenger.mode}:{challenger.share:g}:{challenger.since}"


def read_deployment(folder: Path) -> Deployment:
    """What is deployed; BadBundle when nothing is, or when the file is no deployment."""
    path = folder / DEPLOYMENT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadBundle(f"{path}: nothing is deployed yet, use the verb deploy") from None
    except OSError as error:
        raise BadBundle(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = Deployment.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise BadBundle(f"{path}: is not a deployment: {place}: {first['msg']}") from None
    for installed in (found.champion, found.challenger):
        if installed and not bundle_path(folder, installed).is_relative_to(folder.resolve()):
            raise BadBundle(f"{path}: {installed.bundle} lies outside of the deployment folder")
    return found


def bundle_path(folder: Path, installed: BundleRef) -> Path:
    """Where a bundle lies."""
    return (folder / installed.bundle).resolve()


def champion_path(folder: Path) -> tuple[Path, str]:
    """(folder, hash of the manifest) of the champion; BadBundle when there is none."""
    champion = read_deployment(folder).champion
    return bundle_path(folder, champion), champion.manifest_sha256


@contextmanager
def deployment_lock(folder: Path) -> Iterator[None]:
    """Alone with a deployment folder: whoever changes it does so one after the other."""
    from filelock import FileLock  # the server, which only reads, does without

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def write_deployment(folder: Path, deployment: Deployment) -> None:
    """Replace what is deployed; running servers notice."""
    write_text(folder / DEPLOYMENT, deployment.model_dump_json(indent=2) + "\n")


def with_champion(folder: Path, champion: BundleRef) -> Deployment:
    """The deployment with this champion and no challenger; earlier champions are remembered."""
    try:
        before = read_deployment(folder)
        previous = [before.champion, *before.previous]
    except BadBundle:
        previous = []
    previous = [one for one in previous if one.version != champion.version][:MAX_PREVIOUS]
    return Deployment(champion=champion, previous=previous, deployed_at=utc_now())


def replace_deployment(
    folder: Path, after: Deployment, action: str, reason: str, **details: Any
) -> None:
    """Write the history's line, then replace what is deployed: no change goes unrecorded."""
    append_history(folder, action, reason, **details)
    write_deployment(folder, after)


def utc_now() -> str:
    """The time for a record, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append_history(folder: Path, action: str, reason: str, **details: Any) -> None:
    """Add a line to the history: when, who, what, why."""
    line = {"at": utc_now(), "who": _user(), "action": action, "reason": reason, **details}
    text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
    try:
        with (folder / HISTORY).open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WorkError(f"{folder / HISTORY}: cannot be written: {error.strerror}") from None


def read_history(folder: Path) -> list[dict[str, Any]]:
    """All lines of the history, the oldest first."""
    path = folder / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
