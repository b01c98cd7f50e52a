"""Put a registered bundle into the deployment folder, the only thing that the server reads."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..experiments.tracking import CHAMPION, Tracker
from ..files import write_json
from ..task.data import Dataset
from ..training.runs import Run
from . import load
from .export import pack


def deploy(run: Run, dataset: Dataset, evaluation: dict[str, Any], tracker: Tracker) -> Path:
    """Pack, register and alias the run's bundle as champion, then install it.

    The server notices the new `deployment.json`; until that single file is replaced the old bundle
    stays in force, so a failure anywhere leaves the deployment as it was.
    """
    bundle = pack(run, dataset, evaluation, tracker.parent(run))
    version = tracker.register(run, bundle, run.name)
    deployment = run.settings.paths.deployment
    deployment.mkdir(parents=True, exist_ok=True)
    with FileLock(deployment / ".lock"):
        work = deployment / ".incoming"
        shutil.rmtree(work, ignore_errors=True)  # what an interrupted deploy left
        work.mkdir()
        folder = install(tracker.download(version, work), deployment)
        shutil.rmtree(work)
        tracker.alias(CHAMPION, version)
        champion = {
            "bundle": folder.relative_to(deployment).as_posix(),
            "manifest_sha256": load.sha256(folder / load.MANIFEST),
            "registry_version": version.version,
        }
        content = {"champion": champion, "deployed_at": datetime.now(UTC).isoformat()}
        write_json(deployment / load.DEPLOYMENT, content)
    return folder


def install(bundle: Path, deployment: Path) -> Path:
    """Move a verified bundle to its place; a damaged one found there steps aside."""
    manifest = load.load(bundle).manifest
    digest = load.sha256(bundle / load.MANIFEST)
    target = deployment / "bundles" / f"{manifest['version']}-{digest[:8]}"
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        try:
            load.verify(target, digest)
        except load.BadBundle:
            target.rename(target.with_name(f"{target.name}.damaged-{datetime.now(UTC):%H%M%S%f}"))
        else:
            return target
    bundle.rename(target)
    return target
