"""Run the studies of `tune`, `crossval` and `sweep`, and log them to MLflow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from ..config import UserError, WorkError, differences, with_values
from ..files import read_document
from ..task import contract, data, objective
from ..task.data import Dataset
from ..task.settings import Settings
from ..training import folds, sweeps
from ..training.dataset import load_data
from ..training.documents import Evaluation
from ..training.fit import Interrupted
from ..training.runs import Run, create_run, describe_run, read_run
from ..training.trial_values import rounded
from ..training.tuning import Study, TuneRecord
from .tracked_runs import evaluate_tracked, train_tracked

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}  # MLflow's, by Optuna's


def tune(study: Study, trials: int, seconds: float | None, command: str) -> TuneRecord:
    """Work on a study, report and log each trial. Raises WorkError when stopped."""
    from .tracking import Tracker

    tracker = Tracker(study.settings)
    run = Run(study.folder, study.settings, describe_run(study.settings, study.dataset))
    parent = tracker.mlflow_run(study.folder.name, run, {"study": study.name})
    try:
        for trial in study.run(trials, seconds):
            print(_told(trial))
            values = {key: rounded(value) for key, value in trial.params.items()}
            tags = {"mlflow.parentRunId": parent, "state": trial.state.name.lower()}
            settings = study.settings
            try:
                settings = with_values(settings, values, f"trial {trial.number}")
            except UserError:
                tags["error"] = trial.user_attrs["error"]  # they exclude each other
            run = Run(study.folder, settings, run.info)
            name = f"{study.folder.name}-trial-{trial.number:04d}"
            child = tracker.mlflow_run(name, run, tags)
            for epoch, value in sorted(trial.intermediate_values.items()):
                tracker.log_metrics(child, {objective.PRIMARY_METRIC: value}, epoch)
            tracker.client.set_terminated(child, STATUS[trial.state.name])
    except Interrupted:
        raise WorkError("stopped, nothing is lost; go on with the same command") from None
    finally:
        tracker.client.set_terminated(parent, "FINISHED")
    return study.record(command)


def _told(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        result = f"{objective.PRIMARY_METRIC} {trial.value:.4f} on validation"
    elif error := trial.user_attrs.get("error"):
        result = f"failed ({error})"
    else:
        result = f"pruned after epoch {max(trial.intermediate_values, default=0)}"
    return f"trial {trial.number}: {result}"


def cross_validate(
    settings: Settings, count: int, name: str, command: str
) -> folds.CrossValidation:
    """Train and evaluate on each fold; those that are done are read from `paths.runs`."""
    from .tracking import Tracker

    title, done, about = f"crossval-{name}", list[folds.Fold](), ""
    tracker, parent = Tracker(settings), None
    runs = [
        _fold_run(settings.model_copy(update={"data": fold_data}), title, number)
        for number, fold_data in enumerate(data.folds(settings.data, count), 1)
    ]
    for number, run in enumerate(runs, 1):
        folder, evaluated = run.folder, run.folder / "evaluation.json"
        if not evaluated.exists():
            dataset = data.load(run.settings.data)
            if dataset.fingerprint != run.info.data.fingerprint:
                reason = "the data has changed since this fold was begun"
                raise UserError(f"{folder}: {reason}; name the new one with --name NAME")
            rows = dict(run.info.data.rows)
            told = ", ".join(f"{count} {split} rows" for split, count in rows.items())
            print(f"fold {number} of {len(runs)}: {told}")
            if parent is None:
                whole = Run(folder.parent, settings, run.info)
                parent = tracker.mlflow_run(title, whole, {"folds": str(count)})
            tracker.mlflow_run(run.name, run, {"mlflow.parentRunId": parent})
            train_tracked(run, dataset, "the same command")
            evaluate_tracked(run, dataset)
        _remove_weights(folder)
        evaluation, about = read_document(evaluated, Evaluation), about or run.info.data.about
        done.append(
            folds.Fold(
                run=run.folder.relative_to(settings.paths.runs).as_posix(),
                fingerprint=run.info.data.fingerprint,
                rows=run.info.data.rows,
                network=evaluation.network.mean,
                baselines={key: each.metrics for key, each in evaluation.baselines.items()},
                train_seconds=evaluation.train_seconds,
            )
        )
    metric, higher = objective.PRIMARY_METRIC, objective.HIGHER_IS_BETTER
    record = folds.summarise(name, metric, higher, about, settings.train.seeds, done, command)
    if parent is not None:
        summary = {f"crossval_{metric}": record.network.mean}
        tracker.log_metrics(parent, summary | {f"crossval_{metric}_sd": record.network.sd})
        tracker.client.set_terminated(parent, "FINISHED")
    return record


def _fold_run(settings: Settings, title: str, number: int) -> Run:
    """Open the run of a fold; create it if it is new, so that unusable folds show at once."""
    folder = settings.paths.runs / title / f"{title}-fold-{number}"
    if not (folder / "run.json").exists():
        try:
            return create_run(settings, data.load(settings.data), folder)
        except UserError as error:
            raise UserError(f"fold {number}: {error}") from None
    run = read_run(folder, settings)
    if changed := differences(_dump(settings), _dump(run.settings)):
        reason = f"fold {number} was trained with other settings: {'; '.join(changed)}"
        raise UserError(f"{folder.parent}: {reason}; name the new one with --name NAME")
    return run


def sweep(
    base: Settings, variants: Mapping[str, tuple[list[str], Settings]], name: str, command: str
) -> sweeps.SweepRecord:
    """Train the base and each variant, unless there is such a run; compare them on validation."""
    reference: Dataset | None = None
    scores: np.ndarray | None = None
    results: list[sweeps.Variant] = []
    for title, (overrides, settings) in {"base": ([], base), **variants}.items():
        dataset = load_data(settings)
        reference = reference or dataset
        if not _same_targets(reference, dataset):
            reason = "changes the validation rows or their targets: nothing to compare"
            raise UserError(f"{title}: {reason}")
        run = sweeps.find_run(settings, dataset)
        print(f"{title}: {f'run {run.name} has these settings' if run else 'a new run'}")
        run = run or create_run(settings, dataset)
        _train_and_tag(run, dataset, name)
        own = sweeps.validation_scores(run, dataset)
        results.append(sweeps.compare(title, overrides, run, own, scores))
        scores = own if scores is None else scores
    assert reference is not None, "the base was the first"
    return sweeps.SweepRecord(
        name=name,
        metric=objective.PRIMARY_METRIC,
        higher_is_better=objective.HIGHER_IS_BETTER,
        fingerprint=reference.fingerprint,
        seeds=base.train.seeds,
        base=results[0],
        variants=results[1:],
        command=command,
    )


def _train_and_tag(run: Run, dataset: Dataset, name: str) -> None:
    from .tracking import Tracker

    tracker = Tracker(run.settings)
    tracker.client.set_tag(tracker.parent(run), f"sweep-{name}", "true")
    if not run.finished:
        train_tracked(run, dataset, "the same command")


def _same_targets(first: Dataset, second: Dataset) -> bool:
    """Return whether the validation rows have the same targets; their inputs may differ."""
    names = first.validation.keys() - contract.INPUTS.keys()
    return all(np.array_equal(first.validation[k], second.validation[k]) for k in names)


def _dump(settings: Settings) -> dict[str, object]:
    return settings.model_dump(mode="json", exclude={"paths"})


def _remove_weights(folder: Path) -> None:
    """Remove what an evaluated fold no longer needs."""
    files: Sequence[Path] = [*folder.glob("*/*.safetensors"), folder / "outputs.npz"]
    for path in files:
        path.unlink(missing_ok=True)
