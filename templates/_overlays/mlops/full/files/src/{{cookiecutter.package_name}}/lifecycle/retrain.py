"""Retrain in one command, for any scheduler.

1. Decide whether to retrain.
2. Plan: choose the labelled requests and the run's name, and write the journal.
3. Collect: write the labelled requests to a file.
4. Train.
5. Evaluate.
6. Gate: compare with the champion on held-out data.
7. Start the challenger beside the champion.

The journal is written before the data and deleted at the end, and each step notices if it was done
before. So a retrain that was killed anywhere is resumed by the same command, and nothing is done
twice.
"""

from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from ..bundle import deployment
from ..bundle.load import Bundle, load_bundle
from ..config import UserError, differences
from ..experiments import tracked_runs
from ..experiments.report import markdown_table
from ..experiments.tracking import Tracker
from ..files import write_json, write_text
from ..release.export import pack_bundle
from ..release.rollout import start_challenger, sync_registry_aliases
from ..store import queries
from ..store.database import open_log
from ..task.data import Dataset
from ..task.settings import Settings
from ..training import feedback_data, runs
from ..training.dataset import load_data, original_data
from ..training.runs import Run
from . import labels
from .gate import check_comparable, run_gate
from .triggers import COMPARED, DECIDED, collect_signals, decide

LOCK_FILE, JOURNAL = ".retrain.lock", ".retrain.json"  # in `runs/`


class PendingRetrain(BaseModel, frozen=True, extra="forbid"):
    """The journal of a pending retrain, in `runs/` from step 2 until step 7."""

    run: str  # its folder in `runs/`
    feedback: Path | None  # file of collected rows
    reason: str


def read_pending(settings: Settings) -> PendingRetrain | None:
    """Read the journal; None without one, and when step 3 was not reached."""
    path = settings.paths.runs / JOURNAL
    try:
        pending = PendingRetrain.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not the journal of a retrain, remove it: {reason}") from None
    return pending if pending.feedback is None or pending.feedback.exists() else None


def write_pending(settings: Settings, pending: PendingRetrain) -> None:
    write_text(settings.paths.runs / JOURNAL, pending.model_dump_json(indent=2) + "\n")


def clear_pending(settings: Settings) -> None:
    """Delete the journal, after the last step or to give up."""
    (settings.paths.runs / JOURNAL).unlink(missing_ok=True)


def retrain(
    settings: Settings,
    if_needed: bool = False,
    force: bool = False,
    again: str = "retrain",
    override: str | None = None,
) -> None:
    """Train and try a new model, with `if_needed` only when a trigger fires.

    `force` disregards a running A/B test and a pending retrain; `again` is the command that
    resumes this one; `override` is why a challenger starts whatever the gate says. UserError when
    the deployed model has another name than the settings.
    """
    folder = settings.paths.runs
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK_FILE, timeout=0):
            if force:
                clear_pending(settings)
            champion = load_bundle(*deployment.champion_path(settings.paths.deployment))
            if champion.name != settings.name:
                raise UserError(
                    f"{settings.paths.deployment}: holds a model of {champion.name}, the settings "
                    f"are those of {settings.name}; give the right --config"
                )
            pending = read_pending(settings) or _plan(settings, champion, if_needed, force)
            if pending is not None:
                _carry_out(settings, pending, champion, again, override)
                clear_pending(settings)
    except Timeout:
        print(f"{folder}: another retrain is already running; nothing done")


def _plan(
    settings: Settings, champion: Bundle, if_needed: bool, force: bool
) -> PendingRetrain | None:
    """Take steps 1 to 3; None when there is nothing to do."""
    # 1. Decide.
    with open_log(settings.live.database) as database:
        log = queries.read_labelled(database)
        signals = collect_signals(settings, champion, database, log)
    decision = decide(signals, settings.retrain, if_needed, force)
    print("\n".join([*markdown_table(decision.table()), "", decision.sentence]))
    deployment.append_history(
        settings.paths.deployment, DECIDED, decision.sentence, **decision.record()
    )
    if decision.outcome != "retrain":
        return None
    # 2. Plan. The journal comes before the data: without its file it counts as not written.
    original = original_data(settings)
    check_comparable(champion, original.contract)
    today = settings.model_dump(mode="json", include={"data"})
    if differ := differences(today, champion.manifest.config):
        print(f"note: {champion.version} was trained on other data: {', '.join(differ[:5])}")
    folder = settings.paths.feedback
    collected = labels.read_collected(folder)
    rows = labels.collect_rows(original, collected, log, settings.retrain)
    path = labels.newest_file(folder) if rows == collected else labels.next_file(folder, rows)
    name, reason = runs.reserve_folder(settings).name, "; ".join(decision.reasons)
    pending = PendingRetrain(run=name, feedback=path, reason=reason)
    write_pending(settings, pending)
    # 3. Collect.
    if path and rows != collected:
        write_text(path, feedback_data.feedback_text(rows))
    splits = [row.split for row in rows]
    names = (*feedback_data.SPLITS, "unused")
    print("labelled requests: " + ", ".join(f"{splits.count(name)} {name}" for name in names))
    return pending


def _carry_out(
    settings: Settings, pending: PendingRetrain, champion: Bundle, again: str, override: str | None
) -> None:
    """Take steps 4 to 7: a challenger is deployed, or the gate rejects it."""
    target = settings.paths.deployment
    before = deployment.read_deployment(target)
    if pending.run in {ref.version for ref in (before.champion, before.challenger) if ref}:
        print(f"{pending.run} is already deployed")
        return
    # 4. Train.
    run, dataset = _open_run(settings, pending)
    check_comparable(champion, dataset.contract)
    if not (run.folder / "evaluation.json").exists():
        tracked_runs.train_tracked(run, dataset, again)
    # 5. Evaluate.
    evaluation = tracked_runs.read_or_evaluate(run, dataset)
    # 6. Gate.
    path = run.settings.live.feedback
    rows = feedback_data.read_feedback_rows(path) if path else []
    original = run.info.data.rows.test - sum(row.split == "test" for row in rows)
    gate = run_gate(champion, run, dataset, original, settings.retrain)
    write_json(run.folder / "gate.json", gate.record())
    print("\n".join(["", *markdown_table(gate.table()), ""]))
    why = {"override": override} if override and not gate.passed else {}
    summary = {**gate.summary(), **why}
    deployment.append_history(target, COMPARED, gate.reason, version=run.name, **summary)
    tracker = Tracker(run.settings)
    tracker.log_gate(run, gate.summary())
    if why:
        print(f"the gate is overridden ({override}): {gate.reason}")
    elif not gate.passed:
        sync_registry_aliases(tracker, before)  # a rollback without MLflow did not move them
        print(f"challenger rejected, the champion stays: {gate.reason}")
        return
    # 7. Start the challenger.
    bundle = pack_bundle(run, dataset, evaluation, tracker.parent(run))
    challenger = start_challenger(
        run,
        bundle,
        tracker,
        mode=settings.retrain.mode,
        share=settings.retrain.share,
        compared_with=gate.champion,
        reason=f"gate overridden, {override}: {gate.reason}" if why else gate.reason,
        cause=pending.reason,
    )
    print(
        f"challenger {run.name} started: {challenger.mode}, {challenger.share:.0%} of the traffic; "
        "see the command ab for the test so far"
    )


def _open_run(settings: Settings, pending: PendingRetrain) -> tuple[Run, Dataset]:
    """Open the pending run, or create it; a new one when data or code changed under it."""
    folder = settings.paths.runs / pending.run
    if (folder / "run.json").exists():
        try:
            run = runs.open_run(settings, pending.run)
            dataset = run.dataset()
        except UserError as error:
            print(f"{error}; starting again with a new run")
            folder = runs.reserve_folder(settings)
            write_pending(settings, pending.model_copy(update={"run": folder.name}))
        else:
            print(f"resuming run {run.name}")
            return run, dataset
    live = settings.live.model_copy(update={"feedback": pending.feedback})
    with_feedback = settings.model_copy(update={"live": live})
    dataset = load_data(with_feedback)
    for note in dataset.notes:
        print(f"note: {note}")
    folder.mkdir(exist_ok=True)
    return runs.create_run(with_feedback, dataset, folder), dataset
