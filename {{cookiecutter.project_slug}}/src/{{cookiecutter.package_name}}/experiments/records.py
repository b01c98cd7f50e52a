"""Keep a committed record and a page of every experiment, and check the pages against the records.

docs/experiments/20261123-201500/
    record.json      what the run was and how it did; paths are left out
    scores.npz       scores of each seed by test example, and the groups of examples
    README.md        the page: text outside its markers is the person's
docs/experiments/README.md       the table of all experiments
docs/experiments/written.json    what `report` wrote elsewhere, as hashes
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..config import UserError, differences
from ..files import (
    Document,
    read_document,
    split_around_section,
    write_atomically,
    write_json,
    write_text,
)
from ..task.objective import HIGHER_IS_BETTER, METRICS, PRIMARY_METRIC
from ..task.settings import Settings
from ..training.documents import BaselineResult, Evaluation, Interval, RunInfo
from ..training.intervals import mean_interval
from ..training.runs import Run
from .markdown import Markup, code
from .metadata import FRONT_MATTER, OWN_KEYS
from .report import (
    RESULTS_BEGIN,
    RESULTS_END,
    TEMPLATES,
    detail_tables,
    results_summary,
    results_table,
)

NO_TEXT = "Not written yet."
HASHES = "written.json"


class Comparison(Document):
    """An experiment against the one that it changed something in, on the same test rows."""

    against: str
    ahead: float | None = None  # positive where this run is better; None: not comparable
    interval: Interval | None = None  # 95 %
    why_not: str = ""

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return f"not comparable: {self.why_not}"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


class Record(Document):
    """`record.json`: all that the pages of an experiment are written from."""

    info: RunInfo
    evaluation: Evaluation
    comparison: Comparison | None = None

    @property
    def name(self) -> str:
        return self.evaluation.run


def read_records(folder: Path) -> list[Record]:
    """Read all records, the oldest first."""
    return [read_document(path, Record) for path in sorted(folder.glob("*/record.json"))]


def record_experiments(run: Run, against: str | None = None) -> list[Path]:
    """Record the run and every evaluated run of the same data, and write their pages and the table.

    Each is compared with the run recorded before it on the same data, one of its name if there is
    one; this run with `against`, if given. Returns the table and the run's page and record. Raises
    UserError when `against` has no record, or a page has lost its markers.
    """
    folder = run.settings.paths.experiments
    for path in sorted(run.settings.paths.runs.glob("*/evaluation.json")):
        info = read_document(path.with_name("run.json"), RunInfo)
        if info.data.fingerprint == run.info.data.fingerprint:
            _record(path.parent, info, folder, against if path.parent == run.folder else None)
    if not (folder / run.name / "record.json").exists():  # a run that lies elsewhere
        _record(run.folder, run.info, folder, against)
    pages = {folder / "README.md": _index_page(folder)}
    pages |= {
        folder / each.name / "README.md": _page(each, folder) for each in read_records(folder)
    }
    for page, text in pages.items():
        write_text(page, text)
    return [folder / "README.md", *(folder / run.name / n for n in ("README.md", "record.json"))]


def _record(run_folder: Path, info: RunInfo, folder: Path, against: str | None) -> None:
    evaluation = read_document(run_folder / "evaluation.json", Evaluation)
    evaluation = evaluation.model_copy(update={"run": run_folder.name})  # it may have been renamed
    own = folder / evaluation.run
    records = {each.name: each for each in read_records(folder)}
    if against is not None and against not in records:
        raise UserError(f"--against {against}: has no record in {folder}; report it first")
    if against == evaluation.run:
        raise UserError(f"--against {against}: a run cannot be compared with itself")
    # Paths are those of one machine, and the program's name is that of one project.
    settings = {key: value for key, value in info.settings.items() if key != "paths"}
    command = info.command.partition(" ")[2]
    info = info.model_copy(update={"settings": settings, "command": command})
    old = records.pop(evaluation.run, None)
    if old and (old.info, old.evaluation) == (info, evaluation) and against is None:
        return
    if against is None and old and old.comparison:
        against = old.comparison.against
    if against is None:
        against = _base_of(info, records)
    if (run_folder / "scores.npz").exists():
        content = (run_folder / "scores.npz").read_bytes()
        write_atomically(own / "scores.npz", lambda path: path.write_bytes(content))
    record = Record(info=info, evaluation=evaluation)
    if against in records:
        compared = compare(record, records[against], folder)
        record = record.model_copy(update={"comparison": compared})
    write_json(own / "record.json", record.model_dump())


def _base_of(info: RunInfo, records: dict[str, Record]) -> str | None:
    """Return the newest run before this one on the same data, one of its name if there is one."""
    name, data = info.settings.get("name"), info.data.fingerprint
    bases = [
        (record.info.settings.get("name") == name, record.name)
        for record in records.values()
        if record.info.started < info.started and record.info.data.fingerprint == data
    ]
    return max(bases)[1] if bases else None


def compare(record: Record, base: Record, folder: Path) -> Comparison:
    """Measure a run's lead over another: paired by test example, over the seeds that both have."""
    if record.info.data.fingerprint != base.info.data.fingerprint:
        return Comparison(against=base.name, why_not="other data")
    paths = [folder / name / "scores.npz" for name in (record.name, base.name)]
    for path in paths:
        if not path.exists():
            why = f"{path.parent.name} has no scores per example, evaluate and report it again"
            return Comparison(against=base.name, why_not=why)
    loaded = [dict(np.load(path, allow_pickle=False)) for path in paths]
    clusters, _ = (each.pop("clusters", None) for each in loaded)
    seeds = sorted(loaded[0].keys() & loaded[1].keys())
    if not seeds:
        return Comparison(against=base.name, why_not="no seed in common")
    scores, theirs = (np.stack([each[seed] for seed in seeds]) for each in loaded)
    sign = 1 if HIGHER_IS_BETTER else -1
    lead = sign * (scores.astype(np.float64) - theirs)
    return Comparison(
        against=base.name, ahead=float(lead.mean()), interval=mean_interval(lead, clusters)
    )


def lead_over(run: Run, other: Run) -> tuple[float, Interval]:
    """Measure the lead of the seed that a run would deploy over that of another run, paired by test
    example, with its 95 % interval. Raises UserError, with the reason, where that cannot be done.
    """
    if run.info.data.fingerprint != other.info.data.fingerprint:
        raise UserError(f"run {other.name} was evaluated on other data")
    scores, clusters = [], None
    for each in (run, other):
        path = each.folder / "scores.npz"
        if not path.exists():
            raise UserError(f"{path} is missing")
        with np.load(path, allow_pickle=False) as stored:
            chosen = read_document(each.folder / "evaluation.json", Evaluation).chosen_seed
            scores.append(stored[str(chosen)].astype(np.float64))
            clusters = stored.get("clusters")
    lead = (1 if HIGHER_IS_BETTER else -1) * (scores[0] - scores[1])
    return float(lead.mean()), mean_interval(lead[None], clusters)


def changes(record: Record, records: dict[str, Record]) -> list[str]:
    """List the settings, but for the name, that differ from the run's that it is compared with."""
    if record.comparison is None or record.comparison.against not in records:
        return []
    base = records[record.comparison.against]
    settings = ({**each.info.settings, "name": ""} for each in (record, base))
    return differences(*settings)


def _page(record: Record, folder: Path) -> str:
    """Return the page of an experiment, with the person's text as it stands in it."""
    page = folder / record.name / "README.md"
    around = (
        f"# Experiment {record.name}\n\n{_words(record.info)}",
        f"\n\n## Conclusion\n\n{NO_TEXT}\n",
    )
    if page.exists():
        around = split_around_section(page, RESULTS_BEGIN, RESULTS_END)
    records = {each.name: each for each in read_records(folder)}
    values = {
        "record": record,
        "changes": changes(record, records),
        "lead": lead_of(record.comparison),
        "summary": results_summary(record.evaluation),
        "results": results_table(record.evaluation),
        "errors": detail_tables(record.evaluation, "errors_"),
        "overrides": record.info.command,
    }
    return _section(around, "experiment.md.j2", values)


def _words(info: RunInfo) -> str:
    # In the words themselves nothing may be a marker of the page.
    words = (text.replace("<!--", "&lt;!--") for text in (info.question, info.hypothesis))
    question, hypothesis = (text or NO_TEXT for text in words)
    return f"## Question\n\n{question}\n\n## Hypothesis\n\n{hypothesis}\n\n"


def _index_page(folder: Path) -> str:
    """Return the page of all experiments, newest first, with the best of each data."""
    records = {each.name: each for each in read_records(folder)}
    sign = 1 if HIGHER_IS_BETTER else -1
    best: dict[str, Record] = {}  # by the fingerprint of their data
    for record in records.values():
        key = record.info.data.fingerprint
        if key not in best or sign * _score(record) > sign * _score(best[key]):
            best[key] = record
    title = METRICS[PRIMARY_METRIC].title
    rows = [["Experiment", "Question", "Changed", title, "Difference", "Verdict"]]
    for name, record in reversed(records.items()):
        is_best = any(record is each for each in best.values())
        link = f"[{name}]({name}/README.md){' **best**' if is_best else ''}"
        verdict = record.comparison.verdict if record.comparison else ""
        mean = TEMPLATES.filters["mean"](record.evaluation.network)
        changed = Markup(", ".join(code(each) for each in changes(record, records)))
        question = question_of(folder / name / "README.md", record.info)
        lead = lead_of(record.comparison)
        rows.append([Markup(link), question, changed, mean, lead, verdict])
    page = folder / "README.md"
    around = "# Experiments\n\n", "\n"
    if page.exists():
        around = split_around_section(page, RESULTS_BEGIN, RESULTS_END)
    others = sorted(p.parent.name for p in folder.glob("*/README.md"))
    others = [name for name in others if name not in records]
    return _section(around, "experiments.md.j2", {"experiments": rows, "others": others})


def question_of(page: Path, info: RunInfo) -> str:
    """Return the first paragraph under "Question", as a person may have changed it in the page."""
    text = page.read_text(encoding="utf-8") if page.exists() else _words(info)
    found = re.search(r"^## Question\s+(.+?)(?:\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL)
    words = found[1].strip() if found else ""
    return "" if words == NO_TEXT or words.startswith(("#", "<!--")) else words


def _score(record: Record) -> float:
    return record.evaluation.network.mean[PRIMARY_METRIC]


def lead_of(compared: Comparison | None) -> str:
    """Format a difference with its interval; no text where there is none."""
    if compared is None or compared.ahead is None or compared.interval is None:
        return ""
    lead = BaselineResult(
        metrics={}, interval=(0, 0), ahead=compared.ahead, ahead_interval=compared.interval
    )
    return TEMPLATES.filters["lead"](lead)


def _section(around: tuple[str, str], template: str, values: dict[str, Any]) -> str:
    text = TEMPLATES.get_template(template).render(values).strip("\n")
    return "\n".join([around[0] + RESULTS_BEGIN, "", text, "", RESULTS_END + around[1]])


def seal(folder: Path, run: str, files: list[Path]) -> Path:
    """Write the hashes of what a report wrote from this run's record, and of the record itself."""
    written = {Path(os.path.relpath(path)).as_posix(): _hash(path) for path in files}
    write_json(folder / HASHES, {"run": run, "files": written})
    return folder / HASHES


def check(settings: Settings, command: str) -> list[str]:
    """List, a line each, the pages that are not as the records say and how to mend them.

    Needs neither runs nor data. Only the marked sections count, the rest is the person's.
    """
    folder = settings.paths.experiments
    pages = {folder / each.name / "README.md": each for each in read_records(folder)}

    def mend(run: str, path: Path | str) -> str:
        if not run or (settings.paths.runs / run).exists():
            return f"run: {command} report --run {run}".rstrip()
        # The record came with the project or from another machine: report cannot write it here.
        return f"the run {run} is not here; restore the committed file: git checkout -- {path}"

    lines = []
    for page, record in pages.items():
        if not page.exists() or page.read_text(encoding="utf-8") != _page(record, folder):
            advice = mend(record.name, page)
            lines.append(f"{page}: does not match {record.name}/record.json; {advice}")
    seals = folder / HASHES
    if not seals.exists():
        last = next(reversed(pages.values())).name if pages else ""
        return [*lines, f"{seals}: missing; {mend(last, seals)}"] if pages else lines
    sealed = read_document(seals, _Seals)
    index = folder / "README.md"
    if not index.exists() or index.read_text(encoding="utf-8") != _index_page(folder):
        lines.append(f"{index}: does not match the records; {mend(sealed.run, index)}")
    for name, expected in sealed.files.items():
        if not Path(name).exists() or _hash(Path(name)) != expected:
            lines.append(f"{name}: changed since the report; {mend(sealed.run, name)}")
    return lines


class _Seals(Document):
    run: str
    files: dict[str, str]


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file; of a page only its marked sections, of any line endings."""
    if path.suffix == ".png":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        front = FRONT_MATTER.match(text)
        own = OWN_KEYS.findall(front[1]) if front else []
        sections = re.findall(r"<!-- \w+:begin,.*?<!-- \w+:end -->", text, re.DOTALL)
        text = "\n".join([*own, *sections])
    return hashlib.sha256(text.encode()).hexdigest()
