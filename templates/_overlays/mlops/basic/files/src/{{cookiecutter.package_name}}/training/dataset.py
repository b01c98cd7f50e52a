"""The data of settings: the task's."""

from ..task import data
from ..task.data import Dataset
from ..task.settings import Settings


def load_data(settings: Settings) -> Dataset:
    """Load the data to train and test on. Raises UserError naming the file that cannot be used."""
    return data.load(settings.data)
