"""The command line: what can be asked for, and how everything that goes wrong is told."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import verbs, verbs_lifecycle, verbs_live
from .config import UserError, WorkError, describe_settings
from .task.settings import Settings
from .verbs import DEFAULT_CONFIG


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; 0 done, 1 the work failed, 2 what the user gave was wrong, 3 drift was found."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.verb(options) or 0
    except UserError as error:
        return _fail(error, 2)
    except WorkError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:  # the reader of our output went away; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def build_parser() -> argparse.ArgumentParser:
    """The verbs and what each takes."""
    program = Path(sys.argv[0])
    command = program.stem
    if program.suffix == ".py":  # started by python -m
        command = f"python -m {__package__}.cli"
    parser = argparse.ArgumentParser(
        command,
        description="Train a model, compare it with baselines, serve, watch and replace it.",
        epilog=f"In this order: {command} train, evaluate, report, deploy, serve, predict; with "
        "the server at work feedback, drift, retrain, ab, promote, rollback. "
        f"{command} VERB --help tells more. "
        "Exit code: 0 done, 1 the work failed, 2 wrong input, 3 drift was found.",
    )
    parser.set_defaults(command=command)
    commands = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def add(verb: Callable[..., Any], help: str, text: str, epilog: str) -> argparse.ArgumentParser:
        new = commands.add_parser(
            verb.__name__,
            help=help,
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        new.set_defaults(verb=verb)
        return new

    training = _table(Settings, "APP_SECTION__KEY", "section.key=value")
    new = add(
        verbs.train,
        "train one network per seed",
        "Train one network per seed and track it with MLflow.\n"
        "Ctrl-C saves and tells how to go on; a killed run goes on too, to the same weights.",
        f"examples:\n  {command} train\n  {command} train train.epochs=5 train.seeds=[0]\n"
        f"  {command} train --resume\n\n{training}",
    )
    new.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with the newest run, or RUN"
    )
    _common(new)
    for verb, help, text in (
        (
            verbs.evaluate,
            "measure the newest run on the test split, against baselines",
            "Measure every seed of a run and the baselines on the same test split.",
        ),
        (
            verbs.report,
            "write the results into README, MODEL_CARD.md and docs/experiments",
            "Draw the pictures and rewrite the marked sections of README.md and MODEL_CARD.md\n"
            "and the list of experiments. Nothing outside of the markers is touched.",
        ),
        (
            verbs.deploy,
            "pack the newest run, register it as champion and install it",
            "Export the seed that is best on validation to ONNX, check it against torch, pack it\n"
            "with its contract, register it in MLflow as champion, install it for the server.",
        ),
    ):
        example = f"examples:\n  {command} {verb.__name__}\n  {command} {verb.__name__} --run RUN"
        new = add(verb, help, text, f"{example}\n\nRUN is a folder in runs/.")
        new.add_argument("--run", metavar="RUN", help="another run than the newest")
        if verb is verbs.deploy:
            _reason(new)
        _common(new)

    from .serving.wiring import ServerSettings  # pydantic only; the server is imported later

    new = add(
        verbs.serve,
        "serve the deployed model over HTTP",
        "Serve what is in the deployment folder; a new deployment is taken up without a restart.",
        f"examples:\n  {command} serve\n  {command} serve port=8080 host=0.0.0.0\n\n"
        + _table(ServerSettings, "APP_KEY", "key=value"),
    )
    new.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    new = add(
        verbs.predict,
        "predict files, with the deployed model or by asking a server",
        "Predict files, or the bundle's own example when none is given. Prints JSON.",
        f"examples:\n  {command} predict\n  {command} predict a.png b.png\n"
        f"  {command} predict a.png --url http://127.0.0.1:8000",
    )
    new.add_argument("files", nargs="*", type=Path, metavar="FILE", help="what to predict")
    new.add_argument("--url", help="ask this server, with the first of $APP_API_KEYS")
    new.add_argument(
        "--deployment",
        type=Path,
        default=Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment")),
        metavar="FOLDER",
        help="the deployment folder (default: $APP_DEPLOYMENT_DIR or deployment)",
    )
    _live(add, command)
    _lifecycle(add, command)
    return parser


def _live(add: Callable[..., argparse.ArgumentParser], command: str) -> None:
    """The verbs about a model at work."""
    new = add(
        verbs_live.feedback,
        "tell the log what was right about its predictions",
        "Record what turned out to be right; the same file again changes nothing.\n"
        "CSV: the columns request_id, item (from 0, may be left out) and one for each field of\n"
        "the truth, as text or JSON. JSON lines, in a file that ends in .jsonl: an object of\n"
        "request_id, item and truth in each.",
        f"examples:\n  {command} feedback truths.csv\n"
        f"  {command} feedback truths.csv --url http://127.0.0.1:8000",
    )
    new.add_argument("file", type=Path, metavar="FILE", help="CSV or JSON lines")
    new.add_argument("--url", help="send it to this server, with the first of $APP_API_KEYS")
    _common(new)
    new = add(
        verbs_live.drift,
        "compare what the model is asked now with what it was judged on",
        "Compare the newest items of the log with the validation split, feature by feature, and\n"
        "the answers as well.",
        f"examples:\n  {command} drift\n  {command} drift --rows 5000 --version VERSION\n\n"
        "Exit code: 0 no drift found or too few rows, 3 drift found; 1 the work failed, 2 wrong "
        "input.",
    )
    new.add_argument(
        "--rows", type=int, default=1000, metavar="N", help="newest items (default: 1000)"
    )
    new.add_argument("--version", metavar="VERSION", help="another than the champion")
    new.add_argument(
        "--picture", type=Path, metavar="FILE", help="default: drift.png in paths.experiments"
    )
    _common(new)
    new = add(
        verbs_live.ab,
        "say whether the challenger is better, as far as is known",
        "Compare champion and challenger on the traffic of the running test, and say whether to\n"
        "go on, promote or stop. It may be looked at as often as one likes.",
        f"examples:\n  {command} ab\n  {command} ab ab.least_effect=0.01\n"
        f"  {command} ab --share 0.3    (a new test begins, with 30 % of the callers)",
    )
    new.add_argument("--share", type=_share, metavar="SHARE", help="give the challenger this share")
    new.add_argument(
        "--mode", choices=("split", "shadow"), help="let it answer callers, or only listen"
    )
    _reason(new)
    _common(new)


def _lifecycle(add: Callable[..., argparse.ArgumentParser], command: str) -> None:
    """The verbs that lead from one model to the next."""
    new = add(
        verbs_lifecycle.retrain,
        "train a successor from the log's labels and try it beside the champion",
        "Train on the original data and the labelled requests of the log, compare with the\n"
        "champion on data that neither was trained on, and give a part of the traffic to the new\n"
        "model if it is better. Run it as often as you like: whatever was interrupted is gone on\n"
        "with, and of two at once the second leaves.",
        f"examples:\n  {command} retrain --if-needed\n  {command} retrain retrain.share=0.5\n\n"
        "Exit code 0 also when nothing is due, and when the new model is refused.",
    )
    new.add_argument(
        "--if-needed", action="store_true", help="only for drift, worse answers, new labels or age"
    )
    new.add_argument(
        "--force", action="store_true", help="although a test runs; forget an unfinished retrain"
    )
    _common(new)
    new = add(
        verbs_lifecycle.promote,
        "make the challenger the champion, if the test says so",
        "Make the challenger the champion once `ab` says promote; a running server follows.",
        f'examples:\n  {command} promote\n  {command} promote --force --reason "for the demo"',
    )
    new.add_argument("--force", action="store_true", help="whatever the test says")
    _reason(new)
    _common(new)
    new = add(
        verbs_lifecycle.rollback,
        "take the challenger out, or return to the champion before",
        "With a challenger under test: give all traffic to the champion. Without one: return to\n"
        "the champion before. Needs the deployment folder only, not MLflow.",
        f'examples:\n  {command} rollback --reason "errors since the deployment"',
    )
    _reason(new)
    _common(new)


def _reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reason", default="by hand", metavar="TEXT", help="why, for the deployment's history"
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: above 0, 1 at most")
    return share


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"YAML file with settings (default: {DEFAULT_CONFIG.as_posix()})",
    )
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings")


def _table(schema: type[Any], variable: str, argument: str) -> str:
    rows = [(key, default, text) for key, default, text in describe_settings(schema)]
    width = max(len(key) + len(default) for key, default, _ in rows) + 1
    lines = [f"  {f'{key}={default}':<{width}}  {text}" for key, default, text in rows]
    head = f"settings with their defaults, as {argument} or in the environment as {variable}:"
    return "\n".join([head, *lines])


def _fail(error: object, code: int) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
