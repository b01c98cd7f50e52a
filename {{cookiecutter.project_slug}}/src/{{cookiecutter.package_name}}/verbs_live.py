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
    from .bundle.deployment import Deployment, Installed
    from .monitoring.live import Arm
    from .store.database import Database
    from .store.labels import Line
    from .task.contract import Contract
    from .task.settings import Settings

BATCH = 1000  # truths that are recorded at once
DRIFTED = 3  # exit code


def feedback(options: Namespace) -> None:
    from .store.labels import read

    lines = read(options.file)
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
    from .monitoring import live
    from .monitoring.drift import compare, table
    from .store.read import window

    settings = read_settings(options)
    if options.rows < live.FEWEST:
        raise UserError(f"--rows {options.rows}: at least {live.FEWEST} are needed")
    folder = settings.paths.deployment
    with _failures():
        chosen = _version(deployment.read(folder), options.version)
        reference = read_json(deployment.place_of(folder, chosen) / "reference.json")
        with _log(settings) as log:
            seen = window(log, options.rows, live.VARIANTS, chosen.version)
    print(f"version {chosen.version}: {seen.rows} items of the log")
    if seen.rows < live.FEWEST:
        print(f"too few to judge: at least {live.FEWEST} are needed")
        return 0
    expected, observed = live.expected(reference), live.observed(seen)
    found = compare(expected, observed, fewest=live.FEWEST)
    from .monitoring.picture import draw  # matplotlib: not before it is needed

    picture = options.picture or settings.paths.experiments / "drift.png"
    draw(expected, observed, found, picture)
    drifted = [row.feature for row in found if row.drifted]
    print("\n".join(["", *table(found), "", f"written: {picture}"]))
    print(f"drifted: {', '.join(drifted)}" if drifted else "no drift found")
    return DRIFTED if drifted else 0


def ab(options: Namespace) -> None:
    from .bundle import deployment
    from .monitoring.live import ab_verdict
    from .task.contract import QUALITY

    settings = read_settings(options)
    if options.share or options.mode:
        _set_traffic(options, settings)
        return
    with _failures():
        found = deployment.read(settings.paths.deployment)
        if (challenger := found.challenger) is None:
            print(f"no test is running: {found.champion.version} has no challenger")
            return
        own = _contract(settings.paths.deployment)
        with _log(settings) as log:
            arms, verdict = ab_verdict(settings.ab, log, found, own)
    whose = "callers" if challenger.mode == "split" else "requests, in shadow"
    print(
        f"champion {found.champion.version}, challenger {challenger.version}: "
        f"{100 * challenger.share:g} % of the {whose}, since {challenger.since}\n"
    )
    print("\n".join(_table(arms, QUALITY.name)))
    print(
        f"\n{verdict.decision}: {verdict.reason} in {QUALITY.name}, above 0 is better; over all "
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
    from .lifecycle.promote import set_traffic

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


def _version(found: Deployment, version: str | None) -> Installed:
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
    from .bundle.deployment import deployed
    from .bundle.load import BadBundle
    from .task.contract import Contract

    place, _ = deployed(folder)
    try:
        return Contract.load(place)
    except (OSError, ValueError) as error:
        raise BadBundle(f"{place / Contract.FILE}: cannot be used: {error}") from None


def _record(path: Path, lines: list[Line], settings: Settings) -> dict[str, int]:
    from .store.feedback import BadTruth, UnknownRequest, record

    contract = _contract(settings.paths.deployment)

    def write(some: list[Line]) -> dict[str, int]:
        try:
            return record(log, [line.feedback for line in some], contract.score)._asdict()
        except UnknownRequest as error:
            raise UserError(f"{path}: row {some[error.indices[0]].row}: {error}") from None
        except BadTruth as error:
            raise UserError(f"{path}: row {some[error.index].row}: {error}") from None

    with _log(settings) as log:
        return _in_batches(path, lines, write)


def _post(url: str, some: list[Line]) -> dict[str, int]:
    content = {"feedback": [line.feedback.model_dump(mode="json") for line in some]}
    return ask(url, "/v1/feedback", content)


def _in_batches(
    path: Path, lines: list[Line], write: Callable[[list[Line]], dict[str, int]]
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
