"""The command line: what can be asked for, and how everything that goes wrong is told."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import verbs
from .config import UserError, WorkError, describe
from .task.settings import Settings
from .verbs import DEFAULT_CONFIG


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; 0 done, 1 the work failed, 2 what the user gave was wrong."""
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
        description="Train a model, measure it against baselines, document, deploy and serve it.",
        epilog=f"In this order: {command} train, evaluate, report, deploy, serve, predict. "
        f"{command} VERB --help tells more. Exit code: 0 done, 1 the work failed, 2 wrong input.",
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
        _common(new)

    from .serving.settings import Serving  # pydantic only; the server itself is imported later

    new = add(
        verbs.serve,
        "serve the deployed model over HTTP",
        "Serve what is in the deployment folder; a new deployment is taken up without a restart.",
        f"examples:\n  {command} serve\n  {command} serve port=8080 host=0.0.0.0\n\n"
        + _table(Serving, "APP_KEY", "key=value"),
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
    new.add_argument("--url", help="ask the server at this address")
    new.add_argument(
        "--deployment",
        type=Path,
        default=Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment")),
        metavar="FOLDER",
        help="the deployment folder (default: $APP_DEPLOYMENT_DIR or deployment)",
    )
    return parser


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
    rows = [(key, default, text) for key, default, text in describe(schema)]
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
