"""Load typed settings: YAML file < environment < command line, the last one wins.

A setting in a section is `train.lr`, as an environment variable `APP_TRAIN__LR`. A schema without
sections, the server's, has `port` and `APP_PORT`. Each invalid value is reported in one line with
its source, its key and what is allowed.
"""

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

ENV_PREFIX = "APP_"
SECRETS = {"api_keys", "database", "database_url"}  # never printed; a URL may hold a password
# Never parsed as JSON: a key or a folder's name may look like a number.
TEXT = {*SECRETS, "cors_origins", "deployment", "deployment_dir"}

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


def load_settings(
    schema: type[S],
    path: Path | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] = os.environ,
) -> S:
    """Load `schema` from the sources. Raises UserError with one line per invalid value."""
    sections, variables = has_sections(schema), dict(_variables(schema))
    values: SourcedValues = {}
    if path is not None:
        values |= {key: (value, str(path)) for key, value in _leaves(_read_yaml(path))}
    for name, text in env.items():
        if name in variables:
            _put(values, variables[name], text, f"${name}")
        if sections and name.startswith(ENV_PREFIX) and "__" in name:
            key = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _put(values, key, text, f"${name}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            form = "section.key=value, for example train.epochs=5" if sections else "key=value"
            raise UserError(f"command line: {override!r} is not of the form {form}")
        _put(values, tuple(name.split(".")), text, "command line")
    return validate(schema, values)


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
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = (_explain(schema, detail, values) for detail in error.errors())
        raise UserError("\n".join(lines)) from None


def describe_settings(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (key, default, description) of every setting, for `--help`."""
    for name, field in schema.model_fields.items():
        if section := _section(field.annotation):
            yield from describe_settings(section, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else _as_text(field.get_default())
            yield f"{prefix}{name}", default, field.description or ""


def flatten(settings: BaseModel) -> dict[str, str]:
    """Map every setting's `section.key` to its value as text."""
    tree = settings.model_dump(mode="json")
    return {".".join(key): _as_text(value) for key, value in _leaves(tree)}


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


def _put(values: SourcedValues, key: KeyPath, text: str, source: str) -> None:
    """Replace a key, and those below it, by a value: JSON (`0.1`, `[1, 2]`) or else text."""
    for old in [old for old in values if old[: len(key)] == key]:
        del values[old]
    value: Any = text
    if key[-1] not in TEXT:
        with suppress(ValueError):
            value = json.loads(text)
    values[key] = (value, source)


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
    if detail["type"] == "extra_forbidden":
        keys = [key for key, _, _ in describe_settings(schema)]
        near = difflib.get_close_matches(name, [*keys, *schema.model_fields], 1, 0.6)
        section = [key for key in keys if key.startswith(f"{location[0]}.")]
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(section or keys)}"
        return f"{source}: {name}={_as_text(detail['input'])}: no such setting, {hint}"
    reason = detail["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    value = "" if SECRETS & set(location) else f"={_as_text(detail['input'])}"
    return f"{source or 'default'}: {name}{value}: {reason}"
