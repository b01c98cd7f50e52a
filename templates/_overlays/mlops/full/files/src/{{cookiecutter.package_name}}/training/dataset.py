"""The data of settings: the task's, less the holdout, plus labelled requests."""

from ..task import data
from ..task.data import Dataset
from ..task.settings import Settings
from . import feedback_data


def load_data(settings: Settings) -> Dataset:
    """Load the data to train and test on, labelled requests included.

    Raises UserError naming the file that cannot be used.
    """
    dataset = original_data(settings)
    feedback = settings.live.feedback
    rules = settings.retrain
    return feedback_data.with_feedback(dataset, feedback, rules) if feedback else dataset


def original_data(settings: Settings) -> Dataset:
    """Load the task's data without `live.set_aside` of its test rows and without requests."""
    dataset = data.load(settings.data)
    return dataset.holdout(settings.live.set_aside)[0] if settings.live.set_aside else dataset
