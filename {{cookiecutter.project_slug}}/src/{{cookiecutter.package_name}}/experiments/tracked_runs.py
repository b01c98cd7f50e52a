"""Training and evaluation of a run, told to MLflow as they go.

MLflow is imported when there is something to tell: an evaluation that is there is only read.
"""

from typing import Any

from ..config import WorkError
from ..files import read_json
from ..task.data import Dataset
from ..training import runs
from ..training.evaluate import evaluate
from ..training.fit import Interrupted, TrainingState
from ..training.runs import Run


def train_tracked(run: Run, dataset: Dataset, again: str) -> None:
    """Train what is not trained yet; WorkError when stopped, saying that `again` goes on."""
    from .tracking import Tracker, track

    tracker = Tracker(run.settings)

    def on_epoch(part: runs.TrainingJob, state: TrainingState) -> None:
        tracker.log_epochs(tracker.child(run, part.name), state)

    try:
        with track(tracker, run):
            for part, state in runs.train_run(run, dataset, on_epoch):
                tracker.finish(tracker.child(run, part.name), "FINISHED")
                print(
                    f"{part.name}: {part.stage.primary_metric} {state.best:.4f} on validation "
                    f"in epoch {state.best_epoch} of {state.epoch}, {state.seconds:.1f} s"
                )
    except Interrupted:
        raise WorkError(f"stopped, nothing is lost; go on with: {again}") from None


def evaluate_tracked(run: Run, dataset: Dataset) -> dict[str, Any]:
    """The run's evaluation, made anew."""
    from .tracking import Tracker

    found = evaluate(run, dataset)
    Tracker(run.settings).log_evaluation(run, found)
    return found


def read_or_evaluate(run: Run, dataset: Dataset) -> dict[str, Any]:
    """The run's evaluation; measured and tracked now if that was not done yet."""
    path = run.folder / "evaluation.json"
    return read_json(path) if path.exists() else evaluate_tracked(run, dataset)
