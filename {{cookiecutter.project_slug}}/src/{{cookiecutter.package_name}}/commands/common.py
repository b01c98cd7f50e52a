"""What commands share: how they are added, common options, settings, runs."""

from __future__ import annotations

import inspect
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import UserError, describe_settings, has_sections, load_settings
from ..task.settings import Settings

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ..task.data import Dataset
    from ..training.runs import Run

DEFAULT_CONFIG = Path("configs/default.yaml")
BY_HAND = "by hand"


class CommandGroup(NamedTuple):
    """The commands of a program. They import heavy libraries late, so that `--help` is fast."""

    program: str
    parsers: _SubParsersAction[ArgumentParser]

    def add(
        self, execute: Callable[[Namespace], int | None], *examples: str, notes: str = ""
    ) -> ArgumentParser:
        """Add the command `NAME` of a function `run_NAME`, whose docstring is the help text;
        `examples` are arguments."""
        name = execute.__name__.removeprefix("run_")
        text = inspect.getdoc(execute) or name
        summary = text.partition("\n")[0].rstrip(".")
        lines = ["examples:", *(f"  {self.program} {name} {text}".rstrip() for text in examples)]
        parser = self.parsers.add_parser(
            name,
            help=summary[0].lower() + summary[1:],
            description=text,
            epilog="\n".join([*lines, "", notes] if notes else lines),
            formatter_class=RawDescriptionHelpFormatter,
        )
        parser.set_defaults(execute=execute)
        return parser


def add_config_options(parser: ArgumentParser) -> None:
    """Add `--config FILE` and the settings `section.key=value`, which `read_settings` reads."""
    text = (
        f"YAML file with settings (default: {DEFAULT_CONFIG.as_posix()}). Relative paths in "
        "settings start in the project whose configs/ folder holds FILE, else in the working "
        "directory"
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=text)
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="override FILE")


def add_reason_option(parser: ArgumentParser) -> None:
    text = f"why, for the deployment's history (default: {BY_HAND})"
    parser.add_argument("--reason", default=BY_HAND, metavar="TEXT", help=text)


def settings_table(schema: type[Any]) -> str:
    """List all settings of a schema with defaults and descriptions, for a help text."""
    rows = list(describe_settings(schema))
    width = max(len(key) + len(default) for key, default, _ in rows) + 1
    lines = [f"  {f'{key}={default}':<{width}}  {text}" for key, default, text in rows]
    argument, variable = "key=value", "APP_KEY"
    if has_sections(schema):
        argument, variable = "section.key=value", "APP_SECTION__KEY"
    head = f"settings with their defaults, as {argument} or in the environment as {variable}:"
    return "\n".join([head, *lines])


def read_settings(options: Namespace) -> Settings:
    """Load the settings of a command, and work in the folder that their paths start from."""
    if options.config == DEFAULT_CONFIG and not DEFAULT_CONFIG.exists():
        hint = "run this in the project's folder or give --config FILE"
        raise UserError(f"{DEFAULT_CONFIG}: not found; {hint}")
    if (folder := project_folder(options.config)) != Path.cwd():
        print(f"working in {folder}")
        options.config = options.config.resolve()
        os.chdir(folder)
    return load_settings(Settings, options.config, options.settings)


def project_folder(config: Path) -> Path:
    """Return the project whose `configs/` folder holds the file, else the working directory."""
    folder = config.resolve().parent
    is_project = folder.name == "configs" and folder.with_name("pyproject.toml").is_file()
    return folder.parent if is_project else Path.cwd()


def add_run_option(parser: ArgumentParser) -> None:
    """Add `--run RUN`, which `open_run_with_data` reads, and the configuration's options."""
    text = "name of a run in runs/ (default: the newest finished one; of a configuration, if "
    text += "--config or data settings are given: one with its name and data settings)"
    parser.add_argument("--run", metavar="RUN", help=text)
    add_config_options(parser)


def chooses_data(options: Namespace) -> bool:
    """Return whether the command line itself chooses the data or the experiment's name."""
    return any(text.startswith(("data.", "name=")) for text in options.settings)


def open_run_with_data(options: Namespace) -> tuple[Run, Dataset]:
    """Open the run that `--run` names, by default the newest, and load its data.

    The newest of the configuration, if one was given; a bare command follows the last training.
    """
    from ..training.runs import open_run

    given = options.config is not DEFAULT_CONFIG or chooses_data(options)
    run = open_run(read_settings(options), options.run, any_data=not given)
    return run, run.dataset()
