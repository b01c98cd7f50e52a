"""Train and evaluate a run, and log both to MLflow (imported late, for it takes seconds)."""

from ..config import WorkError
from ..files import read_document
from ..task.data import Dataset
from ..training import processes
from ..training.documents import Evaluation
from ..training.evaluate import evaluate
from ..training.fit import Interrupted, TrainingState
from ..training.runs import Run, TrainingJob, lock, train_run


def train_tracked(run: Run, dataset: Dataset, resume_command: str) -> None:
    """Train the networks that are missing. Raises WorkError with `resume_command` when stopped,
    UserError when another process is training the run.

    Of several processes the first one tracks and reports, errors of the training included.
    """
    if processes.rank():
        try:
            with lock(run):
                list(train_run(run, dataset))
        except (Interrupted, WorkError):
            raise SystemExit(1) from None
        return
    from .tracking import Tracker, track

    tracker = Tracker(run.settings)

    def on_epoch(job: TrainingJob, state: TrainingState) -> None:
        tracker.log_epochs(tracker.child(run, job.name), state)

    try:
        with lock(run), track(tracker, run):
            for job, state in train_run(run, dataset, on_epoch):
                tracker.client.set_terminated(tracker.child(run, job.name), "FINISHED")
                print(
                    f"{job.name}: {job.stage.primary_metric} {state.best:.4f} on validation "
                    f"in epoch {state.best_epoch} of {state.epoch}, {state.seconds:.1f} s"
                )
    except Interrupted:
        raise WorkError(f"stopped, nothing is lost; go on with: {resume_command}") from None


def evaluate_tracked(run: Run, dataset: Dataset) -> Evaluation:
    """Evaluate the run, even if this was done before."""
    from .tracking import Tracker

    evaluation = evaluate(run, dataset)
    Tracker(run.settings).log_evaluation(run, evaluation)
    return evaluation


def read_or_evaluate(run: Run, dataset: Dataset) -> Evaluation:
    """Read the run's evaluation; evaluate the run first if it is missing."""
    path = run.folder / "evaluation.json"
    return read_document(path, Evaluation) if path.exists() else evaluate_tracked(run, dataset)
