"""Change what is deployed: deploy, test a challenger, set its traffic, promote, roll back.

A change verifies its bundle first, then moves the registry's aliases, and last replaces
`deployment.json`, the one small file that servers watch. A command that was interrupted in between
can be repeated. torch and MLflow take seconds to import, so only the steps that need them do: a
refusal is immediate, and a rollback works without them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import deployment, load
from ..bundle.deployment import BundleRef, Challenger, Deployment, TrafficMode
from ..config import UserError, WorkError

if TYPE_CHECKING:
    from ..experiments.tracking import Tracker
    from ..task.data import Dataset
    from ..task.settings import Settings
    from ..training.documents import Evaluation
    from ..training.runs import Run

# By default MLflow tries for minutes to reach a server that does not answer.
MLFLOW_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def deploy(
    run: Run,
    dataset: Dataset,
    evaluation: Evaluation,
    tracker: Tracker,
    reason: str,
    doubts: Sequence[str] = (),
) -> Path:
    """Make the run's bundle the champion and return its folder; a running A/B test ends.

    `doubts` are what it is worse than and deployed in spite of, for the history.
    """
    from .export import pack_bundle

    folder = run.settings.paths.deployment
    with deployment.deployment_lock(folder):
        bundle = pack_bundle(run, dataset, evaluation, tracker.parent(run))
        champion = stage_bundle(run, bundle, tracker)
        after = deployment.with_champion(folder, champion)
        sync_registry_aliases(tracker, after)
        details = {"version": champion.version} | ({"forced": list(doubts)} if doubts else {})
        deployment.replace_deployment(folder, after, "deploy", reason, **details)
    return deployment.bundle_path(folder, champion)


def deploy_doubts(
    run: Run, evaluation: Evaluation, echo: Callable[[str], None] = print
) -> list[str]:
    """List what the run to deploy is significantly worse than: the champion and its baselines.

    Says why where the champion cannot be compared. Deploying it again is beyond doubt.
    """
    from ..experiments.records import lead_over
    from ..training.runs import read_run

    leads = {}
    try:
        champion = deployment.read_deployment(run.settings.paths.deployment).champion.version
    except load.BadBundle:
        champion = None  # nothing deployed
    if champion == run.name:
        return []
    if champion is not None:
        try:
            other = read_run(run.settings.paths.runs / champion, run.settings)
            leads[f"the champion {champion}"] = lead_over(run, other)
        except (UserError, OSError) as error:  # not from a run kept here, or on other data
            echo(f"not compared: {run.name} with the champion {champion}, because {error}")
    for name, result in evaluation.baselines.items():
        leads[f"the baseline {name}"] = result.ahead, result.ahead_interval
    return [
        f"{name} ({evaluation.metric} {ahead:+.3g}, positive is better, {low:+.3g} to {high:+.3g})"
        for name, (ahead, (low, high)) in leads.items()
        if high < 0
    ]


def start_challenger(
    run: Run,
    bundle: Path,
    tracker: Tracker,
    *,
    mode: TrafficMode,
    share: float,
    compared_with: str,
    reason: str,
    cause: str,
) -> Challenger:
    """Deploy the run's bundle beside the champion, with `share` of the traffic.

    `compared_with` is the version of the champion that the run beat, `reason` says by how much,
    `cause` why the run was trained. WorkError when another champion is deployed by now.
    """
    folder = run.settings.paths.deployment
    with deployment.deployment_lock(folder):
        before = deployment.read_deployment(folder)
        if before.champion.version != compared_with:
            raise WorkError(
                f"{folder}: the champion changed in the meantime; run retrain again to compare "
                "the challenger with the new one"
            )
        traffic: dict[str, Any] = {"mode": mode, "share": share}
        staged = stage_bundle(run, bundle, tracker).model_dump()
        challenger = Challenger(**staged, **traffic, since=deployment.utc_now())
        after = before.model_copy(update={"challenger": challenger})
        sync_registry_aliases(tracker, after)
        details = {"version": run.name, **traffic, "cause": cause}
        deployment.replace_deployment(folder, after, "challenge", reason, **details)
    return challenger


def set_traffic(
    folder: Path, reason: str, share: float | None = None, mode: TrafficMode | None = None
) -> Challenger:
    """Give the challenger another share or mode, which begins a new A/B test."""
    with deployment.deployment_lock(folder):
        before = deployment.read_deployment(folder)
        if (old := before.challenger) is None:
            raise WorkError(f"{folder}: there is no challenger to set the traffic of")
        traffic = {"share": share or old.share, "mode": mode or old.mode}
        challenger = old.model_copy(update={**traffic, "since": deployment.utc_now()})
        after = before.model_copy(update={"challenger": challenger})
        details = {"version": challenger.version, **traffic}
        deployment.replace_deployment(folder, after, "traffic", reason, **details)
    return challenger


def promote(
    settings: Settings,
    deployed: Deployment,
    verdict: dict[str, Any] | None,
    reason: str,
    force: bool = False,
) -> Deployment:
    """Make the challenger the champion if the A/B test's `verdict` says so, or with `force`.

    The verdict on `deployed` (`decision`, `reason` and its figures) goes into the history.
    WorkError when it says otherwise, or when something else is deployed by now.
    """
    folder = settings.paths.deployment
    if deployed.challenger is None:
        raise WorkError(f"{folder}: there is no challenger to promote")
    if not force and (verdict is None or verdict["decision"] != "promote"):
        says = f"{verdict['decision']}: {verdict['reason']}" if verdict else "nothing"
        raise WorkError(
            f"not promoted, the A/B test says {says} (promote --force overrides the verdict)"
        )
    with deployment.deployment_lock(folder):
        if deployment.read_deployment(folder) != deployed:
            raise WorkError(f"{folder}: the deployment changed in the meantime; check and repeat")
        fields = deployed.challenger.model_dump(include=set(BundleRef.model_fields))
        after = deployment.with_champion(folder, BundleRef(**fields))
        _verify_champion(folder, after)
        _move_aliases(settings, after)
        versions = {"version": after.champion.version, "before": deployed.champion.version}
        details = {**versions, "forced": force, "verdict": verdict}
        deployment.replace_deployment(folder, after, "promote", reason, **details)
    return after


def rollback(settings: Settings, reason: str) -> tuple[Deployment, str | None]:
    """Take the challenger out or, without one, return to the previous champion.

    The second value says why MLflow's aliases were not moved: that does not stop a rollback.
    """
    folder = settings.paths.deployment
    with deployment.deployment_lock(folder):
        before = deployment.read_deployment(folder)
        if before.challenger is not None:
            after = before.model_copy(update={"challenger": None})
        elif before.previous:
            champion, *previous = before.previous
            now = deployment.utc_now()
            after = Deployment(champion=champion, previous=previous, deployed_at=now)
        else:
            raise WorkError(f"{folder}: there is no previous champion to return to")
        _verify_champion(folder, after)
        left = before.challenger or before.champion
        details: dict[str, Any] = {"version": after.champion.version, "left": left.version}
        warning = None
        try:
            _move_aliases(settings, after)
        except Exception as error:  # whatever is wrong with MLflow: callers must not wait for it
            warning = " ".join(str(error).split())
            details["aliases"] = f"not moved: {warning}"
        deployment.replace_deployment(folder, after, "rollback", reason, **details)
    return after, warning


def sync_registry_aliases(tracker: Tracker, after: Deployment) -> None:
    """Point the registry's aliases at a deployment, normally just before it takes effect."""
    from ..experiments.tracking import CHALLENGER, CHAMPION

    tracker.alias(CHAMPION, after.champion.registry_version)
    tracker.alias(CHALLENGER, after.challenger and after.challenger.registry_version)


def stage_bundle(run: Run, bundle: Path, tracker: Tracker) -> BundleRef:
    """Register a run's bundle and put it into the (locked) deployment folder, where nothing is
    served from it before `deployment.json` names it."""
    version = tracker.register(run, bundle, run.name)
    folder = run.settings.paths.deployment
    incoming = folder / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)  # what an interrupted deploy left
    incoming.mkdir(parents=True)
    download = tracker.download(version, incoming)
    loaded = load.load_bundle(download)
    place = folder / "bundles" / f"{loaded.version}-{loaded.digest[:8]}"
    place.parent.mkdir(exist_ok=True)
    if place.exists():
        try:
            load.verify_bundle(place, loaded.digest)
        except load.BadBundle:
            deployment.set_aside(place)
    if not place.exists():
        download.rename(place)
    shutil.rmtree(incoming)
    deployment.prune_bundles(folder, run.settings.paths.keep_bundles)
    return BundleRef(
        version=run.name,
        bundle=place.relative_to(folder).as_posix(),
        manifest_sha256=loaded.digest,
        registry_version=str(version.version),
    )


def _verify_champion(folder: Path, after: Deployment) -> None:
    load.load_bundle(deployment.bundle_path(folder, after.champion), after.champion.manifest_sha256)


def _move_aliases(settings: Settings, after: Deployment) -> None:
    """Sync the registry's aliases; WorkError when MLflow does not answer."""
    for name, value in MLFLOW_TIMEOUTS.items():
        os.environ.setdefault(name, value)
    from ..experiments.tracking import Tracker

    sync_registry_aliases(Tracker(settings), after)
