"""Document a run: the results section of the README, MODEL_CARD.md and docs/experiments/.

The wording is in `templates/`; here the values are computed. Only what stands between the markers
of a page is rewritten; what a person wrote around them stays.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..config import flatten
from ..files import read_document, split_around_section, write_figure, write_text
from ..task import figures
from ..task.data import Dataset
from ..task.objective import METRICS, PRIMARY_METRIC
from ..training.documents import BaselineResult, Evaluation, NetworkResult, RunInfo
from ..training.runs import Run
from . import plots

BEGIN = "<!-- results:begin, rewritten by the command report -->"
END = "<!-- results:end -->"

Rows = list[list[str]]  # of a table, its head first


def write_report(run: Run, dataset: Dataset, evaluation: Evaluation, command: str) -> list[Path]:
    """Write figures and pages about a run; returns the files, README first.

    `command` is the project's console command. Raises UserError when a page has lost its markers,
    before anything is written.
    """
    # 1. The pages, which must be there whole before anything changes.
    readme, card = Path("README.md"), Path("MODEL_CARD.md")
    experiments = run.settings.paths.experiments
    index = experiments / "README.md"
    pages = {path: _around(path) for path in (readme, card, index)}

    # 2. The figures: the task's own stand between those of every task.
    with np.load(run.folder / "outputs.npz", allow_pickle=False) as stored:
        outputs = dict(stored)
    pictures: list[tuple[Path, str]] = []
    for name, caption, figure in (
        ("comparison.png", "The network against the baselines.", plots.comparison(evaluation)),
        *figures.plot_results(dataset, outputs, evaluation.details),
        ("curves.png", "The course of training, one line per seed.", plots.curves(run)),
    ):
        path = experiments / run.name / name
        write_figure(path, figure)
        pictures.append((path, caption))

    # 3. The values that the templates show.
    settings = flatten(run.settings).items()
    values = {
        "command": command,
        "run": run,
        "evaluation": evaluation,
        "summary": results_summary(evaluation),
        "results": results_rows(evaluation),
        "pictures": [(path.as_posix(), caption) for path, caption in pictures],
        "versions": ", ".join(f"{name} {version}" for name, version in run.info.versions.items()),
        "details": _detail_tables(evaluation),
        "settings": [
            ["Setting", "Value"],
            *([f"`{k}`", f"`{v}`"] for k, v in settings if not k.startswith("paths.")),
        ],
        "runs": _all_runs(run.settings.paths.runs),
    }

    # 4. The pages, each whole or not at all.
    templates = {readme: "results.md.j2", card: "model_card.md.j2", index: "experiments.md.j2"}
    for path, (before, after) in pages.items():
        text = _templates().get_template(templates[path]).render(values)
        write_text(path, "\n".join([before + BEGIN, "", text, "", END + after]))
    return [*pages, *(path for path, _ in pictures)]


def results_summary(evaluation: Evaluation) -> str:
    """Sum up the evaluation in sentences that claim no more than the intervals allow."""
    best_name, best = evaluation.best_baseline()
    return (
        _templates()
        .get_template("summary.md.j2")
        .render(
            evaluation=evaluation,
            metric=METRICS[PRIMARY_METRIC],
            mean=_mean(PRIMARY_METRIC, evaluation.network),
            seeds=len(evaluation.network.seeds),
            interval=_span(evaluation.network.interval),
            best_name=best_name,
            best=best,
            others=[
                (name, baseline)
                for name, baseline in evaluation.baselines.items()
                if name != best_name and baseline.verdict != "ahead"
            ],
        )
    )


def results_rows(evaluation: Evaluation) -> Rows:
    """Make the table of the network and the baselines."""
    titles = [metric.title for metric in METRICS.values()]
    network = [_mean(name, evaluation.network) for name in METRICS]
    return [
        ["Model", *titles, "95 % interval", "Network ahead by", "Verdict"],
        ["**Network**", *network, _span(evaluation.network.interval), "", ""],
        *(
            [
                name,
                *(_number(metric, baseline.metrics[metric]) for metric in METRICS),
                _span(baseline.interval),
                _lead(baseline),
                baseline.verdict,
            ]
            for name, baseline in evaluation.baselines.items()
        ),
    ]


def results_table(evaluation: Evaluation) -> list[str]:
    """Format the network and the baselines as a Markdown table."""
    return markdown_table(results_rows(evaluation))


def _detail_tables(evaluation: Evaluation) -> list[Rows]:
    """Make the task's tables of the chosen seed, per class or by another breakdown."""
    tables = []
    for name, table in evaluation.details.items():
        if isinstance(table, dict) and table:
            columns = list(next(iter(table.values())))
            tables.append([[name.replace("_", " ").capitalize(), *columns]])
            for key, row in table.items():
                cells = (row[column] for column in columns)
                texts = (f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
                tables[-1].append([key, *texts])
    return tables


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as the lines of a Markdown table; columns line up in the source too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


@cache
def _templates() -> Environment:
    """Open the templates, with filters for tables, the primary metric and the network's lead."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["table"] = lambda rows: "\n".join(markdown_table(rows))
    environment.filters["number"] = lambda value: _number(PRIMARY_METRIC, value)
    environment.filters["lead"] = _lead
    return environment


def _all_runs(folder: Path) -> Rows:
    """Make the table of all evaluated runs, the newest first."""
    rows = [["Run", METRICS[PRIMARY_METRIC].title, "Best baseline", "Seeds", "Rows", "Command"]]
    for path in sorted(folder.glob("*/evaluation.json"), reverse=True):
        evaluation = read_document(path, Evaluation)
        info = read_document(path.with_name("run.json"), RunInfo)
        _, best = evaluation.best_baseline()
        rows.append(
            [
                f"`{evaluation.run}`",
                _mean(PRIMARY_METRIC, evaluation.network),
                _number(PRIMARY_METRIC, best.metrics[PRIMARY_METRIC]),
                str(len(evaluation.network.seeds)),
                str(evaluation.rows.total),
                f"`{info.command}`",
            ]
        )
    return rows


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the markers; a page that is missing gets only a title."""
    if not path.exists():
        title = "Experiments" if path.name == "README.md" else "Model card"
        return f"# {title}\n\n", "\n"
    return split_around_section(path, BEGIN, END)


def _number(metric: str, value: float, sign: str = "") -> str:
    """Format a metric's value as in tables; `sign` "+" writes the sign of gains too."""
    return f"{value * METRICS[metric].scale:{sign}.{METRICS[metric].digits}f}"


def _mean(metric: str, network: NetworkResult) -> str:
    """Format a mean over seeds with its standard deviation, if there is one."""
    spread = f" ± {_number(metric, network.sd[metric])}" if network.sd else ""
    return _number(metric, network.mean[metric]) + spread


def _lead(baseline: BaselineResult) -> str:
    """Format the network's lead over a baseline with its interval."""
    lead, low, high = (
        _number(PRIMARY_METRIC, value, "+") for value in (baseline.ahead, *baseline.ahead_interval)
    )
    return f"{lead} ({low} to {high})"


def _span(interval: tuple[float, float]) -> str:
    return " to ".join(_number(PRIMARY_METRIC, end) for end in interval)
