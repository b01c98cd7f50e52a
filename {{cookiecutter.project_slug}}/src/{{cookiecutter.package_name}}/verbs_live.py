"""The verbs about a model at work: what was right, what has changed, which of two is better."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import UserError, WorkError
from .verbs import ask, read_settings

if TYPE_CHECKING:
    from .bundle.deployment import BundleRef, Deployment
    from .monitoring.online import Arm
    from .store.database import Database
    from .store.feedback_schema import FeedbackLine
    from .task.contract import Contract
    from .task.settings import Settings

BATCH = 1000  # truths that are recorded at once
DRIFTED = 3  # exit code


def feedback(options: Namespace) -> None:
    from .store.feedback_schema import Feedback, read_feedback_file
    from .task.contract import GroundTruth

    lines = read_feedback_file(options.file, Feedback[GroundTruth])
    if options.url:
        counts = _in_batches(options.file, lines, lambda some: _post(options.url, some))
    else:
        with _failures():
            counts = _record(options.file, lines, read_settings(options))
    shown = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{len(lines)} truths: {shown}")


def drift(options: Namespace) -> int:
    from .bundle import deployment
    from .files import read_json
    from .monitoring import online
    from .monitoring.drift import compare_distributions, drift_table
    from .store.queries import read_window

    settings = read_settings(options)
    if options.rows < online.MIN_DRIFT_ROWS:
        raise UserError(f"--rows {options.rows}: at least {online.MIN_DRIFT_ROWS} are needed")
    folder = settings.paths.deployment
    with _failures():
        chosen = _version(deployment.read_deployment(folder), options.version)
        reference = read_json(deployment.bundle_path(folder, chosen) / "reference.json")
        with _log(settings) as log:
            seen = read_window(log, options.rows, online.VARIANTS, chosen.version)
    print(f"version {chosen.version}: {seen.rows} items of the log")
    if seen.rows < online.MIN_DRIFT_ROWS:
        print(f"too few to judge: at least {online.MIN_DRIFT_ROWS} are needed")
        return 0
    expected, observed = online.reference_distributions(reference), online.online_values(seen)
    found = compare_distributions(expected, observed, min_rows=online.MIN_DRIFT_ROWS)
    from .experiments.drift_plot import draw_drift  # matplotlib: not before it is needed

    picture = options.picture or settings.paths.experiments / "drift.png"
    draw_drift(expected, observed, found, picture)
    drifted = [row.feature for row in found if row.drifted]
    print("\n".join(["", *drift_table(found), "", f"written: {picture}"]))
    print(f"drifted: {', '.join(drifted)}" if drifted else "no drift found")
    return DRIFTED if drifted else 0


def ab(options: Namespace) -> None:
    from .bundle import deployment
    from .monitoring.online import measure_ab_test
    from .task.contract import SCORE

    settings = read_settings(options)
    if options.share or options.mode:
        _set_traffic(options, settings)
        return
    with _failures():
        found = deployment.read_deployment(settings.paths.deployment)
        if (challenger := found.challenger) is None:
            print(f"no test is running: {found.champion.version} has no challenger")
            return
        own = _contract(settings.paths.deployment)
        with _log(settings) as log:
            arms, verdict = measure_ab_test(settings.ab, log, found, own)
    whose = "callers" if challenger.mode == "split" else "requests, in shadow"
    print(
        f"champion {found.champion.version}, challenger {challenger.version}: "
        f"{100 * challenger.share:g} % of the {whose}, since {challenger.since}\n"
    )
    print("\n".join(_table(arms, SCORE.name)))
    print(
        f"\n{verdict.decision}: {verdict.reason} in {SCORE.name}, above 0 is better; over all "
        f"looks such intervals are right in {100 * (1 - verdict.alpha):g} % of the tests"
    )
    print(
        {
            "promote": f"next: {options.command} promote",
            "keep going": "next: look again when more feedback has come",
            "stop": f"next: {options.command} rollback ends the test, the champion stays",
        }[verdict.decision]
    )


def _set_traffic(options: Namespace, settings: Settings) -> None:
    from .release.rollout import set_traffic

    with _failures():
        folder = settings.paths.deployment
        found = set_traffic(folder, options.reason, options.share, options.mode)
    print(f"challenger {found.version}: {found.mode} {found.share:.0%}; a new test has begun")


def _table(arms: list[Arm], metric: str) -> list[str]:
    head = ["variant", "requests", "items", "callers", "labels", "p50 ms", "p99 ms", metric]
    rows = [head]
    for (variant, requests, items, callers, _, p50, p99), labels, mean in arms:
        counts = [str(count) for count in (requests, items, callers, labels)]
        shown = "" if mean is None else f"{mean:.4f}"
        rows.append([variant, *counts, f"{p50:.2f}", f"{p99:.2f}", shown])
    if not arms:
        return ["no request of this test is in the log yet"]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _version(found: Deployment, version: str | None) -> BundleRef:
    """The champion, or the bundle of this version among all that the deployment knows."""
    challengers = [found.challenger] if found.challenger else []
    known = {one.version: one for one in (*found.previous, *challengers, found.champion)}
    if version is not None and version not in known:
        raise UserError(f"--version {version}: is not deployed; there are {', '.join(known)}")
    return known[version or found.champion.version]


@contextmanager
def _log(settings: Settings) -> Iterator[Database]:
    """The prediction log, with its tables in order."""
    from .store.database import Database

    with closing(Database(settings.live.database)) as database:
        database.migrate()
        yield database


def _contract(folder: Path) -> Contract:
    """The champion's contract, by which answers are scored."""
    from .bundle.deployment import champion_path
    from .bundle.load import BadBundle
    from .task.contract import Contract

    place, _ = champion_path(folder)
    try:
        return Contract.load(place)
    except (OSError, ValueError) as error:
        raise BadBundle(f"{place / Contract.FILE}: cannot be used: {error}") from None


def _record(path: Path, lines: list[FeedbackLine], settings: Settings) -> dict[str, int]:
    from .store.feedback import InvalidGroundTruth, UnknownRequest, record_feedback

    contract = _contract(settings.paths.deployment)

    def write(some: list[FeedbackLine]) -> dict[str, int]:
        try:
            return record_feedback(
                log, [line.feedback for line in some], contract.score_json
            )._asdict()
        except UnknownRequest as error:
            raise UserError(f"{path}: row {some[error.indices[0]].row}: {error}") from None
        except InvalidGroundTruth as error:
            raise UserError(f"{path}: row {some[error.index].row}: {error}") from None

    with _log(settings) as log:
        return _in_batches(path, lines, write)


def _post(url: str, some: list[FeedbackLine]) -> dict[str, int]:
    content = {"feedback": [line.feedback.model_dump(mode="json") for line in some]}
    return ask(url, "/v1/feedback", content)


def _in_batches(
    path: Path, lines: list[FeedbackLine], write: Callable[[list[FeedbackLine]], dict[str, int]]
) -> dict[str, int]:
    counts = {"new": 0, "changed": 0, "same": 0}
    for start in range(0, len(lines), BATCH):
        try:
            found = write(lines[start : start + BATCH])
        except (UserError, WorkError) as error:
            if not start:
                raise
            kept = f"what stands before row {lines[start].row} of {path} is recorded"
            raise type(error)(f"{error}; {kept}") from None
        counts = {name: count + found[name] for name, count in counts.items()}
    return counts


@contextmanager
def _failures() -> Iterator[None]:
    """What bundles and databases do not do, as work that failed."""
    from .bundle.load import BadBundle
    from .store.database import DatabaseError

    try:
        yield
    except (BadBundle, DatabaseError) as error:
        raise WorkError(str(error)) from None
