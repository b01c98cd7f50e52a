"""Search settings with Optuna: many workers, one study in a database, validation alone.

A trial trains in a folder of its own, which is removed when the trial ends. The trial of a worker
that was killed is queued again and goes on from its last checkpoint.
"""

import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ..config import UserError, WorkError, differences, flatten, with_values
from ..files import Document
from ..task import objective
from ..task.data import Dataset
from ..task.settings import Settings
from .fit import Interrupted, TrainingState
from .runs import (
    Run,
    RunLocked,
    TrainingJob,
    create_run,
    lock,
    read_run,
    stop_on_signals,
    train_run,
)
from .trial_values import Space, rounded, suggest, values_inside

HEARTBEAT, GRACE = 10, 60  # seconds between signs of life; without one for so long: killed
RETRIES = 3  # of a trial whose worker was killed: it may be the trial that kills them
LEAST_FOR_IMPORTANCE = 10  # completed trials
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
ENDED = (*DONE, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.ERROR)  # each trial is reported by ourselves


class TrialResult(Document):
    """What is kept of a trial."""

    number: int
    state: str  # complete, pruned, interrupted (tried again as another), running or waiting
    value: float | None  # the metric on validation, if complete
    settings: dict[str, Any]
    history: list[float]  # the metric on validation after each epoch
    seconds: float | None = None
    error: str | None = None


class TuneRecord(Document):
    """`tune.json`: a study."""

    study: str
    metric: str  # on validation, of the chosen epoch, mean over the seeds
    higher_is_better: bool
    seeds: list[int]
    fingerprint: str  # of the data
    space: dict[str, str]
    fixed: dict[str, str]  # the other settings
    best: int  # the number of a trial
    before: float | None  # the metric of the first trial, which has the settings from before
    importance: dict[str, float]  # share of each setting, most important first; {}: too few trials
    command: str  # trains with the best settings
    trials: list[TrialResult]


class Study:
    """A study in the database of `paths.studies`, and a worker's way to go on with it."""

    def __init__(self, settings: Settings, name: str, space: Space, dataset: Dataset) -> None:
        """Create the study or join it. Raises UserError when it is about something else."""
        self.settings, self.name, self.space, self.dataset = settings, name, space, dataset
        self.folder = settings.paths.runs / f"tune-{name}"
        self.sign = 1 if objective.HIGHER_IS_BETTER else -1
        current = flatten(settings)
        unfixed = {*space, *(key for key in current if key.startswith("paths."))}
        about: dict[str, Any] = {
            "data": dataset.fingerprint,
            "space": {key: str(search) for key, search in sorted(space.items())},
            "fixed": {key: text for key, text in current.items() if key not in unfixed},
        }
        url, lock = settings.paths.studies, nullcontext()
        if url.startswith("sqlite:///"):
            database = Path(url.removeprefix("sqlite:///").partition("?")[0])
            database.parent.mkdir(parents=True, exist_ok=True)
            # Two processes must not create one database at once.
            lock = FileLock(database.with_name(f".{database.name}.lock"))
        with lock, as_work_error():
            retry = RetryHeartbeatStaleTrialCallback(RETRIES)
            self.study = optuna.create_study(
                storage=RDBStorage(
                    url,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=retry,
                ),
                study_name=name,
                direction="maximize" if objective.HIGHER_IS_BETTER else "minimize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=settings.train.epochs // 3),
            )
            before = self.study.user_attrs
            if changed := [key for key in about if before.get(key, about[key]) != about[key]]:
                raise UserError(self._other_study(changed[0], before, about))
            for key, value in about.items():
                self.study.set_user_attr(key, value)
            if not self.study.get_trials(deepcopy=False):  # begin with the settings as they are
                self.study.enqueue_trial(values_inside(settings, space))

    def run(self, total: int, seconds: float | None = None) -> Iterator[FrozenTrial]:
        """Work until the study has `total` trials or time is up; yield this worker's as they end.

        Raises Interrupted when stopped; the trial is queued again.
        """
        end, told = time.monotonic() + (seconds or math.inf), False
        with stop_on_signals() as stop:
            while time.monotonic() < end:
                if stop():
                    raise Interrupted
                with as_work_error():
                    fail_stale_trials(self.study)
                    trials = self.study.get_trials(deepcopy=False)
                self._remove_folders(trials)
                done = sum(trial.state in DONE for trial in trials)
                running = sum(trial.state == TrialState.RUNNING for trial in trials)
                if done >= total:
                    return
                if done + running < total:
                    if (trial := self._run_trial()) is not None:
                        yield trial
                    continue
                if not told:  # one of them may be a killed worker's
                    print(f"waiting for other workers' trials: {running}")
                told = True
                time.sleep(min(1.0, HEARTBEAT))

    def _run_trial(self) -> FrozenTrial | None:
        """Run one trial; None if another worker took it over."""
        try:
            with as_work_error():
                self.study.optimize(self._train, n_trials=1)
        except UpdateFinishedTrialError:
            print("a trial was taken over: this worker showed no sign of life for too long")
            return None
        except Interrupted:
            with as_work_error():
                RetryHeartbeatStaleTrialCallback()(self.study, self._trial(self.current))
            raise
        return self._trial(self.current)

    def record(self, command: str) -> TuneRecord:
        """Sum the study up; `command` trains. Raises WorkError without a completed trial."""
        with as_work_error():
            trials = self.study.get_trials(deepcopy=False)
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if not complete:
            raise WorkError(f"study {self.name}: no trial is complete yet; run tune again")
        best = max(complete, key=lambda trial: self.sign * float(trial.value or 0.0))
        first = next((trial for trial in complete if "fixed_params" in trial.system_attrs), None)
        return TuneRecord(
            study=self.name,
            metric=objective.PRIMARY_METRIC,
            higher_is_better=objective.HIGHER_IS_BETTER,
            seeds=self.settings.train.seeds,
            fingerprint=self.dataset.fingerprint,
            space=self.study.user_attrs["space"],
            fixed=self.study.user_attrs["fixed"],
            best=best.number,
            before=first.value if first else None,
            importance=self._importance(complete),
            command=" ".join([command, *(f"{k}={rounded(v)}" for k, v in best.params.items())]),
            trials=[_result(trial) for trial in trials],
        )

    def _train(self, trial: optuna.Trial) -> float:
        """Train a trial's networks; return the metric on validation, mean over the seeds."""
        self.current, seeds = trial.number, self.settings.train.seeds
        is_first = "fixed_params" in self._trial(trial.number).system_attrs  # what others beat
        # By the trial's number: one worker can be repeated, and two do not try the same.
        self.study.sampler = optuna.samplers.TPESampler(seed=1000 * seeds[0] + trial.number)
        reported, results, seconds = 0, [], 0.0

        def on_epoch(job: TrainingJob, state: TrainingState) -> None:
            nonlocal reported
            if job.name == f"seed-{seeds[0]}":
                for epoch, row in enumerate(state.history[reported:], reported + 1):
                    trial.report(row[objective.PRIMARY_METRIC], epoch)
                reported = state.epoch
                is_over = is_first or state.epoch == job.stage.train.epochs
                if not is_over and trial.should_prune():
                    trial.set_user_attr("seconds", round(state.seconds, 1))
                    raise optuna.TrialPruned

        try:
            values = suggest(trial, self.settings, self.space)
            settings = with_values(self.settings, values, f"trial {trial.number}")
            with self._locked_run(trial.number, settings) as run:
                for job, state in train_run(run, self.dataset, on_epoch):
                    seconds += state.seconds
                    if job.name.startswith("seed-"):
                        best = state.history[state.best_epoch - 1]
                        results.append(best[objective.PRIMARY_METRIC])
        except (UserError, WorkError) as error:  # settings that exclude each other; a loss of NaN
            if not any(t.state in DONE for t in self.study.get_trials(deepcopy=False)):
                raise  # nothing worked yet, so it is not this trial's settings
            trial.set_user_attr("error", str(error).partition("\n")[0])
            raise optuna.TrialPruned from None
        trial.set_user_attr("seconds", round(seconds, 1))
        return float(np.mean(results))

    @contextmanager
    def _locked_run(self, number: int, settings: Settings) -> Iterator[Run]:
        """Open the run of a trial, or of the one that it retries, and keep other workers off it.

        If that one's worker was not killed but asleep, it still has its run: then begin anew.
        """

        def open_run(number: int) -> Run:
            folder = self._folder(number)
            if (folder / "run.json").exists():
                return read_run(folder, settings)
            return create_run(settings, self.dataset, folder)

        with ExitStack() as stack:
            run = open_run(_origin(self._trial(number)))
            try:
                stack.enter_context(lock(run))
            except RunLocked:
                run = open_run(number)
                stack.enter_context(lock(run))
            yield run

    def _importance(self, complete: list[FrozenTrial]) -> dict[str, float]:
        """Return the share of each setting in the difference between good and other trials.

        PED-ANOVA: Watanabe et al., 2023, https://arxiv.org/abs/2304.10255
        """
        if len(complete) < LEAST_FOR_IMPORTANCE:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        return {key: round(share, 4) for key, share in shares.items()}

    def _other_study(self, key: str, before: dict[str, Any], about: dict[str, Any]) -> str:
        reason = "its data has changed"
        if key != "data":
            reason = (
                f"was begun with other settings: {'; '.join(differences(about[key], before[key]))}"
            )
            if key == "space":
                space = ", ".join(f"{name}={text}" for name, text in before[key].items())
                reason = f"searches {space}"
        return f"study {self.name}: {reason}; give a new one a name with --study NAME"

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _folder(self, number: int) -> Path:
        return self.folder / f"trial-{number:04d}"

    def _remove_folders(self, trials: list[FrozenTrial]) -> None:
        """Remove the checkpoints of trials that have ended and will not be retried."""
        active = [trial for trial in trials if trial.state not in ENDED]
        kept = {n for trial in active for n in (_origin(trial), trial.number)}
        for number in {trial.number for trial in trials} - kept:
            shutil.rmtree(self._folder(number), ignore_errors=True)


def _origin(trial: FrozenTrial) -> int:
    """Return the number of the trial that this one retries, or else its own."""
    return trial.system_attrs.get("failed_trial", trial.number)


def _result(trial: FrozenTrial) -> TrialResult:
    return TrialResult(
        number=trial.number,
        state="interrupted" if trial.state == TrialState.FAIL else trial.state.name.lower(),
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        settings={key: _plain(value) for key, value in trial.params.items()},
        history=[value for _, value in sorted(trial.intermediate_values.items())],
        seconds=trial.user_attrs.get("seconds"),
        error=trial.user_attrs.get("error"),
    )


def _plain(value: Any) -> Any:
    return float(rounded(value)) if isinstance(value, float) else value


@contextmanager
def as_work_error() -> Iterator[None]:
    """Turn what the database raises into a WorkError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        except UpdateFinishedTrialError:
            raise
        except (SQLAlchemyError, OptunaError, ImportError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
            reason = str(cause).partition("\n")[0]
            raise WorkError(f"paths.studies: the database does not answer: {reason}") from None
