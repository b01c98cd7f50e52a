"""Inspect the data, train, evaluate, report."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import UserError
from ..task.settings import Settings
from . import common

if TYPE_CHECKING:
    from ..training.diagnosis import Check


def register(group: common.CommandGroup) -> None:
    parser = group.add(run_data, "", "--config configs/mine.yaml", "data.path=data/mine")
    text = "where to draw it (default: data.png in paths.experiments)"
    parser.add_argument("--picture", type=Path, metavar="FILE", help=text)
    common.add_config_options(parser)
    parser = group.add(run_doctor, "", "--config configs/mine.yaml", "train.lr=0.01")
    text = "where to draw it (default: doctor.png in paths.experiments)"
    parser.add_argument("--picture", type=Path, metavar="FILE", help=text)
    common.add_config_options(parser)
    parser = group.add(
        run_train,
        "",
        "--config configs/mine.yaml",
        "train.epochs=5 train.seeds=0,1",
        "--resume",
        notes=common.settings_table(Settings),
    )
    for name in ("question", "hypothesis"):
        text = f"{name} of the experiment, for its page in docs/experiments"
        parser.add_argument(f"--{name}", default="", metavar="TEXT", help=text)
    text = "resume RUN, or else the newest run with the configuration's name"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
    common.add_config_options(parser)
    parser = group.add(run_evaluate, "", "--config configs/mine.yaml", "--run RUN")
    common.add_run_option(parser)
    parser = group.add(run_report, "", "--config configs/mine.yaml", "--run RUN", "--check")
    text = "recorded run that this one changed (default: the one before on its data)"
    parser.add_argument("--against", metavar="RUN", help=text)
    text = "write nothing; exit code 1 if a page does not match the records (needs no runs)"
    parser.add_argument("--check", action="store_true", help=text)
    common.add_run_option(parser)


def run_data(options: Namespace) -> None:
    """Show the data: source, splits, ranges, what is missing or twice, and a picture.

    Loads and checks what train would train on. Exit codes: 0 usable, warnings included, 2 something
    would make training pointless: missing values, a single class, half of the test rows also in
    training.
    """
    from ..experiments.report import markdown_table
    from ..files import write_figure
    from ..training import inspection
    from ..training.dataset import load_data

    settings = common.read_settings(options)
    dataset = load_data(settings)
    found = inspection.inspect_data(dataset, settings)
    print("\n".join([dataset.about, *(f"note: {note}" for note in dataset.notes)]))
    for title, table in found.tables.items():
        print("\n".join(["", f"{title}:", "", *markdown_table(table)]))
    picture = options.picture or settings.paths.experiments / "data.png"
    write_figure(picture, found.plot())
    print(f"\nwritten: {picture}")
    for warning in inspection.refuse_errors(found):
        print(f"warning: {warning}")


def run_doctor(options: Namespace) -> int:
    """Check network, loss, learning rate and data before training.

    Makes short experiments: the loss before training against theory, one batch learned by heart,
    gradients and updates of each layer, dead units, a learning rate range test, targets against
    shuffled ones, where the time goes. Takes less than a minute; trains and writes no run.

    Exit codes: 0 healthy, warnings included, 1 an error was found, 2 invalid input, or data that
    makes training pointless (as the command data says).
    """
    from ..experiments.diagnosis_plot import plot_diagnosis
    from ..files import write_figure
    from ..training import diagnosis, inspection
    from ..training.dataset import load_data

    settings = common.read_settings(options)
    dataset = load_data(settings)
    found = diagnosis.Diagnosis(settings.train.lr)
    warnings = inspection.refuse_errors(inspection.inspect_data(dataset, settings))
    checks = [diagnosis.Check("warning", "data", text) for text in warnings]
    for check in checks or [diagnosis.Check("ok", "data", "nothing looks wrong")]:
        _print_check(check)
    for check in diagnosis.diagnose(settings, dataset, found):
        _print_check(check)
    picture = options.picture or settings.paths.experiments / "doctor.png"
    write_figure(picture, plot_diagnosis(found))
    print(f"written: {picture}")
    return 1 if found.failed else 0


def _print_check(check: "Check") -> None:
    print(f"{check.level:<8} {check.name:<14} {check.text}")
    if check.advice:
        print(f"{'':<23} → {check.advice}")


def run_train(options: Namespace) -> None:
    """Train one network per seed.

    Checks the data first, as the command data does.

    Tracks the run with MLflow. Ctrl-C saves a checkpoint. A killed run can be resumed and ends at
    bit-identical weights.

    Started by torchrun, several processes share the examples of each step: docs/training.md.
    """
    from ..experiments.tracked_runs import train_tracked
    from ..training import inspection, processes, runs

    settings = common.read_settings(options)
    with processes.connected():
        if options.resume is not None:
            if options.question or options.hypothesis:
                raise UserError("command line: a resumed run keeps its question and hypothesis")
            if options.settings:
                raise UserError("command line: a resumed run keeps its settings; give none")
            name = options.resume or None
            run = processes.on_first(lambda: runs.open_run(settings, name, resume=True))
            dataset = run.dataset()
        else:
            dataset = runs.load_data(settings)
            for note in dataset.notes:
                print(f"note: {note}")
            for warning in inspection.refuse_errors(inspection.inspect_data(dataset, settings)):
                print(f"warning: {warning}")
            words = {"question": options.question, "hypothesis": options.hypothesis}
            run = processes.on_first(lambda: runs.create_run(settings, dataset, **words))
        rows = [f"{count} {name} rows" for name, count in dict(run.info.data.rows).items()]
        print(f"run {run.name}: {', '.join(rows)}")
        train_tracked(run, dataset, f"{options.command} train --resume {run.name}")
    print(f"next: {options.command} evaluate, report or deploy{_same_run(options, run.name)}")


def _same_run(options: Namespace, name: str) -> str:
    """Return the options with which the next command finds the run."""
    if options.config is common.DEFAULT_CONFIG:
        named = any(text.startswith("name=") for text in options.settings)
        return f", with --run {name}" if named else ""
    chosen = common.chooses_data(options)
    return f", with --run {name}" if chosen else f", with --config {options.config}"


def run_evaluate(options: Namespace) -> None:
    """Evaluate every seed of a run, and the baselines, on the test split."""
    from ..experiments.report import (
        ablations_table,
        markdown_table,
        metric_legend,
        results_summary,
        results_table,
    )
    from ..experiments.tracked_runs import evaluate_tracked

    run, dataset = common.open_run_with_data(options)
    evaluation = evaluate_tracked(run, dataset)
    tables = [results_table(evaluation), *ablations_table(evaluation)]
    table = [line for each in tables for line in ["", *markdown_table(each)]]
    print("\n".join([*table, "", *metric_legend(), "", results_summary(evaluation), ""]))
    for name, table in evaluation.details.items():
        if isinstance(table, dict):
            columns = list(next(iter(table.values())))
            rows = [[key, *(f"{row[c]:.4g}" for c in columns)] for key, row in table.items()]
            print("\n".join([*markdown_table([[name, *columns], *rows]), ""]))
    print(f"written: {run.folder / 'evaluation.json'}")


def run_report(options: Namespace) -> int:
    """Write the results to README.md, MODEL_CARD.md, docs/walkthrough.md and docs/experiments.

    Draws the figures and rewrites the marked sections, a page per experiment and their table. Text
    outside the markers is never touched. Commit docs/experiments: it holds the records.
    """
    from ..experiments import records
    from ..experiments.report import results_summary, write_report
    from ..experiments.tracked_runs import read_or_evaluate
    from ..experiments.walkthrough import write_walkthrough

    if options.check:
        settings = common.read_settings(options)
        if lines := records.check(settings, options.command):
            print("\n".join(lines))
            return 1
        count = len(records.read_records(settings.paths.experiments))
        print(f"pages match the records of {count} experiments" if count else "no results yet")
        return 0
    run, dataset = common.open_run_with_data(options)
    evaluation = read_or_evaluate(run, dataset)
    files = write_report(run, dataset, evaluation, options.command)
    experiments = run.settings.paths.experiments
    recorded = records.record_experiments(run, options.against)
    files.append(write_walkthrough(run, evaluation, options.command))
    files += [*recorded, records.seal(experiments, run.name, [*files, recorded[-1]])]
    print(results_summary(evaluation))
    print("\n".join(f"written: {path}" for path in files))
    return 0
