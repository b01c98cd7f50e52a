"""The folders of `tune`, `crossval` and `sweep` in docs/experiments: record, figures, a page."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..files import Document, split_around_section, write_figure, write_json, write_text
from ..palette import BLUE, GREY
from ..task.objective import METRICS, PRIMARY_METRIC
from ..training.documents import Interval
from ..training.folds import CrossValidation
from ..training.sweeps import SweepRecord
from ..training.tuning import TuneRecord
from .report import RESULTS_END, TEMPLATES
from .report import _number as number

METRIC = METRICS[PRIMARY_METRIC]
MOST_ROWS = 10  # trials in the table


class Page(NamedTuple):
    """What a study's folder gets."""

    record: Document
    title: str
    tables: dict[str, list[list[str]]]  # by their name in the template; printed too
    figures: dict[str, Figure]


def write_study(folder: Path, page: Page) -> list[Path]:
    """Write `<kind>.json`, the figures and a page; the text around its markers stays.

    `folder` is `<kind>-<name>`, the template `<kind>.md.j2`.
    """
    kind, path = folder.name.partition("-")[0], folder / "README.md"
    begin = f"<!-- results:begin, rewritten by the command {kind} -->"
    before, after = f"# {page.title}\n\n", "\n"
    if path.exists():
        before, after = split_around_section(path, begin, RESULTS_END)
    write_json(folder / f"{kind}.json", page.record.model_dump(mode="json"))
    for name, figure in page.figures.items():
        write_figure(folder / name, figure)
    values = {"record": page.record, "figures": list(page.figures), **page.tables}
    text = TEMPLATES.get_template(f"{kind}.md.j2").render(values)
    write_text(path, "\n".join([before + begin, "", text, "", RESULTS_END + after]))
    return [path, folder / f"{kind}.json", *(folder / name for name in page.figures)]


def tuning_page(record: TuneRecord) -> Page:
    """Tabulate and draw the best trials and what was searched."""
    keys, sign = list(record.space), -1 if record.higher_is_better else 1
    complete = [(trial.value, trial) for trial in record.trials if trial.value is not None]
    trials = [["Trial", METRIC.title, *keys]]
    for value, trial in sorted(complete, key=lambda pair: sign * pair[0])[:MOST_ROWS]:
        cells = [f"{trial.settings.get(key, '')}" for key in keys]
        trials.append([str(trial.number), number(value), *cells])
    space = [["Setting", "Searched", "Importance"]]
    for key in sorted(keys, key=lambda key: -record.importance.get(key, 0)):
        share = f"{record.importance[key]:.0%}" if record.importance else "too few trials"
        space.append([key, record.space[key], share])
    tables = {"trials": trials, "space": space}
    return Page(record, f"Tuning: {record.study}", tables, tuning_figures(record))


def crossval_page(record: CrossValidation) -> Page:
    """Tabulate and draw the folds and the means over them."""
    folds = [["Fold", "Training rows", "Test rows", "Network", *record.baselines]]
    for place, fold in enumerate(record.folds, 1):
        models = [fold.network, *(fold.baselines[key] for key in record.baselines)]
        values = [number(each[record.metric]) for each in models]
        folds.append([str(place), f"{fold.rows.train:,}", f"{fold.rows.test:,}", *values])
    title = f"{METRIC.title}, mean ± sd"
    results = [["Model", title, "95 % interval", "Network ahead by", "Verdict"]]
    for name, each in {"Network": record.network, **record.baselines}.items():
        mean = f"{number(each.mean)} ± {number(each.sd)}"
        lead, verdict = "", ""
        if ahead := record.ahead.get(name):
            low, high = ahead.interval
            lead = _lead(ahead.mean, ahead.interval)
            verdict = "ahead" if low > 0 else "behind" if high < 0 else "not distinguishable"
        results.append([name, mean, " to ".join(map(number, each.interval)), lead, verdict])
    figures = {"folds.png": crossval_figure(record)}
    tables = {"folds": folds, "results": results}
    return Page(record, f"Cross-validation: {record.name}", tables, figures)


def sweep_page(record: SweepRecord) -> Page:
    """Tabulate and draw the differences from the base."""
    results = [["Variant", f"{METRIC.title} (validation)", "Better than the base by", "Verdict"]]
    for variant in (record.base, *record.variants):
        lead = ""
        if variant.ahead is not None and variant.ahead_interval is not None:
            lead = _lead(variant.ahead, variant.ahead_interval)
        results.append([variant.name, number(variant.mean), lead, variant.verdict])
    figures = {"differences.png": sweep_figure(record)}
    return Page(record, f"Sweep: {record.name}", {"results": results}, figures)


def _lead(mean: float, interval: Interval) -> str:
    values = (number(value, sign="+") for value in (mean, *interval))
    return "{} ({} to {})".format(*values)


def tuning_figures(record: TuneRecord) -> dict[str, Figure]:
    """Draw the trials in their order, and the importance of the settings."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    complete = [trial for trial in record.trials if trial.value is not None]
    values = np.array([trial.value for trial in complete]) * METRIC.scale
    best = (np.maximum if record.higher_is_better else np.minimum).accumulate(values)
    numbers = [trial.number for trial in complete]
    # Pruned trials may end far away: the picture shows complete ones, and those at its edge.
    room = 0.06 * (float(np.ptp(values)) or 1.0)
    edges = values.min() - room, values.max() + room
    pruned = [trial for trial in record.trials if trial.state == "pruned" and trial.history]
    ends = np.clip([trial.history[-1] * METRIC.scale for trial in pruned], *edges)
    numbers_pruned = [trial.number for trial in pruned]
    axis.plot(
        numbers_pruned, ends, "x", color=GREY, clip_on=False, label="pruned (at the edge: beyond)"
    )
    axis.plot(numbers, values, "o", color=BLUE, label="complete")
    axis.step(numbers, best, where="post", color=BLUE, alpha=0.5, label="best so far")
    axis.set_ylim(*edges)
    axis.set(xlabel="trial", ylabel=f"{METRIC.title} (validation)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    figures = {"history.png": _plain(figure)}
    if record.importance:
        names = list(record.importance)
        figure = Figure(figsize=(8, 1.0 + 0.32 * len(names)), layout="constrained")
        axis = figure.subplots()
        axis.barh(names, [100 * share for share in record.importance.values()], color=BLUE)
        axis.invert_yaxis()
        axis.set(xlabel="importance, % (PED-ANOVA)")
        figures["importance.png"] = _plain(figure)
    return figures


def crossval_figure(record: CrossValidation) -> Figure:
    """Draw the network and the baselines on each fold, and their means with intervals."""
    rows = [("Network", record.network, [f.network[record.metric] for f in record.folds], BLUE)]
    for name, estimate in record.baselines.items():
        values = [fold.baselines[name][record.metric] for fold in record.folds]
        rows.append((name, estimate, values, GREY))
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for height, (_, estimate, values, color) in enumerate(rows):
        ends = np.array(estimate.interval) * METRIC.scale
        axis.plot(ends, [height, height], color=color, linewidth=2.5, solid_capstyle="round")
        points = np.array(values) * METRIC.scale
        axis.plot(points, [height + 0.22] * len(points), "o", color=color, alpha=0.6, markersize=4)
        axis.plot(estimate.mean * METRIC.scale, height, "o", color=color)
    axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axis.set(
        xlabel=f"{METRIC.title}\n(mean over folds, 95 % interval; small: each fold)",
        ylim=(len(rows) - 0.4, -0.6),
    )
    return _plain(figure)


def sweep_figure(record: SweepRecord) -> Figure:
    """Draw each variant's lead over the base with its interval."""
    figure = Figure(figsize=(8, 1.3 + 0.4 * len(record.variants)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=GREY, linewidth=1)
    for height, variant in enumerate(record.variants):
        color = GREY if variant.verdict == "not distinguishable" else BLUE
        ends = np.array(variant.ahead_interval) * METRIC.scale
        axis.plot(ends, [height, height], color=color, linewidth=2.5, solid_capstyle="round")
        axis.plot((variant.ahead or 0.0) * METRIC.scale, height, "o", color=color)
    axis.set_yticks(range(len(record.variants)), [variant.name for variant in record.variants])
    axis.set(
        xlabel=f"{METRIC.title}: better than the base by\n(validation, 95 % interval)",
        ylim=(len(record.variants) - 0.5, -0.5),
    )
    return _plain(figure)


def _plain(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
