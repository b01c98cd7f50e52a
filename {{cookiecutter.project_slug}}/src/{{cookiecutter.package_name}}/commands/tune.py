"""Search settings, cross-validate, compare variants."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import UserError, parse_search, search_space, with_values
from ..task.settings import Settings
from . import common

if TYPE_CHECKING:
    from ..experiments.study_pages import Page

NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
UNCOMPARABLE = ("data.", "paths.", "name", "train.seeds", "train.device")


def register(group: common.CommandGroup) -> None:
    parser = group.add(
        run_tune,
        "--trials 40",
        "--search train.lr --search model.width=16,24,32 train.epochs=20",
        "--search train.lr=1e-4..1e-2:log --timeout 3600",
        notes=space_table(),
    )
    text = "search this setting, and those of other --search, instead of all below: KEY for the "
    text += "values below, KEY=low..high, KEY=low..high:log or KEY=a,b,c"
    parser.add_argument("--search", action="append", default=[], metavar="KEY", help=text)
    text = "trials that the study has in the end, over all workers (default: 30)"
    parser.add_argument("--trials", type=_positive, default=30, metavar="N", help=text)
    text = "start no new trial after so many seconds"
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help=text)
    _add_name(parser, "--study", "study to create, join or continue")
    _add_seeds(parser, "trial")
    common.add_config_options(parser)
    parser = group.add(run_crossval, "", "--folds 10 --seeds 3", "--config configs/mine.yaml")
    text = "folds, at least 3 (default: 5)"
    parser.add_argument("--folds", type=_positive, default=5, metavar="N", help=text)
    _add_name(parser, "--name", "cross-validation to start or continue")
    _add_seeds(parser, "fold")
    common.add_config_options(parser)
    parser = group.add(
        run_sweep,
        "--variant model.dropout=0 --variant 'train.lr=0.01 model.width=16'",
        "--file configs/sweep.yaml train.epochs=20",
    )
    text = "settings of a variant, `key=value` separated by blanks; repeat it for more"
    parser.add_argument("--variant", action="append", default=[], metavar="SETTINGS", help=text)
    text = "YAML file with variants, `name: settings`"
    parser.add_argument("--file", type=Path, metavar="FILE", help=text)
    _add_name(parser, "--name", "sweep to write in docs/experiments")
    common.add_config_options(parser)


def run_tune(options: Namespace) -> None:
    """Search settings that are better on validation; the test split is not looked at.

    The first trial has the settings as they are and is trained to its end; others that are worse
    than the median at the same epoch are pruned. Run the command again, or at the same time, to add
    workers or trials to a study. Ctrl-C and a killed worker lose no trial: it is queued again and
    resumes.
    """
    from ..experiments import studies, study_pages
    from ..training.dataset import load_data
    from ..training.trial_values import ends
    from ..training.tuning import Study

    settings = _with_seeds(options)
    space = dict(parse_search(Settings, text) for text in options.search)
    for key in space:
        if key.startswith(UNCOMPARABLE):
            raise UserError(f"--search {key}: not to be searched: trials would not be comparable")
    for key, search in space.items():  # an impossible end would only show in some trial
        for value in search.choices or ends(settings, key, search):
            with_values(settings, {key: value}, f"--search {key}")
    given = {text.partition("=")[0] for text in options.settings}
    if both := given & space.keys():
        raise UserError(f"command line: {min(both)}: is both given and searched")
    space = space or {k: s for k, s in search_space(Settings) if k not in given}
    study = Study(settings, options.study or settings.name, space, load_data(settings))
    base = _command(options, "train", [])
    record = studies.tune(study, options.trials, options.timeout, base)
    _write(settings, f"tune-{study.name}", study_pages.tuning_page(record))
    counts = Counter(trial.state for trial in record.trials)
    print("trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if record.before is not None:
        print(f"trial 0, with the settings as they were: {study_pages.number(record.before)}")
    print(f"train with the best settings: {record.command}")


def run_crossval(options: Namespace) -> None:
    """Cross-validate the network and the baselines on folds that fit the task.

    Every fold is trained and tested like a run of its own. A killed cross-validation goes on where
    it was; finished folds are not repeated.
    """
    from ..experiments import studies, study_pages

    settings = _with_seeds(options)
    if options.folds < 3:
        raise UserError(
            f"--folds {options.folds}: at least 3: one trains, one validates, one tests"
        )
    name = options.name or settings.name
    arguments = ["--folds", str(options.folds), "--seeds", str(options.seeds), "--name", name]
    command = _command(options, "crossval", arguments)
    record = studies.cross_validate(settings, options.folds, name, command)
    _write(settings, f"crossval-{name}", study_pages.crossval_page(record))


def run_sweep(options: Namespace) -> None:
    """Train variants of the settings and compare them with the base on validation.

    All have the same seeds and data. They are ordinary runs: `evaluate --run` measures one on the
    test split. Runs of the same settings, data and commit are not repeated, killed ones resumed.
    """
    from ..experiments import studies, study_pages

    base = common.read_settings(options)
    texts = {text: text.split() for text in options.variant} | _variants_of(options.file)
    if not texts:
        raise UserError("command line: nothing to compare; give --variant key=value or --file FILE")
    variants = {}
    for title, overrides in texts.items():
        for override in overrides:
            if override.startswith(("paths.", "train.seeds", "name=")):
                raise UserError(f"{title}: {override}: has to be the same for all variants")
        merged = Namespace(**{**vars(options), "settings": [*options.settings, *overrides]})
        variants[title] = (overrides, common.read_settings(merged))
        if variants[title][1] == base:
            raise UserError(f"{title}: is the same as the base")
    name = options.name or base.name
    arguments = [part for text in options.variant for part in ("--variant", text)]
    arguments += ["--file", str(options.file)] if options.file else []
    command = _command(options, "sweep", [*arguments, "--name", name])
    record = studies.sweep(base, variants, name, command)
    _write(base, f"sweep-{name}", study_pages.sweep_page(record))


def _write(settings: Settings, folder: str, page: Page) -> None:
    """Print the tables of a study and write its folder."""
    from ..experiments.report import markdown_table
    from ..experiments.study_pages import write_study

    for table in page.tables.values():
        print("\n".join(["", *markdown_table(table)]))
    files = write_study(settings.paths.experiments / folder, page)
    print("\n".join(["", *(f"written: {path}" for path in files)]))


def space_table() -> str:
    """List what `tune` searches by default, for the help text."""
    lines = [f"  {key}={search}" for key, search in search_space(Settings)]
    return "\n".join(["searched by default, but for settings given as key=value:", *lines])


def _add_name(parser: ArgumentParser, option: str, text: str) -> None:
    text += " (default: the configuration's name)"
    parser.add_argument(option, type=_name, metavar="NAME", help=text)


def _add_seeds(parser: ArgumentParser, of: str) -> None:
    text = f"networks in each {of}, the first of train.seeds (default: 1)"
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help=text)


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ArgumentTypeError(f"{text!r}: letters, digits, - and _ only")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("must be at least 1")
    return number


def _with_seeds(options: Namespace) -> Settings:
    """Read the settings with the first `--seeds` of their seeds."""
    settings = common.read_settings(options)
    seeds = settings.train.seeds
    if options.seeds > len(seeds):
        raise UserError(f"--seeds {options.seeds}: train.seeds has only {len(seeds)}")
    return with_values(settings, {"train.seeds": seeds[: options.seeds]}, "--seeds")


def _command(options: Namespace, command: str, arguments: list[str]) -> str:
    """Write the command line that has this configuration."""
    config = [] if options.config == common.DEFAULT_CONFIG else ["--config", str(options.config)]
    return f"{options.command} {shlex.join([command, *config, *arguments, *options.settings])}"


def _variants_of(file: Path | None) -> dict[str, list[str]]:
    """Read variants from YAML: a name each, with settings as text, a list or a mapping."""
    if file is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must contain `name: key=value key=value`")
    variants = {}
    for name, value in content.items():
        variants[str(name)] = value.split() if isinstance(value, str) else [str(v) for v in value]
    return variants
