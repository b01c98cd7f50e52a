"""Train, evaluate, report."""

from argparse import Namespace

from ..config import UserError
from ..task.settings import Settings
from . import common


def register(group: common.CommandGroup) -> None:
    parser = group.add(
        run_train,
        "",
        "train.epochs=5 train.seeds=[0]",
        "--resume",
        notes=common.settings_table(Settings),
    )
    text = "resume RUN, or else the newest run"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=text)
    common.add_config_options(parser)
    parser = group.add(run_evaluate, "", "--run RUN")
    common.add_run_option(parser)
    parser = group.add(run_report, "", "--run RUN")
    common.add_run_option(parser)


def run_train(options: Namespace) -> None:
    """Train one network per seed.

    Tracks the run with MLflow. Ctrl-C saves a checkpoint. A killed run can be resumed and ends at
    bit-identical weights.
    """
    from ..experiments.tracked_runs import train_tracked
    from ..training import runs

    settings = common.read_settings(options)
    if options.resume is not None:
        if options.settings:
            raise UserError("command line: a resumed run keeps its settings; give none")
        run = runs.open_run(settings, options.resume or None)
        dataset = run.dataset()
    else:
        dataset = runs.load_data(settings)
        run = runs.create_run(settings, dataset)
    rows = dict(run.info.data.rows)
    print(f"run {run.name}: {', '.join(f'{count} {name} rows' for name, count in rows.items())}")
    train_tracked(run, dataset, f"{options.command} train --resume {run.name}")
    print(f"next: {options.command} evaluate, report or deploy")


def run_evaluate(options: Namespace) -> None:
    """Evaluate every seed of a run, and the baselines, on the test split."""
    from ..experiments.report import (
        markdown_table,
        metric_legend,
        results_summary,
        results_table,
    )
    from ..experiments.tracked_runs import evaluate_tracked

    run, dataset = common.open_run_with_data(options)
    evaluation = evaluate_tracked(run, dataset)
    table = markdown_table(results_table(evaluation))
    print("\n".join(["", *table, "", *metric_legend(), "", results_summary(evaluation), ""]))
    for name, table in evaluation.details.items():
        if isinstance(table, dict):
            columns = list(next(iter(table.values())))
            rows = [[key, *(f"{row[c]:.4g}" for c in columns)] for key, row in table.items()]
            print("\n".join(markdown_table([[name, *columns], *rows])))
    print(f"\nwritten: {run.folder / 'evaluation.json'}")


def run_report(options: Namespace) -> None:
    """Write the results to README.md, MODEL_CARD.md and docs/experiments.

    Draws the figures and rewrites the marked sections and the list of experiments. Text outside the
    markers is never touched.
    """
    from ..experiments.report import results_summary, write_report
    from ..experiments.tracked_runs import read_or_evaluate

    run, dataset = common.open_run_with_data(options)
    evaluation = read_or_evaluate(run, dataset)
    files = write_report(run, dataset, evaluation, options.command)
    print(results_summary(evaluation))
    print("\n".join(f"written: {path}" for path in files))
