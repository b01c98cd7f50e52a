"""One command for any scheduler: decide, train, compare, and try the new model.

    decide → plan → data → train → evaluate → gate → release

Each step is done once and found done later, so whoever was killed anywhere runs it again.
"""

from collections.abc import Callable

from filelock import FileLock, Timeout

from ..bundle import deployment, load
from ..bundle.deploy import follow
from ..config import UserError
from ..experiments import tracked
from ..experiments.report import markdown
from ..experiments.tracking import Tracker
from ..files import write_json
from ..store import read
from ..store.database import Database
from ..task.data import Dataset
from ..task.settings import Settings
from ..training import labelled, runs
from ..training.runs import Run
from . import data, facts, plan
from .decide import decide
from .gate import Gate, comparable, judge, outputs_of
from .plan import Plan
from .release import release

LOCK = ".retrain.lock"
Say = Callable[[str], None]


def retrain(
    settings: Settings,
    if_needed: bool = False,
    force: bool = False,
    again: str = "retrain",
    say: Say = print,
) -> None:
    """Make and try a new model; with `if_needed` only where there is a reason.

    `force` disregards a running test and what another retraining left unfinished; `again` is the
    command that goes on with this one.
    """
    folder = settings.paths.runs
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            if force:
                plan.finish(settings)
            champion = _champion(settings)
            wanted = plan.under_way(settings) or _start(settings, champion, if_needed, force, say)
            if wanted is not None:
                _finish(settings, wanted, champion, again, say)
                plan.finish(settings)
    except Timeout:
        say(f"{folder}: another retrain is at work here, it is left alone")


def _champion(settings: Settings) -> load.Bundle:
    champion = load.load(*deployment.deployed(settings.paths.deployment))
    if champion.name != settings.name:
        raise UserError(
            f"{settings.paths.deployment}: holds a model of {champion.name}, the settings are of "
            f"{settings.name}; give its --config"
        )
    return champion


def _start(
    settings: Settings, champion: load.Bundle, if_needed: bool, force: bool, say: Say
) -> Plan | None:
    """Decide, and plan if there is something to do."""
    target = settings.paths.deployment
    database = Database(settings.live.database)
    try:
        database.migrate()
        log = read.labelled(database)
        deployed = deployment.read(target)
        found = facts.gather(target, deployed, champion, database, log, settings.paths.feedback)
    finally:
        database.close()
    decision = decide(found, settings.retrain, if_needed, force)
    say("\n".join([*markdown(decision.table()), "", decision.sentence]))
    deployment.record(target, facts.DECIDED, decision.sentence, **decision.record())
    if decision.outcome != "retrain":
        return None
    return _plan(settings, champion, log, "; ".join(decision.reasons), say)


def _plan(
    settings: Settings, champion: load.Bundle, log: list[read.Known], reason: str, say: Say
) -> Plan:
    """Fix the data and the name of the run; the plan is written before the data is."""
    dataset = runs.original_data(settings)
    comparable(champion, dataset.contract)
    folder = settings.paths.feedback
    known = data.known(folder)
    rows = data.gather(dataset, known, log, settings.retrain)
    path = data.newest(folder) if rows == known else data.following(folder, rows)
    made = Plan(run=runs.reserve(settings).name, feedback=path, reason=reason)
    plan.write(settings, made)
    if path and rows != known:
        labelled.write(path, rows)
    counts = ", ".join(
        f"{sum(row.split == name for row in rows)} {name}" for name in (*labelled.SPLITS, "unused")
    )
    say(f"labelled requests: {counts}")
    return made


def _finish(settings: Settings, wanted: Plan, champion: load.Bundle, again: str, say: Say) -> None:
    """Go from a plan to a challenger that is deployed or refused."""
    target = settings.paths.deployment
    before = deployment.read(target)
    if wanted.run in {one.version for one in (before.champion, before.challenger) if one}:
        say(f"{wanted.run} is deployed already")
        return
    run, dataset = _open(settings, wanted, say)
    comparable(champion, dataset.contract)
    if not (run.folder / "evaluation.json").exists():
        tracked.train(run, dataset, again)
    evaluation = tracked.evaluation(run, dataset)
    tracker = Tracker(run.settings)
    gate = _gate(run, dataset, champion, say)
    deployment.record(target, facts.COMPARED, gate.reason, version=run.name, **gate.line())
    tracker.log_gate(run, gate.line())
    if not gate.passed:
        follow(tracker, before)  # a rollback without MLflow may have left them behind
        say(f"refused, the champion stays: {gate.reason}")
        return
    challenger = release(run, dataset, evaluation, tracker, settings, gate, wanted.reason)
    say(f"challenger {run.name}: {challenger.mode} {challenger.share:.0%}; the verb ab watches it")


def _open(settings: Settings, wanted: Plan, say: Say) -> tuple[Run, Dataset]:
    """The run of a plan; a new one if data or code have changed so that it cannot go on."""
    folder = settings.paths.runs / wanted.run
    if (folder / "run.json").exists():
        try:
            run = runs.open_run(settings, wanted.run)
            dataset = run.dataset()
        except UserError as error:
            say(f"{error}; starting anew")
            folder = runs.reserve(settings)
            plan.write(settings, wanted.model_copy(update={"run": folder.name}))
        else:
            say(f"going on with run {run.name}")
            return run, dataset
    live = settings.live.model_copy(update={"feedback": wanted.feedback})
    own = settings.model_copy(update={"live": live})
    dataset = runs.load_data(own)
    folder.mkdir(exist_ok=True)
    return runs.create(own, dataset, folder), dataset


def _gate(run: Run, dataset: Dataset, champion: load.Bundle, say: Say) -> Gate:
    """Compare on what neither was trained on."""
    path = run.settings.live.feedback
    rows = labelled.read(path) if path else []
    count = run.about["data"]["rows"]["test"] - sum(row.split == "test" for row in rows)
    gate = judge(champion, run.name, outputs_of(run.folder), dataset, count)
    write_json(run.folder / "gate.json", gate.record())
    say("\n".join(["", *markdown(gate.table()), ""]))
    return gate
