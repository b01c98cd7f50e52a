"""Put a challenger beside the champion, where it gets a part of the traffic."""

from ..bundle import deployment
from ..config import WorkError
from ..experiments.tracking import Tracker
from ..release.export import pack_bundle
from ..release.rollout import stage_bundle, sync_registry_aliases
from ..task.data import Dataset
from ..task.settings import Settings
from ..training.documents import Evaluation
from ..training.runs import Run
from .gate import Gate


def start_challenger(
    run: Run,
    dataset: Dataset,
    evaluation: Evaluation,
    tracker: Tracker,
    settings: Settings,
    gate: Gate,
    cause: str,
) -> deployment.Challenger:
    """Register the run as challenger and deploy it for a test; `cause` is why it was trained.

    WorkError when the champion is no longer the one that it was compared with.
    """
    pack_bundle(run, dataset, evaluation, tracker.parent(run))  # takes seconds, so before the lock
    target, rules = settings.paths.deployment, settings.retrain
    with deployment.deployment_lock(target):
        before = deployment.read_deployment(target)
        if before.champion.version != gate.champion:
            raise WorkError(
                f"{target}: the champion was changed meanwhile; retrain again, the challenger "
                "is then compared with the new one"
            )
        installed = stage_bundle(run, dataset, evaluation, tracker)
        challenger = deployment.Challenger(
            **installed.model_dump(), mode=rules.mode, share=rules.share, since=deployment.utc_now()
        )
        after = before.model_copy(update={"challenger": challenger})
        sync_registry_aliases(tracker, after)
        details = {"version": run.name, "mode": rules.mode, "share": rules.share, "cause": cause}
        deployment.replace_deployment(target, after, "challenge", gate.reason, **details)
    return challenger
