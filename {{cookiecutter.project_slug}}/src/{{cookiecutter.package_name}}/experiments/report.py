"""Document a run: sections of the README and MODEL_CARD.md, figures in docs/experiments/.

The wording is in `templates/`, the values are computed here. Text outside a page's markers stays.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote as quote_argument
from typing import get_args
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel

from ..config import SECRETS, describe_settings, flatten
from ..files import (
    replace_section,
    split_around_section,
    write_figure,
    write_text,
)
from ..task import figures
from ..task.data import Dataset
from ..task.objective import METRICS, PRIMARY_METRIC
from ..task.settings import Settings
from ..training.documents import BaselineResult, Evaluation, NetworkResult
from ..training.runs import Run
from . import metadata, plots
from .example import example_values
from .markdown import Markup, code, escape
from .markdown import markdown_table as markdown_table

RESULTS_BEGIN = "<!-- results:begin, rewritten by the command report -->"
RESULTS_END = "<!-- results:end -->"
EXAMPLE_BEGIN = "<!-- example:begin, rewritten by the command report -->"
EXAMPLE_END = "<!-- example:end -->"
WALKTHROUGH = Path("docs/walkthrough.md")


def write_report(run: Run, dataset: Dataset, evaluation: Evaluation, command: str) -> list[Path]:
    """Write figures and pages about a run; return the files, README first.

    `command` is the project's console command. Raises UserError when a page has lost its markers,
    before anything is written.
    """
    # 1. The text around the markers; a page that is missing gets a title.
    readme, card = Path("README.md"), Path("MODEL_CARD.md")
    experiments = run.settings.paths.experiments
    templates = {readme: "results.md.j2", card: "model_card.md.j2"}
    around: dict[Path, tuple[str, str]] = {}
    for page in templates:
        around[page] = ("# Model card\n\n" if page == card else "# Results\n\n"), "\n"
        if page.exists():
            around[page] = split_around_section(page, RESULTS_BEGIN, RESULTS_END)
    before, after = around[card]
    around[card] = metadata.with_results(before, run, evaluation), after
    # Pages from before that section, or without it by choice, stay without it.
    has_example = any(EXAMPLE_BEGIN.partition(",")[0] in text for text in around[readme])
    if has_example:
        split_around_section(readme, EXAMPLE_BEGIN, EXAMPLE_END)

    if WALKTHROUGH.exists():  # written later, from the records
        split_around_section(WALKTHROUGH, RESULTS_BEGIN, RESULTS_END)

    # 2. The figures: the task's own between those of every task.
    with np.load(run.folder / "outputs.npz", allow_pickle=False) as stored:
        outputs = dict(stored)
    pictures: dict[Path, str] = {}
    for name, caption, figure in (
        ("comparison.png", "The network against the baselines.", plots.comparison(evaluation)),
        *figures.plot_results(dataset, outputs, evaluation.details),
        ("curves.png", "The course of training, one line per seed.", plots.curves(run)),
    ):
        write_figure(experiments / run.name / name, figure)
        pictures[experiments / run.name / name] = caption

    # 3. The pages.
    example = example_values(run, dataset, outputs)
    request, bundle = experiments / run.name / "request.json", run.folder / "bundle"
    write_text(request, example["request"] + "\n")
    values = {
        "command": command,
        "run": run,
        "evaluation": evaluation,
        "summary": results_summary(evaluation),
        "results": results_table(evaluation),
        "legend": metric_legend(),
        "ablations": ablations_table(evaluation),
        "pictures": {_link(path): caption for path, caption in pictures.items()},
        "example": example,
        "request_file": _link(request),
        "request_argument": quote_argument(f"@{os.path.relpath(request)}"),
        "versions": ", ".join(f"{name} {version}" for name, version in run.info.versions.items()),
        "details": detail_tables(evaluation),
        "settings": _settings_rows(run.settings),
        # none before the run is deployed
        "bundle_bytes": sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
    }
    for page, (before, after) in around.items():
        text = TEMPLATES.get_template(templates[page]).render(values)
        write_text(page, "\n".join([before + RESULTS_BEGIN, "", text, "", RESULTS_END + after]))
    if has_example:
        text = TEMPLATES.get_template("example.md.j2").render(values)
        replace_section(readme, EXAMPLE_BEGIN, EXAMPLE_END, [text])
    return [*templates, *pictures, request]


def results_summary(evaluation: Evaluation) -> str:
    """Sum up the evaluation in sentences that claim no more than the intervals allow."""
    best_name, best = evaluation.best_baseline()
    others = [
        (name, baseline)
        for name, baseline in evaluation.baselines.items()
        if name != best_name and baseline.verdict != "ahead"
    ]
    values = {"evaluation": evaluation, "best_name": best_name, "best": best, "others": others}
    return TEMPLATES.get_template("summary.md.j2").render(values)


def results_table(evaluation: Evaluation) -> list[list[str]]:
    """Tabulate the network and the baselines, with a header."""
    titles = [metric.title for metric in METRICS.values()]
    network = [_mean(evaluation.network, name) for name in METRICS]
    rows = [
        ["Model", *titles, "95 % interval", "Network ahead by", "Verdict"],
        [Markup("**Network**"), *network, _span(evaluation.network.interval), "", ""],
    ]
    for name, baseline in evaluation.baselines.items():
        metrics = [_number(baseline.metrics.get(metric), metric) for metric in METRICS]
        lead = [_lead(baseline), baseline.verdict]
        rows.append([name, *metrics, _span(baseline.interval), *lead])
    return rows


def ablations_table(evaluation: Evaluation) -> list[list[list[str]]]:
    """Tabulate the networks with a part switched off, with a header; no table if there are none."""
    rows = [
        [
            "Without a part",
            *(metric.title for metric in METRICS.values()),
            "The part adds",
            "Verdict",
        ]
    ]
    for name, result in evaluation.ablations.items():
        metrics = [_number(result.metrics.get(metric), metric) for metric in METRICS]
        rows.append([name, *metrics, _lead(result), result.verdict])
    return [rows] if evaluation.ablations else []


def metric_legend() -> list[str]:
    """Define each metric of the tables in a line."""
    return [f"{metric.title.removesuffix(', %')}: {metric.meaning}." for metric in METRICS.values()]


def detail_tables(evaluation: Evaluation, prefix: str = "") -> list[list[list[str]]]:
    """Make the task's tables of the chosen seed whose name has this prefix."""
    tables = []
    for name, table in evaluation.details.items():
        if isinstance(table, dict) and table and name.startswith(prefix):
            columns = list(next(iter(table.values())))
            tables.append([[name.replace("_", " ").capitalize(), *columns]])
            for key, row in table.items():
                cells = (row[column] for column in columns)
                texts = (f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
                tables[-1].append([key, *texts])
    return tables


def _settings_rows(settings: Settings) -> list[list[str]]:
    """Tabulate the settings that shaped the model: no paths, no secrets, no other data's."""
    rows, unused = [], set(_settings_of_other_sources(settings))
    for key, value in flatten(settings).items():
        section, _, name = key.rpartition(".")
        if section != "paths" and name not in SECRETS and key not in unused:
            rows.append([code(key), code(value)])
    return rows


def _settings_of_other_sources(settings: Settings) -> Iterator[str]:
    """Yield the settings of data whose help starts with the sources that they are for
    ("csv: column of the user") when another source is used."""
    data: BaseModel = settings.data
    if (field := type(data).model_fields.get("source")) is None:
        return  # a task with one source
    used, sources = data.model_dump()["source"], set(get_args(field.annotation))
    for key, _, text in describe_settings(type(data), "data."):
        named = set(text.partition(":")[0].split(", "))
        if key != "data.source" and named <= sources and used not in named:
            yield key


def _link(path: Path) -> str:
    """Return the address of a file in a page of the project's folder."""
    return quote(Path(os.path.relpath(path)).as_posix())


def _number(value: float | None, metric: str = PRIMARY_METRIC, sign: str = "") -> str:
    """Format a metric's value as in tables; `sign` "+" writes the sign of gains too."""
    if value is None:  # not a metric of this model, or not yet one when it was evaluated
        return "–"
    return f"{value * METRICS[metric].scale:{sign}.{METRICS[metric].digits}f}"


def _mean(network: NetworkResult, metric: str = PRIMARY_METRIC) -> str:
    """Format a mean over seeds with its standard deviation, if there is one."""
    spread = f" ± {_number(network.sd.get(metric), metric)}" if network.sd else ""
    return _number(network.mean.get(metric), metric) + spread


def _lead(baseline: BaselineResult) -> str:
    """Format the network's lead over a baseline with its interval."""
    values = (baseline.ahead, *baseline.ahead_interval)
    lead, low, high = (_number(value, sign="+") for value in values)
    return f"{lead} ({low} to {high})"


def _span(interval: tuple[float, float]) -> str:
    return " to ".join(map(_number, interval))


TEMPLATES = Environment(  # noqa: S701  # nosec B701: Markdown, not HTML
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"number": _number, "mean": _mean, "span": _span, "lead": _lead}
TEMPLATES.filters |= {"text": escape, "code": code, "markup": Markup}
TEMPLATES.filters["table"] = lambda rows: "\n".join(markdown_table(rows))
TEMPLATES.globals["metric"] = METRICS[PRIMARY_METRIC]
