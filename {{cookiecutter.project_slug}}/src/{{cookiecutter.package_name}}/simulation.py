"""A model's whole life in minutes, on data that it has never seen: `make loop`.

    train, deploy, serve → usual traffic → the world changes → drift → retrain → A/B test → promote

Every step is a verb that people and schedulers use too; only the callers are played. They are the
part of the test split that `live.set_aside` keeps away from training, and `task/simulate.py` tells
how their world changes. What it makes lies in the folder `loop/`, which is made anew each time.
"""

import http.client
import json
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

from . import cli
from .bundle import deployment
from .bundle.load import Bundle, load_bundle
from .config import WorkError, load_settings
from .experiments.report import markdown_table
from .files import read_json, write_figure
from .interfaces import LabelledItem
from .monitoring import online
from .store.database import Database
from .task import data, simulate
from .task.contract import SCORE, Prediction
from .task.settings import Settings

CONFIG = Path("configs/loop.yaml")
LOOP_FOLDER = Path("loop")
MARK = LOOP_FOLDER / ".made-by-make-loop"
STEPS = 20  # looks at quality and drift, over the whole story
LEARN = 0.45  # share of the changed traffic that is there to learn from
AFTER = 0.1  # and that is left for the time after the promotion
WINDOW = 120  # newest items that the picture's drift looks at
COLORS = ("#1f5fa8", "#c2571a", "#2a7f62", "#8a5fb0")
WAIT_SECONDS = 60.0  # seconds for the server to do what it was told


class Observation(NamedTuple):
    """What one part of the traffic showed."""

    requests: int  # until then
    scores: dict[str, list[float]]  # by the version that answered
    drift: dict[str, float]  # stability index by feature

    @property
    def quality(self) -> dict[str, float]:
        """The mean score of each version."""
        return {version: float(np.mean(some)) for version, some in self.scores.items()}


@dataclass
class Story:
    """What happened, in order."""

    looks: list[Observation] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)  # requests until then, what
    rows: list[list[str]] = field(default_factory=list)
    requests: int = 0

    def tell(self, step: str, found: str, event: str | None = None) -> None:
        """Add a row to the table, and a mark to the picture if it is an event."""
        self.rows.append([step, found])
        if event:
            self.events.append((self.requests, event))

    def quality(self, since: int) -> float:
        """The mean score of all answers in the looks after so many requests."""
        looks = [look for look in self.looks if look.requests > since]
        return float(np.mean([x for look in looks for some in look.scores.values() for x in some]))


def main() -> int:
    started = time.monotonic()
    if LOOP_FOLDER.exists() and not MARK.exists():
        print(f"error: {LOOP_FOLDER}/ was not made by make loop; move it away", file=sys.stderr)
        return 2
    shutil.rmtree(LOOP_FOLDER, ignore_errors=True)
    MARK.parent.mkdir()
    MARK.touch()
    settings = load_settings(Settings, CONFIG)
    try:
        story = tell(settings)
    except WorkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    picture = LOOP_FOLDER / "loop.png"
    draw_story(story, picture)
    print("\n".join(["", *markdown_table([["Step", "What happened"], *story.rows]), ""]))
    print(f"written: {picture}; the log, runs and history are in {LOOP_FOLDER}/")
    print(f"the whole loop took {time.monotonic() - started:.0f} s")
    return 0


def tell(settings: Settings) -> Story:
    """Live through it all; WorkError where the story takes another turn."""
    story = Story()
    dataset, rest = data.load(settings.data).holdout(settings.live.set_aside)
    usual = simulate.normal_requests(dataset, rest, settings)
    shifted = simulate.shifted_requests(dataset, rest, settings)
    if not usual or not shifted:
        raise WorkError(f"{CONFIG}: live.set_aside={settings.live.set_aside} leaves no traffic")
    size = max(10, (len(usual) + len(shifted)) // STEPS)
    learn, tried, after = split_by_shares(shifted, LEARN, 1 - LEARN - AFTER, AFTER)

    for verb in ("train", "evaluate", "deploy"):
        run_command(verb)
    champion = load_champion(settings)
    with server(settings) as url, SimulatedTraffic(settings, url, story) as traffic:
        story.tell("deploy", f"champion {champion.version} serves")
        traffic.send(usual, size)
        run_command("drift", "--rows", str(max(online.MIN_DRIFT_ROWS, len(usual))), allowed=(0,))
        before = story.quality(0)
        story.tell("usual traffic", f"{len(usual)} requests, {SCORE.name} {before:.3f}")

        change = story.requests
        story.events.append((change, "the world changes"))
        print(f"\n{simulate.SHIFT_DESCRIPTION}")
        traffic.send(learn, size)
        run_command("drift", "--rows", str(max(online.MIN_DRIFT_ROWS, len(learn))), allowed=(3,))
        drifted = sorted(traffic.drifted)
        bad = story.quality(change + size)
        story.tell("the world changes", f"{len(learn)} requests, {SCORE.name} {bad:.3f}")
        story.tell("drift", ", ".join(drifted) or "none found")

        run_command("retrain", "--if-needed")
        found = deployment.read_deployment(settings.paths.deployment)
        if found.challenger is None:
            raise WorkError("retraining gave no challenger; the table above says why")
        gate = read_json(settings.paths.runs / found.challenger.version / "gate.json")
        story.tell(
            "retrain", f"challenger {found.challenger.version}: {gate['reason']}", "retrained"
        )

        wait_until(lambda: traffic.variants() >= {"champion", "challenger"})
        begun = story.requests
        verdict = traffic.test(tried, size, found)
        run_command("ab")
        story.tell(
            "A/B test",
            f"{verdict.decision} after {story.requests - begun} requests: "
            f"{verdict.difference:+.3f} ({verdict.low:+.3f} to {verdict.high:+.3f})",
        )
        if verdict.decision != "promote":
            raise WorkError(f"the A/B test did not say promote: {verdict.reason}")

        run_command("promote", "--reason", "the loop's A/B test")
        version = found.challenger.version
        wait_until(lambda: traffic.ready() == version)
        promoted = story.requests
        story.tell("promote", f"{version} answers all, the server ran on", "promoted")
        traffic.send(after, size)
        good = story.quality(promoted)
        story.tell("afterwards", f"{len(after)} requests, {SCORE.name} {good:.3f}")
    return story


class SimulatedTraffic:
    """Callers who ask the server, and later tell what was right."""

    def __init__(self, settings: Settings, url: str, story: Story) -> None:
        self.settings, self.story = settings, story
        self.database = Database(settings.live.database)
        self.drifted: set[str] = set()
        host, _, port = url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=30)
        self._contract = load_champion(settings).contract

    def __enter__(self) -> "SimulatedTraffic":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.database.close()

    def send(self, pairs: Sequence[LabelledItem], size: int) -> None:
        """Ask about all of them, in parts, each followed by its feedback and a look."""
        for start in range(0, len(pairs), size):
            part = pairs[start : start + size]
            scores: dict[str, list[float]] = defaultdict(list)
            truths = []
            for item, truth in part:
                self.story.requests += 1
                body = {"items": [item.model_dump(mode="json", exclude_none=True)]}
                caller = f"caller {self.story.requests}"
                answer = self._post("/v1/predict", body, {"x-caller-key": caller})
                prediction = Prediction.model_validate(answer["predictions"][0])
                scores[answer["model_version"]].append(self._contract.score(prediction, truth))
                known = truth.model_dump(mode="json")
                truths.append({"request_id": answer["request_id"], "truth": known})
            self._post("/v1/feedback", {"feedback": truths})
            self._look(scores)
        self._connection.close()  # what comes next may last longer than the server keeps it open

    def test(
        self, pairs: Sequence[LabelledItem], size: int, deployed: deployment.Deployment
    ) -> "online.ab_test.Verdict":
        """Send more until the A/B test is decided, looking after every part."""
        for start in range(0, len(pairs), size):
            self.send(pairs[start : start + size], size)
            if self._verdict(deployed).decision != "keep going":
                break
        return self._verdict(deployed)

    def _verdict(self, deployed: deployment.Deployment) -> "online.ab_test.Verdict":
        return online.measure_ab_test(self.settings.ab, self.database, deployed, self._contract)[1]

    def variants(self) -> set[str]:
        """Those that answer."""
        return {model["variant"] for model in self._get("/v1/models")["models"]}

    def ready(self) -> str | None:
        """The version that answers."""
        return self._get("/readyz").get("model_version")

    def _look(self, scores: dict[str, list[float]]) -> None:
        place, _ = deployment.champion_path(
            self.settings.paths.deployment
        )  # another one in the end
        found = online.measure_drift(
            self.database, read_json(place / "reference.json"), rows=WINDOW
        )
        drift = {row.feature: row.psi for row in found if row.statistic}
        self.drifted |= {row.feature for row in found if row.drifted}
        look = Observation(self.story.requests, scores, drift)
        self.story.looks.append(look)
        shown = ", ".join(f"{value:.3f}" for value in look.quality.values())
        worst = max(drift.values(), default=0.0)
        print(f"{self.story.requests:>6} requests  {SCORE.name} {shown}  drift {worst:.2f}")

    def _post(self, path: str, content: object, headers: dict[str, str] | None = None) -> dict:
        head = {"content-type": "application/json", **(headers or {})}
        return self._ask("POST", path, json.dumps(content), head)

    def _get(self, path: str) -> dict:
        return self._ask("GET", path, None, {})

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> dict:
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read().decode()
        if answer.status != 200:
            raise WorkError(f"{method} {path}: answered {answer.status}: {content}")
        return json.loads(content)


def draw_story(story: Story, path: Path) -> None:
    """Quality and drift over the requests, with what happened marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    versions = list(dict.fromkeys(name for look in story.looks for name in look.quality))
    for version, color, label in zip(
        versions, COLORS, ("first model", "its successor"), strict=False
    ):
        some = [look for look in story.looks if version in look.quality]
        heights = [look.quality[version] for look in some]
        top.plot([look.requests for look in some], heights, "o-", ms=4, color=color, label=label)
    better = "higher" if SCORE.higher_is_better else "lower"
    top.set_ylabel(f"{SCORE.name} by feedback\n({better} is better)")
    names = {name for look in story.looks for name in look.drift}
    courses = {name: [look.drift.get(name, np.nan) for look in story.looks] for name in names}
    most = sorted(names, key=lambda name: -np.nanmax(courses[name]))[: len(COLORS)]
    for name, color in zip(most, COLORS, strict=False):
        bottom.plot([look.requests for look in story.looks], courses[name], color=color, label=name)
    bottom.set_yscale("symlog", linthresh=0.25)
    bottom.axhline(0.1, color="#8a8f98", linewidth=0.8, linestyle=":")
    bottom.set_ylabel(f"drift (PSI) of the\nnewest {WINDOW} items")
    bottom.set_ylim(bottom=0)
    bottom.set_xlabel("requests")
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="center left")
        for requests, _ in story.events:
            axis.axvline(requests, color="#555555", linewidth=0.8, linestyle="--")
    for requests, text in story.events:
        spot = (requests, 1.02)
        top.annotate(text, spot, xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    write_figure(path, figure)


def run_command(verb: str, *arguments: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Run a verb as a person would; WorkError when it ends otherwise than expected."""
    command = [verb, "--config", str(CONFIG), *arguments]
    print(f"\n$ {' '.join(command)}", flush=True)
    code = cli.main(command)
    if code not in allowed:
        raise WorkError(f"{verb} ended with {code} instead of {allowed[0]}; it says why above")


@contextmanager
def server(settings: Settings) -> Iterator[str]:
    """The server, as a process of its own; yields its address."""
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
        wait_until(lambda: process.poll() is not None or '"listening"' in log.read_text())
        wait_until(lambda: process.poll() is not None or "startup complete" in log.read_text())
        if process.poll() is not None:
            raise WorkError(f"the server ended with {process.returncode}: {log.read_text()}")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        yield next(line["url"] for line in lines if line["message"] == "listening")
    finally:
        process.terminate()
        process.wait(30)


def wait_until(done: Callable[[], object]) -> None:
    """Wait for something; WorkError when it does not come."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise WorkError("the server did not do what it was told in time; see loop/server.log")
        time.sleep(0.1)


def split_by_shares(pairs: Sequence[LabelledItem], *shares: float) -> list[Sequence[LabelledItem]]:
    """Parts in their order, of these shares."""
    ends = [round(share * len(pairs)) for share in np.cumsum([0, *shares])]
    return [pairs[start:end] for start, end in pairwise(ends)]


def load_champion(settings: Settings) -> Bundle:
    """The champion."""
    return load_bundle(*deployment.champion_path(settings.paths.deployment))


if __name__ == "__main__":
    sys.exit(main())
