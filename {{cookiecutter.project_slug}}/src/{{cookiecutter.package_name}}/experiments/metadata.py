"""The front matter of MODEL_CARD.md, in the format of Hugging Face's model cards.

`metrics` and `model-index` are the command's; other keys and comments are the person's.
"""

import re
from typing import Any

import yaml

from ..config import UserError
from ..task.objective import METRICS
from ..training.documents import Evaluation
from ..training.runs import Run

FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
OWN_KEYS = re.compile(r"^(?:metrics|model-index):[^\n]*\n(?:[ -][^\n]*\n)*", re.MULTILINE)


def with_results(text: str, run: Run, evaluation: Evaluation) -> str:
    """Return a card's text with the run's results in its front matter, which is made if missing.

    Raises UserError when the front matter is not valid YAML.
    """
    found = FRONT_MATTER.match(text)
    kept = OWN_KEYS.sub("", found[1]) if found else ""
    try:
        values = yaml.safe_load(kept) or {}
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"MODEL_CARD.md: its front matter is not valid YAML: {reason}") from None
    if not isinstance(values, dict):
        raise UserError("MODEL_CARD.md: its front matter must consist of keys with values")
    results = _results(run, evaluation, values.get("pipeline_tag") or "other")
    written = yaml.safe_dump(results, sort_keys=False, allow_unicode=True)
    body = text[found.end() :] if found else f"\n{text}"
    return f"---\n{kept}{written}---\n{body}"


def _results(run: Run, evaluation: Evaluation, task: str) -> dict[str, Any]:
    mean = evaluation.network.mean
    metrics = [
        {"type": name, "name": METRICS[name].title.removesuffix(", %"), "value": round(value, 6)}
        for name, value in mean.items()
        if name in METRICS
    ]
    fingerprint = run.info.data.fingerprint[:16]
    dataset = {"type": run.settings.name, "name": run.settings.name, "split": "test"}
    result = {
        "task": {"type": task},
        "dataset": {**dataset, "revision": fingerprint},
        "metrics": metrics,
    }
    index = [{"name": run.settings.name, "results": [result]}]
    return {"metrics": [metric["type"] for metric in metrics], "model-index": index}
