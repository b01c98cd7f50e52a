"""Load typed settings: YAML file < environment < command line, the last one wins.

A setting in a section is `train.lr`, as an environment variable `APP_TRAIN__LR`. A schema without
sections, the server's, has `port` and `APP_PORT`. Lists are `0,1`, `[0, 1]` or `[]`. Each invalid
value is reported in one line with its source, its key and what is allowed.
"""

import csv
import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

ENV_PREFIX = "APP_"
# Never printed: a URL may hold a password.
SECRETS = {"api_keys", "database", "database_url", "deployment_url", "publish_to"}
# Never parsed as JSON: a key or a folder's name may look like a number.
TEXT = {
    *SECRETS,
    "allowed_hosts",
    "api_keys_file",
    "cors_origins",
    "deployment",
    "deployment_dir",
    "root_path",
}

S = TypeVar("S", bound=BaseModel)
KeyPath = tuple[str, ...]  # ("train", "lr")
SourcedValues = dict[KeyPath, tuple[Any, str]]  # (value, its source)


class UserError(Exception):
    """Invalid input: the message says what to change. Exit code 2, no traceback."""


class WorkError(Exception):
    """Work that failed: the message says why. Exit code 1, no traceback."""


class Variable(NamedTuple):
    """Gives a setting another environment variable: `Annotated[str, Variable("NAME")]`."""

    name: str


class Search(NamedTuple):
    """The values that `tune` tries for a setting: `Annotated[float, Search(1e-4, 1e-2, log=True)]`
    from low to high, or `Annotated[int, Search(choices=(16, 32))]`.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Write the values as `tune --search KEY=…` takes them."""
        if self.choices:
            return ",".join(map(_as_text, self.choices))
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"


def load_settings(
    schema: type[S],
    path: Path | Sequence[Path] | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] = os.environ,
) -> S:
    """Load `schema` from the sources; of several files a later one overrides those before.

    Raises UserError with one line per invalid value.
    """
    sections, variables = has_sections(schema), dict(_variables(schema))
    values: SourcedValues = {}
    for file in [path] if isinstance(path, Path) else path or []:
        for key, value in _leaves(_read_yaml(file)):
            _put(values, key, value, str(file))
    for name, text in {**env, **_secrets_in_files(variables, env)}.items():
        if name in variables:
            _put(values, variables[name], _parse(schema, variables[name], text), f"${name}")
        if sections and name.startswith(ENV_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _put(values, key, _parse(schema, key, text), f"${name}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            form = "section.key=value, for example train.epochs=5" if sections else "key=value"
            raise UserError(f"command line: {override!r} is not of the form {form}")
        key = tuple(name.split("."))
        _put(values, key, _parse(schema, key, text), "command line")
    return validate(schema, values)


def _secrets_in_files(variables: Mapping[str, KeyPath], env: Mapping[str, str]) -> dict[str, str]:
    """Read the secrets of which not `NAME` but `NAME_FILE` is set. Raises UserError."""
    secrets = {}
    for name, key in variables.items():
        file = f"{name}_FILE"
        if key[-1] not in SECRETS or name in env or not env.get(file) or file in variables:
            continue
        try:
            secrets[name] = Path(env[file]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not UTF-8 text"
            raise UserError(f"${file}: {env[file]}: cannot be read: {reason}") from None
    return secrets


def validate(schema: type[S], values: SourcedValues) -> S:
    """Fill `schema` with values. Raises UserError naming the source of each invalid one."""
    tree: dict[str, Any] = {}
    for key, (value, source) in values.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise UserError(f"{source}: {'.'.join(key)}: {part!r} is not a section")
        if isinstance(node.get(key[-1]), dict):
            raise UserError(f"{source}: {'.'.join(key)} is a section, set one of its keys")
        node[key[-1]] = value
    _keep_defaults(schema, tree)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = (_explain(schema, detail, values) for detail in error.errors())
        raise UserError("\n".join(lines)) from None


def _keep_defaults(schema: type[BaseModel], tree: dict[str, Any]) -> None:
    """Complete sections of which some keys are set with the schema's own defaults for them.

    In `train: TrainSettings = TrainSettings(epochs=5)` the class knows nothing of the 5.
    """
    for name, field in schema.model_fields.items():
        if (section := _section(field.annotation)) and isinstance(tree.get(name), dict):
            defaults = {
                key: default
                for key, of_class in section.model_fields.items()
                if (default := getattr(field.default, key, None)) != of_class.get_default()
            }
            tree[name] = {**defaults, **tree[name]}
            _keep_defaults(section, tree[name])


def describe_settings(
    schema: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, description) of every setting, for `--help`."""
    for name, field in schema.model_fields.items():
        default = getattr(defaults, name) if defaults else field.get_default()
        if section := _section(field.annotation):
            yield from describe_settings(section, f"{prefix}{name}.", default)
        else:
            text = "required" if field.is_required() else _as_text(default)
            yield f"{prefix}{name}", text, field.description or ""


def search_space(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Search]]:
    """Yield (key, values to try) of every setting that has a `Search` beside it."""
    for name, field in schema.model_fields.items():
        if section := _section(field.annotation):
            yield from search_space(section, f"{prefix}{name}.")
        for extra in field.metadata:
            if isinstance(extra, Search):
                yield f"{prefix}{name}", extra


def parse_search(schema: type[BaseModel], text: str) -> tuple[str, Search]:
    """Parse `KEY`, `KEY=low..high`, `KEY=low..high:log` or `KEY=a,b,c`. Raises UserError."""
    name, _, values = text.partition("=")
    declared, key = dict(search_space(schema)), tuple(name.split("."))
    source = f"--search {text}"
    if name not in {key for key, _, _ in describe_settings(schema)}:
        raise UserError(f"{source}: no such setting, {_suggest(schema, name)}")
    if not values:
        if name not in declared:
            form = f"{name}=low..high, {name}=low..high:log or {name}=a,b,c"
            raise UserError(f"{source}: has no values beside its setting, give {form}")
        return name, declared[name]
    low, dots, high = values.removesuffix(":log").partition("..")
    if not dots:
        choices = [_parse(schema, key, choice.strip()) for choice in values.split(",")]
        return name, Search(choices=tuple(choices))
    try:
        search = Search(float(low), float(high), values.endswith(":log"))
    except ValueError:
        raise UserError(f"{source}: {low!r} and {high!r} must be numbers") from None
    if not search.low < search.high or (search.log and search.low <= 0):
        rule = "0 < low < high" if search.log else "low < high"
        raise UserError(f"{source}: must be low..high with {rule}")
    return name, search


def with_values(settings: S, values: Mapping[str, Any], source: str) -> S:
    """Return the settings with other values by `section.key`. Raises UserError naming `source`."""
    dumped = settings.model_dump(mode="json")
    sourced: SourcedValues = {key: (value, source) for key, value in _leaves(dumped)}
    for name, value in values.items():
        _put(sourced, tuple(name.split(".")), value, source)
    return validate(type(settings), sourced)


def flatten(settings: BaseModel) -> dict[str, str]:
    """Map every setting's `section.key` to its value as text."""
    tree = settings.model_dump(mode="json")
    return {".".join(key): _as_text(value) for key, value in _leaves(tree)}


def differences(these: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """List the settings that both have with other values, as `section.key=this instead of that`."""
    before = dict(_leaves(others))
    return [
        f"{'.'.join(key)}={_as_text(value)} instead of {_as_text(before[key])}"
        for key, value in _leaves(these)
        if key in before and before[key] != value
    ]


def has_sections(schema: type[BaseModel]) -> bool:
    """Return whether keys have the form `section.key`; the server's are flat."""
    return any(_section(field.annotation) for field in schema.model_fields.values())


def _section(annotation: Any) -> type[BaseModel] | None:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _variables(schema: type[BaseModel], prefix: KeyPath = ()) -> Iterator[tuple[str, KeyPath]]:
    """Yield (variable, key) where the variable is not `APP_SECTION__KEY`."""
    for name, field in schema.model_fields.items():
        if section := _section(field.annotation):
            yield from _variables(section, (*prefix, name))
        elif not prefix and not has_sections(schema):
            yield ENV_PREFIX + name.upper(), (name,)
        for extra in field.metadata:
            if isinstance(extra, Variable):
                yield extra.name, (*prefix, name)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # only training reads YAML: the server's environment does without

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must contain sections with keys, not {type(content).__name__}")
    return content


def _put(values: SourcedValues, key: KeyPath, value: Any, source: str) -> None:
    """Replace a key, and those below it, by a value."""
    for old in [old for old in values if old[: len(key)] == key]:
        del values[old]
    values[key] = (value, source)


def _parse(schema: type[BaseModel], key: KeyPath, text: str) -> Any:
    """Parse a value from the environment or the command line by the type of its setting.

    JSON (`0.1`, `null`, `[1, 2]`), or else text. A setting that takes text keeps `5` and `,` as
    they are; a list may also be `a,b` or `[a, b]`, with quotes around elements that have commas.
    """
    if key[-1] in TEXT:
        return text
    types = list(_types(_annotation(schema, key)))
    value: Any = text
    with suppress(ValueError):
        value = json.loads(text)
    if list in types and str not in types and not isinstance(value, list) and value is not None:
        inner = text.strip().removeprefix("[").removesuffix("]")
        return [cell.strip() for row in csv.reader([inner], skipinitialspace=True) for cell in row]
    is_text = bool(types) and {*types} <= {str, Path, NoneType}
    return text if is_text and not isinstance(value, str | None) else value


def _annotation(schema: Any, key: KeyPath) -> Any:
    """Return the type of the setting with this key; None if there is no such setting."""
    for name in key:
        if section := _section(schema):
            schema = section.model_fields[name].annotation if name in section.model_fields else None
        else:
            schema = get_args(schema)[1] if get_origin(schema) is dict else None
    return schema


def _types(annotation: Any) -> Iterator[type]:
    """Yield the classes that an annotation allows: of `list[int] | None`, list and NoneType."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for each in get_args(annotation):
            yield from _types(each)
    elif origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin is Literal:
        yield from map(type, get_args(annotation))
    elif annotation is not None:
        yield origin or annotation


def _leaves(tree: Mapping[Any, Any], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in tree.items():
        path = (*prefix, str(key))
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value, default=str)


def _explain(schema: type[BaseModel], detail: Any, values: SourcedValues) -> str:
    """Report an invalid value in one line: source, key, value, what is allowed."""
    location = tuple(str(part) for part in detail["loc"])
    name = ".".join(location)
    if detail["type"] == "missing":
        return f"{name}: is required, set it in the YAML file or as {name}=…"
    source = next((values[key][1] for key in values if key[: len(location)] == location), None)
    for cut in range(len(location), 0, -1):  # an element of a list carries its list's source
        source = source or (values[location[:cut]][1] if location[:cut] in values else None)
    value = "" if SECRETS & set(location) else f"={_as_text(detail['input'])}"
    if detail["type"] == "extra_forbidden":
        return f"{source}: {name}{value}: no such setting, {_suggest(schema, name)}"
    reason = detail["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    if detail["type"] == "list_type":
        reason += f"; write {name}=a,b or {name}=[a, b], and in YAML {location[-1]}: [a, b]"
    if detail["type"] == "string_type":
        reason += f"; put quotes around it: {json.dumps(_as_text(detail['input']))}"
    return f"{source or 'default'}: {name}{value}: {reason}"


def _suggest(schema: type[BaseModel], name: str) -> str:
    """Return the hint for an unknown key: the nearest one, or else those of its section."""
    keys = [key for key, _, _ in describe_settings(schema)]
    section, _, last = name.rpartition(".")
    ends = {key.rpartition(".")[2]: key for key in reversed(keys)}
    if near := difflib.get_close_matches(name, [*keys, *schema.model_fields], 1, 0.6):
        return f"did you mean {near[0]}?"
    if near := difflib.get_close_matches(last, ends, 1, 0.75):
        return f"did you mean {ends[near[0]]}?"
    return f"known: {', '.join([key for key in keys if key.startswith(f'{section}.')] or keys)}"
