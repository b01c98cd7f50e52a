"""The verbs that lead from one model to the next. Like those in `verbs.py` they import late."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from .config import WorkError
from .verbs import read_settings


def retrain(options: Namespace) -> None:
    settings = read_settings(options)
    from .lifecycle.retrain import retrain as work

    again = f"{options.command} retrain"
    with _told():
        work(settings, options.if_needed, options.force, again)


def promote(options: Namespace) -> None:
    settings = read_settings(options)
    from .bundle.deployment import read_deployment
    from .monitoring.online import ab_verdict_record
    from .release.rollout import promote as work

    with _told():
        deployed = read_deployment(settings.paths.deployment)
        verdict = ab_verdict_record(settings, deployed, options.force)
        after = work(settings, deployed, verdict, options.reason, options.force)
    print(f"champion: {after.champion.version} (a running server takes it up by itself)")
    print(f"back: {options.command} rollback")


def rollback(options: Namespace) -> None:
    settings = read_settings(options)
    from .release.rollout import rollback as work

    with _told():
        after, warning = work(settings, options.reason)
    if warning:
        print(f"warning: MLflow's aliases were not moved: {warning}", file=sys.stderr)
    print(f"champion: {after.champion.version} (a running server takes it up by itself)")


@contextmanager
def _told() -> Iterator[None]:
    """What the lower parts raise, as failed work."""
    from .bundle.load import BadBundle
    from .store.database import DatabaseError

    try:
        yield
    except (BadBundle, DatabaseError) as error:
        raise WorkError(str(error)) from None
