"""The command line: compose the commands, run one, turn errors into exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from . import commands
from .client import LOOPBACK
from .commands.common import CommandGroup
from .config import UserError, WorkError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 for done, 1 for failed work, 2 for invalid input, or its own code."""
    if isinstance(sys.stdout, TextIOWrapper):
        # "…" in a terminal of Latin-1; stderr has its own. A pipe would get lines late, in blocks.
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    without_proxy_for_this_machine()
    options = build_parser().parse_args(arguments)
    try:
        return options.execute(options) or 0
    except UserError as error:
        return _fail(error, 2)
    except WorkError as error:
        return _fail(error, 1)
    except ModuleNotFoundError as error:  # as of training libraries in the server's image
        name = str(error.name).partition(".")[0]
        if name == __package__:
            raise
        needs = "this command needs the training dependencies (make setup, or the image of"
        return _fail(f"{name} is not installed: {needs} `docker build --target train`)", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:  # the reader of our output is gone; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def without_proxy_for_this_machine() -> None:
    """Let every HTTP client of this process, MLflow's too, reach this machine directly."""
    variables = ("no_proxy", "NO_PROXY")  # which one clients prefer differs
    excluded = next(filter(None, map(os.environ.get, variables)), "")
    if "*" not in excluded:
        names = dict.fromkeys([*filter(None, excluded.split(",")), *LOOPBACK])
        os.environ |= dict.fromkeys(variables, ",".join(names))


def build_parser() -> argparse.ArgumentParser:
    """Compose the parser from every module of `commands`."""
    started = Path(sys.argv[0])
    program = f"python -m {__package__}.cli" if started.suffix == ".py" else started.stem
    parser = argparse.ArgumentParser(
        program,
        description="Train, evaluate, deploy and serve a model, one command per step.",
        epilog="Start with train, evaluate, report, deploy, serve, predict, in this order. "
        f"{program} COMMAND --help shows options, settings and examples. "
        "Exit codes: 0 done, 1 the work failed, 2 invalid input; a command's help lists others.",
    )
    parser.set_defaults(command=program)
    parsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in commands.MODULES:
        module.register(CommandGroup(program, parsers))
    return parser


def _fail(error: object, code: int) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
