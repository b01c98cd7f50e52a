"""What the log, the deployment and the history say about the champion."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..bundle import deployment
from ..bundle.load import Bundle
from ..bundle.manifest import Manifest
from ..files import read_json
from ..monitoring import online
from ..store.database import Database
from ..store.queries import LabelledExample
from ..task.contract import SCORE
from . import labels
from .triggers import RetrainSignals

DECIDED, COMPARED = "decide", "gate"  # actions in the history


def collect_signals(
    folder: Path,
    deployed: deployment.Deployment,
    champion: Bundle,
    database: Database,
    log: Sequence[LabelledExample],
    feedback: Path,
) -> RetrainSignals:
    """The facts to decide by."""
    reference = read_json(deployment.bundle_path(folder, deployed.champion) / "reference.json")
    found = online.measure_drift(database, reference, version=champion.version)
    own = _quality(database, champion)
    known = labels.read_collected(feedback)
    return RetrainSignals(
        drifted=[row.feature for row in found if row.drifted],
        compared=sum(row.rows > 0 and not row.why.startswith("not judged") for row in found),
        metric=SCORE.name,
        drop=own.drop if own else None,
        labels=own.labels if own else 0,
        fresh=len(labels.uncollected(log, known)),
        fewest=labels.min_new_rows(bool(known)),
        days=_days(folder, champion.manifest),
        test=deployed.challenger and deployed.challenger.version,
    )


def _quality(database: Database, champion: Bundle) -> online.OnlineQuality | None:
    """The live quality of the champion, in the part of the log in which it was that."""
    manifests = {champion.version: champion.manifest}
    rows = online.measure_quality(database, champion.contract, manifests)
    return next(
        (row for row in rows if (row.version, row.variant) == (champion.version, "champion")), None
    )


def _days(folder: Path, manifest: Manifest) -> float:
    """Since the champion was made, or since a successor was compared with it, be it in vain."""
    lines = deployment.read_history(folder)
    times = [manifest.created_at, *(line["at"] for line in lines if line["action"] == COMPARED)]
    newest = max(datetime.fromisoformat(time) for time in times)
    return (datetime.now(UTC) - newest).total_seconds() / 86400
