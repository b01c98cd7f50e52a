"""Put a registered bundle into the deployment folder, the only thing that the server reads."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from ..bundle import deployment, load
from ..experiments.tracking import CHALLENGER, CHAMPION, Tracker
from ..task.data import Dataset
from ..training.documents import Evaluation
from ..training.runs import Run
from .export import pack_bundle


def deploy(
    run: Run, dataset: Dataset, evaluation: Evaluation, tracker: Tracker, reason: str
) -> Path:
    """Pack, register and alias the run's bundle as champion, then install it.

    The server notices the new `deployment.json`; until that single file is replaced the old bundle
    stays in force, so a failure anywhere leaves the deployment as it was. A test that runs ends.
    """
    target = run.settings.paths.deployment
    with deployment.deployment_lock(target):
        champion = stage_bundle(run, dataset, evaluation, tracker)
        after = deployment.with_champion(target, champion)
        sync_registry_aliases(tracker, after)
        deployment.replace_deployment(target, after, "deploy", reason, version=champion.version)
    return deployment.bundle_path(target, champion)


def sync_registry_aliases(tracker: Tracker, after: deployment.Deployment) -> None:
    """Give the registry's aliases to what is deployed, or to what is about to be.

    Called before `deployment.json` is replaced: whoever is interrupted between the two does the
    same again. Bundles that came without a registry have no alias.
    """
    tracker.alias(CHAMPION, after.champion.registry_version)
    tracker.alias(CHALLENGER, after.challenger and after.challenger.registry_version)


def stage_bundle(
    run: Run, dataset: Dataset, evaluation: Evaluation, tracker: Tracker
) -> deployment.BundleRef:
    """Pack and register a run's bundle and put it into the deployment folder.

    Nothing answers with it before `deployment.json` names it. The folder must be locked.
    """
    version = tracker.register(
        run, pack_bundle(run, dataset, evaluation, tracker.parent(run)), run.name
    )
    target = run.settings.paths.deployment
    work = target / ".incoming"
    shutil.rmtree(work, ignore_errors=True)  # what an interrupted deploy left
    work.mkdir(parents=True)
    folder = install(tracker.download(version, work), target)
    shutil.rmtree(work)
    return deployment.BundleRef(
        version=run.name,
        bundle=folder.relative_to(target).as_posix(),
        manifest_sha256=load.sha256(folder / load.MANIFEST),
        registry_version=str(version.version),
    )


def install(bundle: Path, target: Path) -> Path:
    """Move a verified bundle to its place; a damaged one found there steps aside."""
    manifest = load.load_bundle(bundle).manifest
    digest = load.sha256(bundle / load.MANIFEST)
    place = target / "bundles" / f"{manifest.version}-{digest[:8]}"
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        try:
            load.verify_bundle(place, digest)
        except load.BadBundle:
            place.rename(place.with_name(f"{place.name}.damaged-{datetime.now(UTC):%H%M%S%f}"))
        else:
            return place
    bundle.rename(place)
    return place
