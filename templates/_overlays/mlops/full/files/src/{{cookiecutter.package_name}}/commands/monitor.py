"""Watch a deployed model: record feedback, detect drift, follow the A/B test."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client import Client
from ..config import UserError, WorkError
from .common import CommandGroup, add_config_options, add_reason_option, read_settings
from .publish import publish_afterwards

if TYPE_CHECKING:
    from ..bundle.deployment import Challenger
    from ..monitoring.ab_test import Verdict
    from ..monitoring.online import Arm
    from ..store.feedback_schema import FeedbackLine

    Record = Callable[[list[FeedbackLine]], dict[str, int]]

FEEDBACK_BATCH = 1000  # labels recorded in one transaction or request
EXIT_DRIFT = 3


def register(group: CommandGroup) -> None:
    parser = group.add(run_feedback, "labels.csv", "labels.csv --url http://127.0.0.1:8000")
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV or JSON Lines")
    parser.add_argument("--url", help="of a server; sends the first key of $APP_API_KEYS, if any")
    add_config_options(parser)
    parser = group.add(run_drift, "", "--rows 5000 --version VERSION")
    parser.add_argument("--rows", type=int, default=1000, help="newest items (default: 1000)")
    parser.add_argument("--version", help="a version other than the champion")
    text = "where to draw it (default: drift.png in paths.experiments)"
    parser.add_argument("--picture", type=Path, metavar="FILE", help=text)
    add_config_options(parser)
    share_example = "--share 0.3    (starts a new test with 30 % of the callers)"
    parser = group.add(run_ab, "", "--effect 0.01", share_example)
    text = "start a new test that gives the challenger this share of the traffic"
    parser.add_argument("--share", type=_parse_share, help=text)
    text = "start a new test in which the challenger serves callers, or predicts in shadow"
    parser.add_argument("--mode", choices=("split", "shadow"), help=text)
    text = "the gain whose expected time to a verdict is asked for (default: ab.least_effect)"
    parser.add_argument("--effect", type=float, help=text)
    add_reason_option(parser)
    add_config_options(parser)


def _parse_share(text: str) -> float:
    if not 0 < (share := float(text)) <= 1:
        raise ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


def run_feedback(options: Namespace) -> None:
    """Record ground truth for logged predictions.

    The same file again changes nothing. CSV: a column request_id, an optional column item (position
    in the request, from 0) and one column per field of the ground truth, as text or JSON. JSON
    Lines, in a file that ends in .jsonl: one object with request_id, item and truth per line.
    """
    from ..store.feedback_schema import Feedback, read_feedback_file
    from ..task.contract import GroundTruth

    lines = read_feedback_file(options.file, Feedback[GroundTruth])
    totals = dict.fromkeys(("new", "changed", "same"), 0)
    with (_send_feedback if options.url else _log_feedback)(options) as record:
        for start in range(0, len(lines), FEEDBACK_BATCH):
            try:
                counts = record(lines[start : start + FEEDBACK_BATCH])
            except (UserError, WorkError) as error:
                if not start:
                    raise
                recorded = f"everything before row {lines[start].row} of {options.file} is recorded"
                raise type(error)(f"{error}; {recorded}") from None
            totals = {name: total + counts[name] for name, total in totals.items()}
    print(f"{len(lines)} labels: {', '.join(f'{count} {name}' for name, count in totals.items())}")


@contextmanager
def _send_feedback(options: Namespace) -> Iterator[Record]:
    def record(batch: list[FeedbackLine]) -> dict[str, int]:
        content = {"feedback": [line.feedback.model_dump(mode="json") for line in batch]}
        return client.post("/v1/feedback", content)

    with Client(options.url) as client:
        yield record


@contextmanager
def _log_feedback(options: Namespace) -> Iterator[Record]:
    from ..bundle.deployment import champion_path
    from ..bundle.load import load_contract
    from ..store.database import open_log
    from ..store.feedback import RefusedFeedback, record_feedback

    settings = read_settings(options)
    score = load_contract(champion_path(settings.paths.deployment)[0]).score_json

    def record(batch: list[FeedbackLine]) -> dict[str, int]:
        try:
            return record_feedback(log, [line.feedback for line in batch], score)._asdict()
        except RefusedFeedback as error:
            raise UserError(f"{options.file}: row {batch[error.index].row}: {error}") from None

    with open_log(settings.live.database) as log:
        yield record


def run_drift(options: Namespace) -> int:
    """Compare recent inputs and predictions with the validation set.

    Compares every input feature and the predictions of the newest logged items. Exit codes: 0 no
    drift found or too few rows, 3 drift found; 1 the work failed, 2 invalid input.
    """
    from ..bundle import deployment
    from ..bundle.load import load_reference
    from ..monitoring import online
    from ..monitoring.drift import compare_distributions, drift_table
    from ..store.database import open_log
    from ..store.queries import read_window

    # 1. Read the reference of one version and its newest items.
    settings, least = read_settings(options), online.MIN_DRIFT_ROWS
    if options.rows < least:
        raise UserError(f"--rows {options.rows}: at least {least} are needed")
    folder = settings.paths.deployment
    deployed = deployment.read_deployment(folder)
    challengers = [deployed.challenger] if deployed.challenger else []
    bundles = {ref.version: ref for ref in (*deployed.previous, *challengers, deployed.champion)}
    version = options.version or deployed.champion.version
    if version not in bundles:
        raise UserError(f"--version {version}: is not deployed; there are {', '.join(bundles)}")
    reference = load_reference(deployment.bundle_path(folder, bundles[version]))
    with open_log(settings.live.database) as log:
        window = read_window(log, options.rows, online.VARIANTS, version)
    print(f"version {version}: {window.rows} items in the log")
    if window.rows < least:
        print(f"too few to judge: at least {least} are needed")
        return 0
    # 2. Compare and draw.
    expected = online.with_predictions(reference["features"], reference["predictions"])
    observed = online.with_predictions(window.features, window.prediction_stats)
    rows = compare_distributions(expected, observed, min_rows=least)
    picture = options.picture or settings.paths.experiments / "drift.png"
    try:
        from ..experiments.drift_plot import draw_drift  # matplotlib: not before it is needed

        draw_drift(expected, observed, rows, picture)
        drawn = f"written: {picture}"
    except ModuleNotFoundError as error:  # in the server's image
        drawn = f"not drawn: {error.name} is not installed"
    print("\n".join(["", *drift_table(rows), "", drawn]))
    drifted = [row.feature for row in rows if row.drifted]
    print(f"drifted: {', '.join(drifted)}" if drifted else "no drift found")
    return EXIT_DRIFT if drifted else 0


def run_ab(options: Namespace) -> None:
    """Show the A/B test so far and its verdict.

    Compares champion and challenger on the traffic of the running test: keep going, promote or
    stop. Safe to peek at: the error rate holds however often you look. Forecasts the time to a
    verdict and the power at the present traffic.
    """
    from ..bundle.deployment import read_deployment
    from ..monitoring.online import measure_ab_test
    from ..release.rollout import set_traffic
    from ..task.contract import SCORE

    settings = read_settings(options)
    if options.effect is not None and options.effect <= 0:
        raise UserError(f"--effect {options.effect:g}: is not above 0")
    folder = settings.paths.deployment
    if options.share or options.mode:
        challenger = set_traffic(folder, options.reason, options.share, options.mode)
        traffic = f"{challenger.mode} {challenger.share:.0%}"
        print(f"challenger {challenger.version}: {traffic}; a new test has begun")
        publish_afterwards(settings, options.command)
        return
    deployed = read_deployment(folder)
    if (challenger := deployed.challenger) is None:
        print(f"no A/B test is running: {deployed.champion.version} has no challenger")
        return
    arms, verdict = measure_ab_test(settings, deployed)
    traffic = "callers" if challenger.mode == "split" else "requests are mirrored to it (shadow)"
    print(
        f"champion {deployed.champion.version}, challenger {challenger.version}: "
        f"{100 * challenger.share:g} % of the {traffic}, since {challenger.since}\n"
    )
    print("\n".join(_arms_table(arms, SCORE.name)))
    print(
        f"\n{verdict.decision}: {verdict.reason} in {SCORE.name}, positive is better; the interval "
        f"holds at all looks together in {100 * (1 - verdict.alpha):g} % of tests"
    )
    if verdict.decision == "keep going":
        effect = options.effect or settings.ab.least_effect
        print(_forecast(verdict, challenger, settings.ab.model_dump(), effect))
    following = {
        "promote": f"{options.command} promote",
        "keep going": "look again when there is more feedback",
        "stop": f"{options.command} rollback ends the test, the champion stays",
    }
    print(f"next: {following[verdict.decision]}")


def _forecast(
    verdict: Verdict, challenger: Challenger, rules: dict[str, Any], effect: float
) -> str:
    """Say when a verdict can be expected at the traffic so far, and with what power."""
    from ..monitoring import ab_test

    own, paired = ab_test.TestRules(**rules), challenger.mode == "shadow"
    units = verdict.champion_units + (0 if paired else verdict.challenger_units)
    days = (datetime.now(UTC) - datetime.fromisoformat(challenger.since)).total_seconds() / 86400
    counted = "mirrored requests with a label" if paired else "labelled callers"
    if not math.isfinite(verdict.high) or days <= 0:
        return f"forecast: too few {counted} for one"
    rate = units / days
    start = f"forecast at {rate:.3g} new {counted} a day"
    start += ", a caller's counted once" if paired else ""
    if not effect:
        gains = (
            f"{ab_test.detectable_effect(verdict, units + rate * more, own, paired):.2g} in "
            f"{more} days"
            for more in (7, 30)
        )
        return f"{start}: finds with a power of 80 % a gain of {' or '.join(gains)} (see --effect)"
    needed = ab_test.units_needed(verdict, effect, own, paired)
    week = ab_test.power(verdict, effect, units + 7 * rate, own, paired)
    wait = max(0.0, needed - units) / rate
    return (
        f"{start}: a gain of {effect:g} needs about {needed:.3g} of them for a power of 80 %, "
        f"{wait:.3g} days from now; the power in 7 days is {week:.0%}"
    )


def _arms_table(arms: list[Arm], metric: str) -> list[str]:
    if not arms:
        return ["the log holds no request of this test yet"]
    rows = [["variant", "requests", "items", "callers", "labels", "p50 ms", "p99 ms", metric]]
    for (variant, requests, items, callers, p50, p99), labels, mean in arms:
        counts = map(str, (requests, items, callers, labels))
        score = "" if mean is None else f"{mean:.4f}"
        rows.append([variant, *counts, f"{p50:.2f}", f"{p99:.2f}", score])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
