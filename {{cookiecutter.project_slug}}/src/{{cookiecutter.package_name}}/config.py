"""Typed settings: YAML file < environment < command line, each value's source remembered.

A setting lives in a section (`train.lr`). It can be given in the YAML file, as the environment
variable `APP_TRAIN__LR` or as `train.lr=0.01` on the command line; the later wins. Whatever is
wrong ends in one line that names the source, the key, the value and what is allowed.
"""

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

ENV_PREFIX = "APP_"
# The server's names for the same things.
SHARED_VARIABLES = {
    "APP_DEPLOYMENT_DIR": ("paths", "deployment"),
    "APP_DATABASE_URL": ("live", "database"),
}
DATABASE = "sqlite:///predictions.db"
SECRETS = {"api_keys", "database", "database_url"}  # or may hold one: no message shows their values


class UserError(Exception):
    """Something the user gave is wrong: the message says what to do; exit code 2, no traceback."""


class WorkError(Exception):
    """The work could not be done: the message says why; exit code 1, no traceback."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# The same seed twice would count one run as two when the spread over seeds is reported.
def _without_repeats(seeds: Any) -> Any:
    if isinstance(seeds, list) and len(set(map(str, seeds))) != len(seeds):
        raise ValueError("every seed may stand only once")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], BeforeValidator(_without_repeats)]


class TrainSettings(Section):
    """How the network is trained; the same for every task."""

    seeds: Seeds = Field(
        default=[0, 1, 2], min_length=1, description="a network is trained for each"
    )
    epochs: int = Field(default=40, ge=1, description="passes over the training split")
    batch_size: int = Field(default=64, ge=1, description="examples per step")
    lr: float = Field(default=4e-3, gt=0, le=10, description="peak of the one-cycle schedule")
    warmup: float = Field(default=0.25, gt=0, lt=1, description="share of steps to reach the peak")
    weight_decay: float = Field(default=1e-2, ge=0, description="AdamW's decoupled weight decay")
    clip_norm: float = Field(default=1.0, gt=0, description="largest L2 norm of a gradient")
    patience: int = Field(default=15, ge=1, description="stop after so many epochs without gain")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="where to compute; auto takes CUDA if it is there"
    )


class PathSettings(Section):
    """Where things are written, relative to the folder the command is run in."""

    runs: Path = Field(default=Path("runs"), description="one folder per training run")
    deployment: Path = Field(default=Path("deployment"), description="what the server reads")
    experiments: Path = Field(default=Path("docs/experiments"), description="for the README")
    feedback: Path = Field(
        default=Path("feedback"), description="labelled requests that retrain took from the log"
    )
    tracking: str = Field(
        default="sqlite:///mlflow.db",
        description="MLflow's address, unless MLFLOW_TRACKING_URI gives one",
    )


class LiveSettings(Section):
    """What the running server brings to the data."""

    database: str = Field(default=DATABASE, description="the server's prediction log")
    feedback: Path | None = Field(
        default=None, description="labelled requests that join the data, written by retrain"
    )
    set_aside: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the test split that is left for the traffic of make loop",
    )


class RetrainSettings(Section):
    """When a new model is due, and how it is tried."""

    new_labels: int = Field(
        default=1000, ge=1, description="so many new labelled answers are a reason"
    )
    quality_drop: float = Field(
        default=0.1, gt=0, description="so much worse than in training, as a share, is a reason"
    )
    max_days: float = Field(
        default=90, gt=0, description="a champion older than that is a reason by itself"
    )
    least_labels: int = Field(
        default=100, ge=1, description="labels that the other reasons wait for"
    )
    validation_share: float = Field(
        default=0.15, gt=0, lt=0.5, description="share of new labels that validate"
    )
    test_share: float = Field(
        default=0.25, gt=0, lt=0.5, description="share of new labels that test, the latest"
    )
    mode: Literal["split", "shadow"] = Field(
        default="split", description="whether the challenger answers callers or only listens"
    )
    share: float = Field(
        default=0.1, gt=0, le=1, description="of the callers (split) or requests (shadow)"
    )


class ABTestSettings(Section):
    """When the test of a challenger is decided."""

    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="chance that the interval is ever wrong"
    )
    least_units: int = Field(
        default=50, ge=2, description="labelled callers of each side before any verdict"
    )
    most_units: int | None = Field(
        default=None, ge=4, description="labelled callers after which an open test is stopped"
    )
    least_effect: float = Field(
        default=0.0, ge=0, description="a gain below this is not worth a promotion"
    )


class BaseSettings(Section):
    """What every task shares; a task adds its own sections in `task/settings.py`."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
        max_length=64,
        description="name of the experiment and of the registered model",
    )
    train: TrainSettings = TrainSettings()
    live: LiveSettings = LiveSettings()
    retrain: RetrainSettings = RetrainSettings()
    ab: ABTestSettings = ABTestSettings()
    paths: PathSettings = PathSettings()


S = TypeVar("S", bound=BaseModel)
Given = dict[tuple[str, ...], tuple[Any, str]]  # key path → (value, where it was given)


def load_settings(
    schema: type[S],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] = os.environ,
) -> S:
    """Settings from `path`, the environment and `key=value` overrides.

    Raises UserError, one line per wrong value.
    """
    given: Given = {}
    if path is not None:
        given |= {key: (value, str(path)) for key, value in _leaves(_read_yaml(path))}
    for name, text in env.items():
        if name in SHARED_VARIABLES:
            _put(given, SHARED_VARIABLES[name], text, f"${name}")
        if name.startswith(ENV_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _put(given, key, parse(text), f"${name}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise UserError(
                f"command line: {override!r} is not of the form section.key=value, "
                "for example train.epochs=5"
            )
        _put(given, tuple(name.split(".")), parse(text), "command line")
    return validate(schema, given)


def validate(schema: type[S], given: Given) -> S:
    """`schema` filled with the given values; UserError naming the source of each wrong one."""
    tree: dict[str, Any] = {}
    for key, (value, source) in given.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{source}: {'.'.join(key)}: {part!r} is no section")
        if isinstance(node.get(key[-1]), dict):
            raise UserError(f"{source}: {'.'.join(key)} is a section, set one of its keys")
        node[key[-1]] = value
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(schema, detail, given) for detail in error.errors()]
        raise UserError("\n".join(lines)) from None


def describe_settings(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, default, description) of every setting, for `--help`."""
    for name, field in schema.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from describe_settings(section, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else _show(field.get_default())
            yield f"{prefix}{name}", default, field.description or ""


def flatten(settings: BaseModel) -> dict[str, str]:
    """Every setting as `section.key` → text."""
    leaves = _leaves(settings.model_dump(mode="json"))
    return {".".join(key): _show(value) for key, value in leaves}


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # only training reads YAML: the server's environment does without

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold sections with keys, found {type(content).__name__}")
    return content


def _put(given: Given, key: tuple[str, ...], value: Any, source: str) -> None:
    """Set a value and forget what it replaces, be it the same key or keys below it."""
    for old in [old for old in given if old[: len(key)] == key]:
        del given[old]
    given[key] = (value, source)


def _leaves(tree: Mapping[Any, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for key, value in tree.items():
        path = (*prefix, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def parse(text: str) -> Any:
    """`0.1`, `true`, `[1, 2]` by JSON's rules; everything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(value: Any) -> str:
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value, default=str)


def _explain(schema: type[BaseModel], detail: Any, given: Given) -> str:
    location = tuple(str(part) for part in detail["loc"])
    name = ".".join(location)
    if detail["type"] == "missing":
        return f"{name}: is required, set it in the YAML file or as {name}=…"
    source = next((given[key][1] for key in given if key[: len(location)] == location), None)
    for cut in range(len(location), 0, -1):  # an element of a list carries its list's source
        source = source or (given[location[:cut]][1] if location[:cut] in given else None)
    if detail["type"] == "extra_forbidden":
        known = [key for key, _, _ in describe_settings(schema)]
        near = difflib.get_close_matches(name, [*known, *schema.model_fields], 1, 0.6)
        section = [key for key in known if key.startswith(f"{location[0]}.")]
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(section or known)}"
        return f"{source}: {name}={_show(detail['input'])}: no such setting, {hint}"
    reason = detail["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    value = "" if SECRETS & set(location) else f"={_show(detail['input'])}"
    return f"{source or 'default'}: {name}{value}: {reason}"
