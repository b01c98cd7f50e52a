"""Write docs/reference/ from the code: every question, every setting, every server variable.

    python scripts/reference.py

Questions come from cookiecutter.json and the overlays, settings from the classes of generated
projects, with the descriptions that `train --help` and `serve --help` print. The list of decisions
comes from their titles.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from cookiecutter.generate import generate_context
from cookiecutter.main import cookiecutter
from cookiecutter.prompt import prompt_for_config
from pydantic import BaseModel

TEMPLATE = Path(__file__).parents[1]
DOCS = TEMPLATE / "docs"
OVERLAYS = TEMPLATE / "templates" / "_overlays"
NOTE = "<!-- Written by make reference from {}: do not edit. -->\n"
FULL = " (`mlops: full`)"
HEAD = "| Setting | Default | Values | Meaning |\n|---|---|---|---|\n"
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
OTHERS = {"multipleOf": "multiple of {}", "pattern": "matching `{}`"}
NOT_EMPTY = {"minLength", "minItems"}


class Setting(NamedTuple):
    """A row of a table of settings."""

    key: str
    default: str
    values: str
    text: str

    def row(self, key: str | None = None) -> str:
        text = self.text.replace("<", "&lt;")
        cells = f"`{key or self.key}`", self.default, self.values, text
        escaped = (cell.replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(escaped) + " |\n"


class Project(NamedTuple):
    """What a generated project says of its settings: by key, and each section's docstring."""

    settings: dict[str, Setting]
    sections: dict[str, str]
    server: dict[str, Setting]


def main() -> int:
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(TEMPLATE)}")
    return 0


def pages() -> dict[str, str]:
    """Map each page that is written from code, by its path below docs/, to its text."""
    tasks = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))["task"]
    with tempfile.TemporaryDirectory() as folder:
        full = {task: read_project(Path(folder), task, "full") for task in tasks}
        basic = read_project(Path(folder), tasks[0], "basic")
    first = full[tasks[0]]
    same = [
        section
        for section in first.sections
        if all(_of(project, section) == _of(first, section) for project in full.values())
    ]
    texts = {"reference/questions.md": _questions(), "reference/server.md": _server(first, basic)}
    texts["decisions/index.md"] = _decisions()
    alone = "".join(s.row() for key, s in first.settings.items() if "." not in key)
    texts["reference/settings.md"] = f"{SETTINGS}\n{HEAD}{alone}" + _sections(first, same, basic)
    for task, project in full.items():
        own = [section for section in project.sections if section not in same]
        about = f"\n# Settings of {task}\n\n{OWN}\n"
        texts[f"reference/settings-{task}.md"] = (
            NOTE.format("the settings classes") + about + _sections(project, own, project)
        )
    return texts


SETTINGS = (
    NOTE.format("the settings classes")
    + """
# Settings of every task

A setting is set in a file (`train --config configs/mine.yaml`), in the environment \
(`APP_RETRAIN__NEW_LABELS=500`) or on the command line (`retrain.new_labels=500`); the last one \
wins. `train --help` prints these tables. The sections `data`, `model`, `objective` and `train` \
differ by task: [image-classification](settings-image-classification.md), \
[text-classification](settings-text-classification.md), [forecasting](settings-forecasting.md), \
[recommendation](settings-recommendation.md).
"""
)
OWN = "What every task has besides is in [settings of every task](settings.md), with how to set it."


def read_project(folder: Path, task: str, mlops: str) -> Project:
    """Generate a project and read its settings classes."""
    answers = {"project_name": f"{mlops} {task}", "task": task, "mlops": mlops}
    made = cookiecutter(
        str(TEMPLATE),
        no_input=True,
        extra_context=answers,
        output_dir=str(folder),
        default_config=True,
    )
    (package,) = (path.name for path in (Path(made) / "src").iterdir())
    sys.path.insert(0, str(Path(made) / "src"))
    try:
        config = import_module(f"{package}.config")
        schema = import_module(f"{package}.task.settings").Settings
        server = import_module(f"{package}.serving.wiring").ServerSettings
    finally:
        sys.path.pop(0)
    return Project(
        {setting.key: setting for setting in _settings(config, schema)},
        {
            name: field.annotation.__doc__ or ""
            for name, field in schema.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        },
        {setting.key: setting for setting in _settings(config, server)},
    )


def _settings(config: Any, schema: type[BaseModel]) -> Iterator[Setting]:
    """Yield every setting of a schema, with the defaults and texts that `--help` prints."""
    searched = dict(config.search_space(schema))
    for key, default, text in config.describe_settings(schema):
        *parents, name = key.split(".")
        owner: Any = schema
        for parent in parents:
            owner = owner.model_fields[parent].annotation
        described = owner.model_json_schema()["properties"][name]
        extras = [
            f"environment: `{extra.name}`"
            for extra in owner.model_fields[name].metadata
            if isinstance(extra, config.Variable)
        ]
        if key in searched:
            extras.append(f"`tune` tries `{searched[key]}`")
        shown = f"`{default}`" if default not in ("", "required") else default or "none"
        values = ", ".join(dict.fromkeys([_kind(described), *_limits(described)]))
        yield Setting(key, shown, values, "; ".join([text, *extras]))


def _kind(schema: dict[str, Any]) -> str:
    """Name the type of a JSON schema in a word or two."""
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    kind = schema.get("type", "any")
    if "prefixItems" in schema:
        return "[" + ", ".join(map(_kind, schema["prefixItems"])) + "]"
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    names = {"boolean": "`true` or `false`", "null": "`null`", "string": "text", "object": "map"}
    return "path" if schema.get("format") == "path" else names.get(kind, kind)


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    """Yield what a JSON schema demands of a value beyond its type."""
    for name, sign in LIMITS.items():
        if name in schema:
            yield f"{sign} {schema[name]:,}"
    if "prefixItems" not in schema and NOT_EMPTY & schema.keys():
        yield "not empty"
    for name, form in OTHERS.items():
        if name in schema:
            yield form.format(schema[name])
    for inner in [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]:
        yield from _limits(inner)


def _of(project: Project, section: str) -> list[Setting]:
    return [s for key, s in project.settings.items() if key.startswith(f"{section}.")]


def _sections(project: Project, names: list[str], basic: Project) -> str:
    text = ""
    for name in names:
        form = "" if name in basic.sections else FULL
        text += f"\n## {name}{form}\n\n{project.sections[name].splitlines()[0]}\n\n{HEAD}"
        for setting in _of(project, name):
            alone = "" if form or setting.key in basic.settings else FULL
            text += setting._replace(text=setting.text + alone).row()
    return text


def _server(project: Project, basic: Project) -> str:
    text = NOTE.format("the server's settings class")
    text += "\n# Settings of the server\n\nEnvironment variables of `serve` and of the container. "
    text += "On the command line the same in lower case and without `APP_`: `serve port=8080`. "
    text += "`serve --help` prints this table; `NAME_FILE` names a file for a secret.\n\n"
    text += HEAD.replace("Setting", "Variable")
    for key, setting in project.server.items():
        form = "" if key in basic.server else FULL
        text += setting._replace(text=setting.text + form).row(f"APP_{key.upper()}")
    return text


def _questions() -> str:
    context = generate_context(str(TEMPLATE / "cookiecutter.json"))
    asked = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    defaults = prompt_for_config(context, no_input=True)
    prompts = asked["__prompts__"]
    text = NOTE.format("cookiecutter.json and the overlays")
    text += "\n# Questions\n\nWhat `cookiecutter` asks, in its order. "
    text += "Everything else is a [setting](settings.md) of the generated project.\n"
    for name, raw in asked.items():
        if name.startswith("_"):
            continue
        prompt = prompts[name]
        question = prompt["__prompt__"] if isinstance(prompt, dict) else prompt
        text += f"\n## {name}\n\n{question}.\n".replace("?.", "?")
        if not isinstance(raw, list):
            follows = " (follows from the answers before)" if "{{" in str(raw) else ""
            text += f"\nDefault: `{defaults[name]}`{follows}\n"
            continue
        text += "\n| Answer | Meaning | Files that only it adds |\n|---|---|---|\n"
        for number, value in enumerate(raw):
            default = " (default)" if number == 0 else ""
            meaning = prompt[value].removeprefix(f"{value}: ")
            text += f"| `{value}`{default} | {meaning} | {_added(name, value)} |\n"
    return text


def _added(question: str, value: str) -> str:
    """List the files of an answer's overlay, whole folders with their number of files."""
    overlay = OVERLAYS / question / value
    shared = overlay / "also"
    also = shared.read_text(encoding="utf-8").split() if shared.exists() else []
    found: dict[str, int] = {}
    for place in (overlay, *(OVERLAYS / question / name for name in also)):
        for path in sorted(place.glob("**/files/**/*")):
            if path.is_file():
                name = path.as_posix().rpartition("/files/")[2]
                name = name.replace("{{cookiecutter.package_name}}", "<package>")
                parts = name.split("/")[:-1]
                depth = 3 if parts[:1] == ["src"] else 2
                group = "/".join(parts[:depth]) + "/" if parts else name
                found[group] = found.get(group, 0) + 1
    shown = [f"`{name}`" + (f" ({n})" if name.endswith("/") else "") for name, n in found.items()]
    return ", ".join(shown) or "none"


def _decisions() -> str:
    text = NOTE.format("the titles of this folder")
    text += "\n# Decisions\n\nChoices that somebody will question again, with the reason and the "
    text += "figures that they rest on.\n\n"
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        text += f"- [{title}]({path.name})\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
