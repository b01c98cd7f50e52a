"""One command for any scheduler: decide, train, compare, and try the new model.

    decide → plan → data → train → evaluate → gate → release

Each step is done once and found done later, so whoever was killed anywhere runs it again.
"""

from collections.abc import Callable

from filelock import FileLock, Timeout

from ..bundle import deployment, load
from ..config import UserError
from ..experiments import tracked_runs
from ..experiments.report import markdown_table
from ..experiments.tracking import Tracker
from ..files import write_json
from ..release.rollout import sync_registry_aliases
from ..store import queries
from ..store.database import Database
from ..task.data import Dataset
from ..task.settings import Settings
from ..training import feedback_data, runs
from ..training.dataset import load_data, original_data
from ..training.runs import Run
from . import facts, labels, plan
from .gate import Gate, check_comparable, read_outputs, run_gate
from .plan import PendingRetrain
from .release import start_challenger
from .triggers import decide

LOCK_FILE = ".retrain.lock"
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
        with FileLock(folder / LOCK_FILE, timeout=0):
            if force:
                plan.clear_pending(settings)
            champion = _champion(settings)
            wanted = plan.read_pending(settings) or _start(
                settings, champion, if_needed, force, say
            )
            if wanted is not None:
                _finish(settings, wanted, champion, again, say)
                plan.clear_pending(settings)
    except Timeout:
        say(f"{folder}: another retrain is at work here, it is left alone")


def _champion(settings: Settings) -> load.Bundle:
    champion = load.load_bundle(*deployment.champion_path(settings.paths.deployment))
    if champion.name != settings.name:
        raise UserError(
            f"{settings.paths.deployment}: holds a model of {champion.name}, the settings are of "
            f"{settings.name}; give its --config"
        )
    return champion


def _start(
    settings: Settings, champion: load.Bundle, if_needed: bool, force: bool, say: Say
) -> PendingRetrain | None:
    """Decide, and plan if there is something to do."""
    target = settings.paths.deployment
    database = Database(settings.live.database)
    try:
        database.migrate()
        log = queries.read_labelled(database)
        deployed = deployment.read_deployment(target)
        found = facts.collect_signals(
            target, deployed, champion, database, log, settings.paths.feedback
        )
    finally:
        database.close()
    decision = decide(found, settings.retrain, if_needed, force)
    say("\n".join([*markdown_table(decision.table()), "", decision.sentence]))
    deployment.append_history(target, facts.DECIDED, decision.sentence, **decision.record())
    if decision.outcome != "retrain":
        return None
    return _plan(settings, champion, log, "; ".join(decision.reasons), say)


def _plan(
    settings: Settings,
    champion: load.Bundle,
    log: list[queries.LabelledExample],
    reason: str,
    say: Say,
) -> PendingRetrain:
    """Fix the data and the name of the run; the plan is written before the data is."""
    dataset = original_data(settings)
    check_comparable(champion, dataset.contract)
    folder = settings.paths.feedback
    known = labels.read_collected(folder)
    rows = labels.collect_rows(dataset, known, log, settings.retrain)
    path = labels.newest_file(folder) if rows == known else labels.next_file(folder, rows)
    made = PendingRetrain(run=runs.reserve_folder(settings).name, feedback=path, reason=reason)
    plan.write_pending(settings, made)
    if path and rows != known:
        feedback_data.write_feedback_rows(path, rows)
    counts = ", ".join(
        f"{sum(row.split == name for row in rows)} {name}"
        for name in (*feedback_data.SPLITS, "unused")
    )
    say(f"labelled requests: {counts}")
    return made


def _finish(
    settings: Settings, wanted: PendingRetrain, champion: load.Bundle, again: str, say: Say
) -> None:
    """Go from a plan to a challenger that is deployed or refused."""
    target = settings.paths.deployment
    before = deployment.read_deployment(target)
    if wanted.run in {one.version for one in (before.champion, before.challenger) if one}:
        say(f"{wanted.run} is deployed already")
        return
    run, dataset = _open(settings, wanted, say)
    check_comparable(champion, dataset.contract)
    if not (run.folder / "evaluation.json").exists():
        tracked_runs.train_tracked(run, dataset, again)
    evaluation = tracked_runs.read_or_evaluate(run, dataset)
    tracker = Tracker(run.settings)
    gate = _gate(run, dataset, champion, say)
    deployment.append_history(target, facts.COMPARED, gate.reason, version=run.name, **gate.line())
    tracker.log_gate(run, gate.line())
    if not gate.passed:
        sync_registry_aliases(
            tracker, before
        )  # a rollback without MLflow may have left them behind
        say(f"refused, the champion stays: {gate.reason}")
        return
    challenger = start_challenger(run, dataset, evaluation, tracker, settings, gate, wanted.reason)
    say(f"challenger {run.name}: {challenger.mode} {challenger.share:.0%}; the verb ab watches it")


def _open(settings: Settings, wanted: PendingRetrain, say: Say) -> tuple[Run, Dataset]:
    """The run of a plan; a new one if data or code have changed so that it cannot go on."""
    folder = settings.paths.runs / wanted.run
    if (folder / "run.json").exists():
        try:
            run = runs.open_run(settings, wanted.run)
            dataset = run.dataset()
        except UserError as error:
            say(f"{error}; starting anew")
            folder = runs.reserve_folder(settings)
            plan.write_pending(settings, wanted.model_copy(update={"run": folder.name}))
        else:
            say(f"going on with run {run.name}")
            return run, dataset
    live = settings.live.model_copy(update={"feedback": wanted.feedback})
    own = settings.model_copy(update={"live": live})
    dataset = load_data(own)
    folder.mkdir(exist_ok=True)
    return runs.create_run(own, dataset, folder), dataset


def _gate(run: Run, dataset: Dataset, champion: load.Bundle, say: Say) -> Gate:
    """Compare on what neither was trained on."""
    path = run.settings.live.feedback
    rows = feedback_data.read_feedback_rows(path) if path else []
    count = run.info.data.rows.test - sum(row.split == "test" for row in rows)
    gate = run_gate(champion, run.name, read_outputs(run.folder), dataset, count)
    write_json(run.folder / "gate.json", gate.record())
    say("\n".join(["", *markdown_table(gate.table()), ""]))
    return gate
