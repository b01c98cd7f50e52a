"""What the log, the deployment and the history say about the champion."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..bundle import deployment
from ..bundle.load import Bundle
from ..files import read_json
from ..monitoring import live
from ..store.database import Database
from ..store.read import Known
from ..task.contract import QUALITY
from . import data
from .decide import Facts

DECIDED, COMPARED = "decide", "gate"  # actions in the history


def gather(
    folder: Path,
    deployed: deployment.Deployment,
    champion: Bundle,
    database: Database,
    log: Sequence[Known],
    feedback: Path,
) -> Facts:
    """The facts to decide by."""
    reference = read_json(deployment.place_of(folder, deployed.champion) / "reference.json")
    found = live.drift(database, reference, version=champion.version)
    own = _quality(database, champion)
    known = data.known(feedback)
    return Facts(
        drifted=[row.feature for row in found if row.drifted],
        compared=sum(row.rows > 0 and not row.why.startswith("not judged") for row in found),
        metric=QUALITY.name,
        drop=own.drop if own else None,
        labels=own.labels if own else 0,
        fresh=len(data.fresh(log, known)),
        fewest=data.fewest(bool(known)),
        days=_days(folder, champion.manifest),
        test=deployed.challenger and deployed.challenger.version,
    )


def _quality(database: Database, champion: Bundle) -> live.LiveQuality | None:
    """The live quality of the champion, in the part of the log in which it was that."""
    manifests = {champion.version: champion.manifest}
    rows = live.quality(database, champion.contract, manifests)
    return next(
        (row for row in rows if (row.version, row.variant) == (champion.version, "champion")), None
    )


def _days(folder: Path, manifest: dict[str, Any]) -> float:
    """Since the champion was made, or since a successor was compared with it, be it in vain."""
    lines = deployment.history(folder)
    times = [manifest["created_at"], *(line["at"] for line in lines if line["action"] == COMPARED)]
    newest = max(datetime.fromisoformat(time) for time in times)
    return (datetime.now(UTC) - newest).total_seconds() / 86400
