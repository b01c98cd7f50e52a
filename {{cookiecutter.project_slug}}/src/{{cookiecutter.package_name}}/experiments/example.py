"""The example request of the README: the first test row, and the prediction for it."""

import json
import shlex
from typing import Any

import numpy as np

from ..arrays import Arrays
from ..task.contract import Item
from ..task.data import Dataset
from ..training.runs import Run

LONGEST_COMMAND = 500  # characters of a request that stands in the command itself
LONGEST_TEXT, LONGEST_LIST, LONGEST_OBJECT = 80, 3, 5  # of what pages show of an example


def example_values(run: Run, dataset: Dataset, outputs: Arrays) -> dict[str, Any]:
    """Return request and response for the page: the whole `request` as JSON, and as an argument of
    a shell if it is short; both as shown."""
    content = {"items": [dataset.example()]}
    row = {name: np.asarray(array[:1]) for name, array in outputs.items()}
    items = [Item.model_validate(item) for item in content["items"]]
    predictions = [row.model_dump(mode="json") for row in dataset.contract.decode(row, items)]
    answer = {"request_id": "…", "model": run.settings.name, "model_version": run.name}
    request = _json(content)
    return {
        "request": request,
        "argument": shlex.quote(request) if len(request) <= LONGEST_COMMAND else None,
        "shown_request": _json(shorten(content)),
        "shown_response": _json(shorten({**answer, "predictions": predictions})),
    }


def shorten(value: Any) -> Any:
    """Cut long texts, lists and objects, marked by …, and round numbers to four decimals."""
    match value:
        case dict():
            short = {shorten(key): shorten(item) for key, item in value.items()}
            more = {"…": "…"} if len(short) > LONGEST_OBJECT else {}
            return dict(list(short.items())[:LONGEST_OBJECT]) | more
        case list():
            more = ["…"] if len(value) > LONGEST_LIST else []
            return [shorten(item) for item in value[:LONGEST_LIST]] + more
        case str():
            return value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…"
        case float():
            return round(value, 4)
    return value


def _json(content: Any) -> str:
    """Write JSON in which no text can be the marker of a page's section."""
    return json.dumps(content, ensure_ascii=False).replace("<!--", r"\u003c!--")
