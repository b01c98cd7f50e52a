"""Simulate a model's life in minutes, on data that it has never seen: `make loop`.

    deploy → normal traffic → distribution shift → drift → retrain → A/B test → promote

Every step is a command that people and schedulers use too; only the callers are simulated. They
send a part of the configured data's test split, which training never sees; `task/simulate.py` says
how their data shifts. Models, log and history go to `loop/`, which is emptied first; the figure and
the table go to the README.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from . import cli
from .arrays import row_count, select_rows
from .bundle.deployment import Deployment, champion_path, read_deployment
from .bundle.load import load_bundle
from .client import Client
from .commands.common import DEFAULT_CONFIG, add_config_options
from .commands.monitor import EXIT_DRIFT
from .config import UserError, WorkError, load_settings
from .experiments.report import markdown_table
from .files import read_json, replace_section, write_figure, write_text
from .interfaces import LabelledItem
from .monitoring import online
from .monitoring.ab_test import Verdict
from .palette import BLACK, CYCLE, GREY
from .serving.wiring import ON_WINDOWS
from .store.database import open_log
from .task import data, simulate
from .task.contract import SCORE, Contract, Prediction
from .task.settings import Settings

LOOP_CONFIG = Path("configs/loop.yaml")
LOOP_FOLDER = Path("loop")
SETTINGS = LOOP_FOLDER / "settings.yaml"  # of all commands of the loop
MARK = LOOP_FOLDER / ".made-by-make-loop"
PICTURE = Path("docs/experiments/loop.png")  # not in loop/, which git ignores
README = Path("README.md")
LOOP_BEGIN = "<!-- loop:begin, rewritten by make loop -->"
LOOP_END = "<!-- loop:end -->"
KEPT_SHARE, MOST_KEPT = 0.3, 500  # test rows that are not held out: the gate needs some
TRAFFIC_ROWS = 1000  # at most so many held-out rows become requests
EXAMPLES = 300_000  # visited in one training: of large data, fewer epochs are enough for a loop
UNIT_MARGIN = 1.3  # callers are assigned at random: so many more than are needed on average
OBSERVATIONS = 20  # over all the traffic
RETRAIN_SHARE = 0.45  # of the shifted traffic: what retraining learns from
FINAL_SHARE = 0.1  # of it: what comes after the promotion; the A/B test gets the rest
DRIFT_WINDOW = 120  # newest items that an observation's drift is measured on
WAIT_SECONDS = 60.0  # for the server to start or to switch models


class Observation(NamedTuple):
    """Quality and drift after a batch of requests."""

    requests: int  # sent so far
    scores: dict[str, list[float]]  # of this batch, by model version
    drift: dict[str, float]  # population stability index by feature

    @property
    def mean_scores(self) -> dict[str, float]:
        return {version: float(np.mean(scores)) for version, scores in self.scores.items()}


@dataclass
class Timeline:
    """What happened, in order."""

    observations: list[Observation] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)  # requests sent so far, label
    rows: list[list[str]] = field(default_factory=list)  # step, result
    requests: int = 0

    def add_step(self, step: str, result: str, event: str | None = None) -> None:
        """Add a row to the table and, if `event` labels it, an event to the figure."""
        self.rows.append([step, result])
        if event:
            self.events.append((self.requests, event))

    def add_score(self, step: str, since: int, skip: int = 0) -> None:
        """Add a row with the requests after the first `since` and their mean score, without the
        first `skip` of them."""
        score = self.mean_score(since + skip)
        self.add_step(step, f"{self.requests - since} requests, {SCORE.name} {score:.3f}")

    def mean_score(self, since: int) -> float:
        """Average the score of all requests observed after the first `since`."""
        later = [seen.scores.values() for seen in self.observations if seen.requests > since]
        return float(np.mean([x for versions in later for scores in versions for x in scores]))


class Traffic(NamedTuple):
    """The requests of the simulated callers, in their order."""

    normal: list[LabelledItem]
    to_learn: Sequence[LabelledItem]  # shifted, before the retraining
    to_test: Sequence[LabelledItem]  # for the A/B test
    final: Sequence[LabelledItem]  # after the promotion


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, then write figure, table and README; return the exit code."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        "make loop",
        description="Simulate a model's life with the data of a configuration; what is in "
        f"{LOOP_CONFIG.as_posix()}, a small network, overrides it.",
        epilog=f'make loop ARGS="--config {DEFAULT_CONFIG.as_posix()} train.epochs=10"',
    )
    add_config_options(parser)
    options = parser.parse_args(arguments)
    if sys.platform == "win32":
        print(f"error: {ON_WINDOWS}", file=sys.stderr)
        return 2
    if LOOP_FOLDER.exists() and not MARK.exists():
        print(f"error: {LOOP_FOLDER}/ was not created by make loop; move it away", file=sys.stderr)
        return 2
    for name in ("APP_DEPLOYMENT_URL", "APP_PUBLISH_TO"):  # nobody is to follow these models
        os.environ.pop(name, None)
    try:
        overrides = [*options.settings, "paths.publish_to=null"]
        settings = load_settings(Settings, [options.config, LOOP_CONFIG], overrides)
        settings, traffic = plan_traffic(settings)
        shutil.rmtree(LOOP_FOLDER, ignore_errors=True)
        MARK.parent.mkdir()
        MARK.touch()
        write_text(SETTINGS, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        timeline = simulate_lifecycle(settings, traffic)
    except (UserError, WorkError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    draw_timeline(timeline, PICTURE)
    table = markdown_table([["Step", "Result"], *timeline.rows])
    print("\n".join(["", *table, "", f"written: {PICTURE}"]))
    text = f"Simulated traffic with a distribution shift. {simulate.SHIFT_DESCRIPTION}"
    figure = f"![Quality and drift under simulated traffic]({PICTURE.as_posix()})"
    try:
        replace_section(README, LOOP_BEGIN, LOOP_END, [text, "", *table, "", figure])
        print(f"written: {README}, the section of make loop")
    except (OSError, UserError) as error:
        print(f"{README} is left as it is: {error}")
    seconds = time.monotonic() - started
    print(f"models, log and history are in {LOOP_FOLDER}/; the whole loop took {seconds:.0f} s")
    return 0


def plan_traffic(settings: Settings) -> tuple[Settings, Traffic]:
    """Hold out test rows and make requests of them; return the settings with that share.

    Raises UserError, before anything is trained, when there are too few for a verdict.
    """
    # 1. Hold out most of the test split, and train no longer than a loop needs.
    whole = data.load(settings.data)
    rows = row_count(whole.test)
    share = settings.live.set_aside or 1 - min(KEPT_SHARE * rows, MOST_KEPT) / rows
    dataset, held_out = whole.holdout(share)
    epochs = min(settings.train.epochs, math.ceil(EXAMPLES / row_count(dataset.train)))
    changed = {"live": {"set_aside": share}, "train": {"epochs": epochs}}
    sections = {
        name: getattr(settings, name).model_copy(update=update) for name, update in changed.items()
    }
    settings = settings.model_copy(update=sections)
    # 2. Make the requests.
    held_out = select_rows(held_out, np.arange(min(row_count(held_out), TRAFFIC_ROWS)))
    normal = simulate.normal_requests(dataset, held_out, settings)
    shifted = simulate.shifted_requests(dataset, held_out, settings)
    test_share = 1 - RETRAIN_SHARE - FINAL_SHARE
    parts = split_by_shares(shifted, RETRAIN_SHARE, test_share, FINAL_SHARE)
    traffic = Traffic(normal, *parts)
    # 3. Are there enough to retrain and to test?
    rules, arms = settings.retrain, min(settings.retrain.share, 1 - settings.retrain.share)
    arms = 1.0 if rules.mode == "shadow" else arms
    callers = math.ceil(UNIT_MARGIN * settings.ab.least_units / arms) if arms else math.inf
    labels = len(normal) + len(traffic.to_learn)
    if not normal or labels < rules.least_labels or len(traffic.to_test) < callers:
        raise UserError(
            f"too little data for a loop: {row_count(held_out)} of the {rows} test rows can be "
            f"traffic, which makes {labels} requests to retrain on (needed: {rules.least_labels}, "
            f"retrain.least_labels) and {len(traffic.to_test)} for the A/B test (needed: {callers} "
            f"by ab.least_units={settings.ab.least_units} and retrain.share={rules.share:g}); "
            f"{simulate.MORE_TRAFFIC}, or lower these settings"
        )
    print(
        f"data: {whole.about}\ntraffic: {len(normal)} normal and {len(shifted)} shifted requests, "
        f"made of {row_count(held_out)} of the {rows} test rows (live.set_aside={share:.2f})"
    )
    return settings, traffic


def simulate_lifecycle(settings: Settings, traffic: Traffic) -> Timeline:
    """Run all steps. Raises WorkError if a step ends otherwise than it should."""
    timeline = Timeline()
    normal, to_learn, to_test, final = traffic
    # 1. Observe about so often.
    size = max(10, sum(map(len, traffic)) // OBSERVATIONS)
    # 2. Train and deploy the first model.
    for command in ("train", "evaluate"):
        run_command(command)
    run_command("deploy", "--force", "--reason", "the first model of make loop")
    champion = load_bundle(*champion_path(settings.paths.deployment))
    with running_server(settings) as url, Client(url) as client:
        callers = SimulatedCallers(settings, client, champion.contract, timeline)
        timeline.add_step("deploy", f"champion {champion.version} serves")
        # 3. Normal traffic: no drift, unless the world of the data changed by itself.
        callers.send(normal, size)
        rows = max(online.MIN_DRIFT_ROWS, len(normal))
        drifts = run_command("drift", "--rows", str(rows), expected=(0, EXIT_DRIFT))
        timeline.add_score("normal traffic", since=0)
        if drifts:
            timeline.add_step("drift", "already before the shift: the data changes by itself")
        callers.drifted.clear()
        # 4. The data shifts: drift, and worse scores after the first batch.
        shift = timeline.requests
        timeline.events.append((shift, "distribution shift"))
        print(f"\n{simulate.SHIFT_DESCRIPTION}")
        callers.send(to_learn, size)
        rows = max(online.MIN_DRIFT_ROWS, len(to_learn))
        run_command("drift", "--rows", str(rows), expected=(0, EXIT_DRIFT))
        timeline.add_score("distribution shift", shift, skip=size)
        timeline.add_step("drift", ", ".join(sorted(callers.drifted)) or "none found")
        # 5. Retrain: a challenger that passes the gate.
        run_command("retrain", "--if-needed")
        deployed = read_deployment(settings.paths.deployment)
        if deployed.challenger is None:
            raise WorkError(
                "retraining brought no challenger; the table above says why. More traffic helps: "
                f"{simulate.MORE_TRAFFIC}"
            )
        version = deployed.challenger.version
        gate = read_json(settings.paths.runs / version / "gate.json")
        timeline.add_step("retrain", f"challenger {version}: {gate['reason']}", "retrained")
        # 6. A/B test, until it is decided.
        wait_until(lambda: len(client.get("/v1/models")["models"]) > 1)
        start = timeline.requests
        verdict = callers.run_ab_test(to_test, size, deployed)
        run_command("ab")
        timeline.add_step(
            "A/B test",
            f"{verdict.decision} after {timeline.requests - start} requests: "
            f"{verdict.difference:+.3f} ({verdict.low:+.3f} to {verdict.high:+.3f})",
        )
        if verdict.decision != "promote":
            raise WorkError(
                f"the A/B test does not say promote: {verdict.reason}. More traffic helps: "
                f"{simulate.MORE_TRAFFIC}"
            )
        # 7. Promote, without a restart.
        run_command("promote", "--reason", "the A/B test of make loop")
        wait_until(lambda: client.get("/readyz").get("model_version") == version)
        promotion = timeline.requests
        timeline.add_step("promote", f"{version} gets all traffic, without a restart", "promoted")
        callers.send(final, size)
        timeline.add_score("after promotion", since=promotion)
    return timeline


@dataclass
class SimulatedCallers:
    """Callers that send requests, and later the ground truth."""

    settings: Settings
    client: Client
    contract: Contract
    timeline: Timeline
    drifted: set[str] = field(default_factory=set)

    def send(self, pairs: Sequence[LabelledItem], size: int) -> None:
        """Send each item as a request; after every `size` of them, send feedback and observe."""
        for start in range(0, len(pairs), size):
            scores: dict[str, list[float]] = defaultdict(list)
            feedback = []
            for item, truth in pairs[start : start + size]:
                self.timeline.requests += 1
                body = {"items": [item.model_dump(mode="json", exclude_none=True)]}
                caller = {"x-caller-key": f"caller {self.timeline.requests}"}
                response = self.client.post("/v1/predict", body, caller)
                prediction = Prediction.model_validate(response["predictions"][0])
                scores[response["model_version"]].append(self.contract.score(prediction, truth))
                label = truth.model_dump(mode="json")
                feedback.append({"request_id": response["request_id"], "truth": label})
            self.client.post("/v1/feedback", {"feedback": feedback})
            self._observe(scores)
        self.client.close()  # the next step may outlast the server's keep-alive

    def run_ab_test(
        self, pairs: Sequence[LabelledItem], size: int, deployed: Deployment
    ) -> Verdict:
        """Send until the A/B test is decided, checking after every `size` requests."""
        for start in range(0, len(pairs), size):
            self.send(pairs[start : start + size], size)
            if online.measure_ab_test(self.settings, deployed)[1].decision != "keep going":
                break
        return online.measure_ab_test(self.settings, deployed)[1]

    def _observe(self, scores: dict[str, list[float]]) -> None:
        bundle, _ = champion_path(self.settings.paths.deployment)  # changes with the promotion
        reference = read_json(bundle / "reference.json")
        with open_log(self.settings.live.database) as log:
            features = online.measure_drift(log, reference, rows=DRIFT_WINDOW)
        self.drifted |= {row.feature for row in features if row.drifted}
        drift = {row.feature: row.psi for row in features if row.statistic}
        seen = Observation(self.timeline.requests, scores, drift)
        self.timeline.observations.append(seen)
        means = ", ".join(f"{value:.3f}" for value in seen.mean_scores.values())
        worst = max(drift.values(), default=0.0)
        print(f"{seen.requests:>6} requests  {SCORE.name} {means}  drift {worst:.2f}")


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Draw quality and drift over the requests, with the events marked."""
    from matplotlib.figure import Figure

    observations = timeline.observations
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    # 1. Quality: a line for each model.
    versions = dict.fromkeys(name for seen in observations for name in seen.scores)
    names = ("first model", "retrained model")
    for version, color, label in zip(versions, CYCLE, names, strict=False):
        served = [seen for seen in observations if version in seen.scores]
        requests = [seen.requests for seen in served]
        means = [seen.mean_scores[version] for seen in served]
        top.plot(requests, means, "o-", ms=4, color=color, label=label)
    better = "higher" if SCORE.higher_is_better else "lower"
    top.set_ylabel(f"{SCORE.name} from feedback\n({better} is better)")
    # 2. Drift: a line for each of the features that drifted most.
    requests = [seen.requests for seen in observations]
    features = {name for seen in observations for name in seen.drift}
    drift = {name: [seen.drift.get(name, np.nan) for seen in observations] for name in features}
    worst = sorted(features, key=lambda name: -np.nanmax(drift[name]))
    for name, color in zip(worst, CYCLE, strict=False):
        bottom.plot(requests, drift[name], color=color, label=name)
    bottom.axhline(0.1, color=GREY, linewidth=0.8, linestyle=":")
    bottom.set_yscale("symlog", linthresh=0.25)
    bottom.set_ylim(bottom=0)
    bottom.set_ylabel(f"drift (PSI) of the\nlast {DRIFT_WINDOW} items")
    bottom.set_xlabel("requests")
    # 3. Events.
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="best")
        for place, _ in timeline.events:
            axis.axvline(place, color=BLACK, linewidth=0.8, linestyle="--")
    for place, text in timeline.events:
        spot = (place, 1.02)
        top.annotate(text, spot, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    write_figure(path, figure)


def run_command(name: str, *arguments: str, expected: Sequence[int] = (0,)) -> int:
    """Run a command as a person would; WorkError unless it returns one of the expected codes."""
    command = [name, "--config", str(SETTINGS), *arguments]
    print(f"\n$ {' '.join(command)}", flush=True)
    if (code := cli.main(command)) not in expected:
        raise WorkError(f"{name} returned {code}; see its output above")
    return code


@contextmanager
def running_server(settings: Settings) -> Iterator[str]:
    """Run the server in a process of its own; yield its URL."""
    variables = {
        "APP_HOST": "127.0.0.1",
        "APP_PORT": "0",
        "APP_DEPLOYMENT_DIR": str(settings.paths.deployment),
        "APP_DATABASE_URL": settings.live.database,
        "APP_RELOAD_SECONDS": "0.2",
        "APP_LOG_LEVEL": "info",
    }
    command = [sys.executable, "-m", cli.__name__, "serve"]
    print("\n$ serve", flush=True)
    log = LOOP_FOLDER / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **variables}, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or "startup complete" in log.read_text())
        if process.poll() is not None:
            raise WorkError(f"the server exited with {process.returncode}: {log.read_text()}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        yield next(line["url"] for line in lines if line["message"] == "listening")
    finally:
        process.terminate()
        process.wait(30)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition of the server. Raises WorkError after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            log = LOOP_FOLDER / "server.log"
            raise WorkError(f"the server was not ready after {WAIT_SECONDS:g} s; see {log}")
        time.sleep(0.1)


def split_by_shares(pairs: Sequence[LabelledItem], *shares: float) -> list[Sequence[LabelledItem]]:
    """Cut a sequence, in its order, into pieces of these shares."""
    ends = [round(share * len(pairs)) for share in np.cumsum([0, *shares])]
    return [pairs[start:end] for start, end in pairwise(ends)]


if __name__ == "__main__":
    sys.exit(main())
