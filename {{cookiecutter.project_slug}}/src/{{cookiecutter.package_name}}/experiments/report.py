"""Documents a run: the results section of the README, MODEL_CARD.md and docs/experiments/.

Only what stands between the markers is rewritten; what a person wrote around them stays.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..config import flatten
from ..files import read_json, split_around_section, write_figure, write_text
from ..task import figures
from ..task.data import Dataset
from ..task.objective import METRICS, PRIMARY_METRIC
from ..task.settings import Settings
from ..training.evaluate import verdict
from ..training.runs import Run
from . import plots

BEGIN = "<!-- results:begin, rewritten by the verb report -->"
END = "<!-- results:end -->"


def write_report(
    run: Run, dataset: Dataset, evaluation: dict[str, Any], command: str
) -> list[Path]:
    """Write pictures and pages about a run; returns the files, README first.

    `command` is the project's console command. Raises UserError when a page has lost its markers,
    before anything is written.
    """
    readme, card = Path("README.md"), Path("MODEL_CARD.md")
    experiments = run.settings.paths.experiments
    index = experiments / "README.md"
    pages = {path: _around(path) for path in (readme, card, index)}
    pictures = list(_pictures(run, dataset, evaluation, experiments / run.name))
    made_by = (
        f"Run `{run.name}`: trained by `{run.about['command']}`, measured by "
        f"`{command} evaluate --run {run.name}`, written by `{command} report --run {run.name}`."
    )
    texts = {
        readme: [*_results(evaluation), "", *_gallery(pictures, Path()), made_by],
        card: _card(run, evaluation, made_by),
        index: _experiments(run.settings),
    }
    for path, (before, after) in pages.items():
        write_text(path, "\n".join([before + BEGIN, "", *texts[path], "", END + after]))
    return [*pages, *(path for path, _ in pictures)]


def results_summary(evaluation: dict[str, Any]) -> str:
    """The outcome in words: what is claimed is what the interval allows."""
    shown, network = METRICS[PRIMARY_METRIC], evaluation["network"]
    count = len(network["seeds"])
    spread = f" ± {_number(PRIMARY_METRIC, network['sd'][PRIMARY_METRIC])}" if network["sd"] else ""
    seeds = f"mean ± standard deviation of {count} seeds" if count > 1 else "one seed"
    low, high = (_number(PRIMARY_METRIC, end) for end in network["interval"])
    sign = 1 if evaluation["higher_is_better"] else -1
    name, best = max(
        evaluation["baselines"].items(), key=lambda item: sign * item[1]["metrics"][PRIMARY_METRIC]
    )
    others = [
        f" Against {other} it is {verdict(row)}: {_ahead(row)}."
        for other, row in evaluation["baselines"].items()
        if other != name and verdict(row) != "ahead"
    ]
    mean = network["mean"][PRIMARY_METRIC]
    return (
        f"{shown.title}: network {_number(PRIMARY_METRIC, mean)}{spread} "
        f"({seeds}; 95 % interval {low} to {high}; {evaluation['rows']['test']} test rows), "
        f"best baseline {_number(PRIMARY_METRIC, best['metrics'][PRIMARY_METRIC])} ({name}). "
        f"The network is {verdict(best)}: {_ahead(best)}.{''.join(others)}"
    )


def results_table(evaluation: dict[str, Any]) -> list[str]:
    """The network and the baselines, a Markdown row each."""
    network = evaluation["network"]
    sd = network["sd"] or {}
    head = [shown.title for shown in METRICS.values()]
    rows = [["Model", *head, "95 % interval", "Network ahead by", "Verdict"]]
    cells = [
        _number(name, network["mean"][name])
        + (f" ± {_number(name, sd[name])}" if name in sd else "")
        for name in METRICS
    ]
    rows.append(["**Network**", *cells, _span(network["interval"]), "", ""])
    for name, row in evaluation["baselines"].items():
        cells = [_number(metric, row["metrics"][metric]) for metric in METRICS]
        rows.append([name, *cells, _span(row["interval"]), _ahead(row), verdict(row)])
    return markdown_table(rows)


def markdown_table(rows: list[list[str]]) -> list[str]:
    """A table whose source lines up too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _pictures(
    run: Run, dataset: Dataset, evaluation: dict[str, Any], folder: Path
) -> Iterator[tuple[Path, str]]:
    with np.load(run.folder / "outputs.npz", allow_pickle=False) as stored:
        outputs = dict(stored)
    drawn = [
        ("comparison.png", "The network against the baselines.", plots.comparison(evaluation)),
        *figures.draw(dataset, outputs, evaluation["details"]),
        ("curves.png", "The course of training, one line per seed.", plots.curves(run)),
    ]
    for name, caption, figure in drawn:
        write_figure(folder / name, figure)
        yield folder / name, caption


def _results(evaluation: dict[str, Any]) -> list[str]:
    rows = evaluation["rows"]
    return [
        f"**{results_summary(evaluation)}**",
        "",
        *results_table(evaluation),
        "",
        f"{evaluation['model']} {rows['train']} rows to train on, {rows['validation']} to choose "
        f"epoch and settings, {rows['test']} to test, the same for every model. Intervals come "
        "from drawing test rows and seeds again (bootstrap). Training took "
        f"{evaluation['train_seconds']:.0f} s in all.",
    ]


def _gallery(pictures: list[tuple[Path, str]], home: Path) -> list[str]:
    lines = []
    for path, caption in pictures:
        lines += [f"![{caption}]({path.relative_to(home).as_posix()})", "", f"*{caption}*", ""]
    return lines


def _card(run: Run, evaluation: dict[str, Any], made_by: str) -> list[str]:
    about, commit = run.about, run.about["git"]["commit"]
    dirty = " with uncommitted changes" if about["git"]["dirty"] else ""
    facts = [
        ["Fact", "Value"],
        ["Version", f"`{run.name}` (seed {evaluation['chosen_seed']}, the best on validation)"],
        ["Network", evaluation["model"]],
        ["Data", about["data"]["about"]],
        ["Data fingerprint", f"`{about['data']['fingerprint'][:16]}`"],
        ["Code", f"`{commit[:12]}`{dirty}" if commit else "not under version control"],
        ["Trained on", f"{about['hardware']}, {evaluation['train_seconds']:.0f} s"],
        ["Versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())],
    ]
    settings = [["Setting", "Value"]]
    for key, value in flatten(run.settings).items():
        if not key.startswith("paths."):
            settings.append([f"`{key}`", f"`{value}`"])
    return [
        *markdown_table(facts),
        "",
        "### Quality on the test split",
        "",
        results_summary(evaluation),
        "",
        *results_table(evaluation),
        "",
        *_breakdown(evaluation["details"]),
        "### Settings",
        "",
        *markdown_table(settings),
        "",
        made_by,
    ]


def _breakdown(details: dict[str, Any]) -> list[str]:
    """The task's table per class (or per whatever it breaks down by), for the chosen seed."""
    lines = []
    for name, table_ in details.items():
        if isinstance(table_, dict) and table_:
            columns = list(next(iter(table_.values())))
            rows = [[name.replace("_", " ").capitalize(), *columns]]
            for key, row in table_.items():
                rows.append([key, *(_cell(row[column]) for column in columns)])
            lines += [*markdown_table(rows), ""]
    return lines


def _experiments(settings: Settings) -> list[str]:
    """All evaluated runs, the newest first."""
    rows = [["Run", METRICS[PRIMARY_METRIC].title, "Best baseline", "Seeds", "Rows", "Command"]]
    for path in sorted(settings.paths.runs.glob("*/evaluation.json"), reverse=True):
        evaluation, about = read_json(path), read_json(path.parent / "run.json")
        network = evaluation["network"]
        sign = 1 if evaluation["higher_is_better"] else -1
        best = max(
            sign * row["metrics"][PRIMARY_METRIC] for row in evaluation["baselines"].values()
        )
        spread = (
            f" ± {_number(PRIMARY_METRIC, network['sd'][PRIMARY_METRIC])}" if network["sd"] else ""
        )
        rows.append(
            [
                f"`{evaluation['run']}`",
                _number(PRIMARY_METRIC, network["mean"][PRIMARY_METRIC]) + spread,
                _number(PRIMARY_METRIC, sign * best),
                str(len(network["seeds"])),
                str(sum(evaluation["rows"].values())),
                f"`{about['command']}`",
            ]
        )
    return markdown_table(rows)


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the markers; a page that is missing gets only a title."""
    if not path.exists():
        title = "Experiments" if path.name == "README.md" else "Model card"
        return f"# {title}\n\n", "\n"
    return split_around_section(path, BEGIN, END)


def _number(metric: str, value: float) -> str:
    return f"{value * METRICS[metric].scale:.{METRICS[metric].digits}f}"


def _ahead(row: dict[str, Any]) -> str:
    """By how much the network is ahead of a baseline, with the interval."""
    value, near, far = (
        f"{value * METRICS[PRIMARY_METRIC].scale:+.{METRICS[PRIMARY_METRIC].digits}f}"
        for value in (row["ahead"], *row["ahead_interval"])
    )
    return f"{value} ({near} to {far})"


def _span(ends: list[float]) -> str:
    return " to ".join(_number(PRIMARY_METRIC, end) for end in ends)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
