"""MLflow's `python_function`: a registered bundle answers `predict` as the server does.

MLflow imports this module, here or from the copy of the package beside the bundle.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..task.contract import Item
from .load import Bundle, load_bundle


def _load_pyfunc(path: str) -> "PythonFunction":  # the name that MLflow calls
    return PythonFunction(load_bundle(Path(path)))


class PythonFunction:
    """A bundle behind MLflow's interface."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Predict items: a list of them, or a pandas DataFrame with a column per field.

        Raises ValidationError or InvalidItem for items that the server would refuse too.
        """
        rows = data.to_dict("records") if hasattr(data, "to_dict") else data
        items = [Item.model_validate(_item(row)) for row in rows]
        outputs = self.bundle.run(self.bundle.contract.encode(items))
        predictions = self.bundle.contract.decode(outputs, items)
        return [prediction.model_dump(mode="json") for prediction in predictions]


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    """Undo what a DataFrame makes of an item: empty cells, arrays and scalars of NumPy."""
    plain = {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in row.items()
    }
    return {key: value for key, value in plain.items() if value is not None and value == value}
