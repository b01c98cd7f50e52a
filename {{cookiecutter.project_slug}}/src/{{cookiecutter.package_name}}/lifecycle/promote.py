"""The ends of a test, and its dials: promote the challenger, take it out, or return to before.

Aliases in the registry are moved first, `deployment.json` is replaced last: whoever is interrupted
in between runs the command again.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ..bundle import deployment, load
from ..bundle.deployment import BundleRef, Challenger, Deployment
from ..config import WorkError
from ..monitoring.online import measure_ab_test
from ..store.database import Database, DatabaseError
from ..task.settings import Settings

# MLflow's patience with a server that does not answer: minutes, unless it is told otherwise.
MLFLOW_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def promote(settings: Settings, reason: str, force: bool = False) -> Deployment:
    """Make the challenger the champion, if the test says so or with `force`.

    WorkError with the test's reason when it does not.
    """
    target = settings.paths.deployment
    before = deployment.read_deployment(target)
    if before.challenger is None:
        raise WorkError(f"{target}: there is no challenger to promote")
    verdict = _verdict(settings, before, force)
    if verdict.get("decision") != "promote" and not force:
        raise WorkError(
            f"not promoted, the test says {verdict['decision']}: {verdict['reason']} "
            "(promote --force does it all the same)"
        )
    with deployment.deployment_lock(target):
        _unchanged(target, before)
        after = deployment.with_champion(target, _plain(before.challenger))
        _verified(target, after.champion)
        _follow(settings, after)
        details = {"version": after.champion.version, "before": before.champion.version}
        deployment.replace_deployment(
            target, after, "promote", reason, **details, forced=force, verdict=verdict
        )
    return after


def rollback(settings: Settings, reason: str) -> tuple[Deployment, str | None]:
    """Take the challenger out, or return to the champion before when there is none.

    Works without MLflow: the second value says why its aliases were not moved, if so.
    """
    target = settings.paths.deployment
    with deployment.deployment_lock(target):
        before = deployment.read_deployment(target)
        if before.challenger is not None:
            after = before.model_copy(update={"challenger": None})
        elif before.previous:
            champion, *previous = before.previous
            after = Deployment(
                champion=champion, previous=previous, deployed_at=deployment.utc_now()
            )
        else:
            raise WorkError(f"{target}: there is no champion before this one to return to")
        _verified(target, after.champion)
        left = before.challenger or before.champion
        warning = _try_to_follow(settings, after)
        details: dict[str, Any] = {"version": after.champion.version, "left": left.version}
        if warning:
            details["aliases"] = f"not moved: {warning}"
        deployment.replace_deployment(target, after, "rollback", reason, **details)
    return after, warning


def set_traffic(
    folder: Path,
    reason: str,
    share: float | None = None,
    mode: Literal["split", "shadow"] | None = None,
) -> Challenger:
    """Give the challenger another part of the traffic. What was counted before does not compare
    with what comes, so this begins a new test."""
    with deployment.deployment_lock(folder):
        before = deployment.read_deployment(folder)
        if before.challenger is None:
            raise WorkError(f"{folder}: there is no challenger whose traffic could be set")
        wanted = {"share": share or before.challenger.share, "mode": mode or before.challenger.mode}
        challenger = before.challenger.model_copy(update={**wanted, "since": deployment.utc_now()})
        after = before.model_copy(update={"challenger": challenger})
        deployment.replace_deployment(
            folder, after, "traffic", reason, version=challenger.version, **wanted
        )
    return challenger


def _verdict(settings: Settings, deployed: Deployment, force: bool) -> dict[str, Any]:
    """What the test says, as JSON; of a forced promotion also that it could not be asked."""
    folder = deployment.bundle_path(settings.paths.deployment, deployed.champion)
    database = Database(settings.live.database)
    try:
        contract = load.Contract.load(folder)
        database.migrate()
        return asdict(measure_ab_test(settings.ab, database, deployed, contract)[1])
    except (DatabaseError, WorkError, ValueError) as error:
        if not force:
            raise
        return {"decision": "unknown", "reason": str(error)}
    finally:
        database.close()


def _unchanged(target: Path, before: Deployment) -> None:
    if deployment.read_deployment(target) != before:
        raise WorkError(f"{target}: was changed meanwhile; look at it and promote again")


def _plain(challenger: Challenger) -> BundleRef:
    """The challenger without its test."""
    return BundleRef(**challenger.model_dump(include=set(BundleRef.model_fields)))


def _verified(target: Path, installed: BundleRef) -> None:
    """BadBundle unless what is about to answer is whole."""
    load.load_bundle(deployment.bundle_path(target, installed), installed.manifest_sha256)


def _follow(settings: Settings, after: Deployment) -> None:
    """Move the registry's aliases; WorkError when MLflow does not answer."""
    for name, value in MLFLOW_TIMEOUTS.items():
        os.environ.setdefault(name, value)
    from ..experiments.tracking import Tracker
    from ..release.rollout import (
        sync_registry_aliases,  # MLflow and torch: seconds that a refusal does not need
    )

    sync_registry_aliases(Tracker(settings), after)


def _try_to_follow(settings: Settings, after: Deployment) -> str | None:
    try:
        _follow(settings, after)
    except Exception as error:  # whatever is wrong there: callers must not wait for it
        return " ".join(str(error).split())
    return None
