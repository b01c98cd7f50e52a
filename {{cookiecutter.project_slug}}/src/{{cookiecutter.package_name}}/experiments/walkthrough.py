"""Write docs/walkthrough.md, the talk through the project, from the run and the records.

Text outside of the page's markers is the person's and stays.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote

from ..files import split_around_section, write_text
from ..training.documents import Evaluation
from ..training.runs import Run
from .records import NO_TEXT, Record, changes, lead_of, question_of, read_records
from .report import (
    RESULTS_BEGIN,
    RESULTS_END,
    TEMPLATES,
    WALKTHROUGH,
    results_summary,
)

MOST = 6  # experiments of a list: a talk is short


def write_walkthrough(run: Run, evaluation: Evaluation, command: str) -> Path:
    """Write the marked section from the run and the recorded experiments of the same data.

    Raises UserError when the page has lost its markers.
    """
    folder = run.settings.paths.experiments
    around = "# Walkthrough\n\n", "\n"
    if WALKTHROUGH.exists():
        around = split_around_section(WALKTHROUGH, RESULTS_BEGIN, RESULTS_END)
    records = {each.name: each for each in read_records(folder)}
    of_data = [
        each for each in records.values() if each.info.data.fingerprint == run.info.data.fingerprint
    ]
    lines: dict[str, list[str]] = {}
    for record in reversed(of_data):
        if record.comparison:
            verdict = record.comparison.verdict.partition(":")[0]
            lines.setdefault(verdict, []).append(_line(record, records, folder))
    values = {
        "command": command,
        "run": run,
        "evaluation": evaluation,
        "summary": results_summary(evaluation),
        "experiments": len(of_data),
        "index": _link(folder / "README.md"),
        "lines": lines,
        "most": MOST,
        "not_ahead": {n: b for n, b in evaluation.baselines.items() if b.verdict != "ahead"},
        "parts": {n: a for n, a in evaluation.ablations.items() if a.verdict != "ahead"},
    }
    text = TEMPLATES.get_template("walkthrough.md.j2").render(values).strip("\n")
    text = re.sub(r"\n{3,}", "\n\n", text)
    write_text(
        WALKTHROUGH, "\n".join([around[0] + RESULTS_BEGIN, "", text, "", RESULTS_END + around[1]])
    )
    return WALKTHROUGH


def _line(record: Record, records: dict[str, Record], folder: Path) -> str:
    """Tell of an experiment in a line: question, change, difference, the person's conclusion."""
    page = folder / record.name / "README.md"
    changed = ", ".join(f"`{each}`" for each in changes(record, records)) or "no setting"
    values = {
        "record": record,
        "link": _link(page),
        "question": question_of(page, record.info),
        "changed": changed,
        "lead": lead_of(record.comparison),
        "conclusion": _conclusion(page),
    }
    return TEMPLATES.get_template("walkthrough_experiment.md.j2").render(values)


def _conclusion(page: Path) -> str:
    """Return the first paragraph under "Conclusion", or no text if none is written yet."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.search(r"^## Conclusion\s+(.+?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    words = found[1].strip() if found else ""
    return "" if words == NO_TEXT or words.startswith(("#", "<!--")) else words


def _link(path: Path) -> str:
    return quote(Path(os.path.relpath(path, WALKTHROUGH.parent)).as_posix())
