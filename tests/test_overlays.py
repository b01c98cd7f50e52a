"""Options are overlays: folders that are laid over the core, and nothing else."""

import ast
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import lock
import names
import pytest
import yaml
from conftest import FORMS, OVERLAYS, PROJECT, ROOT, TASKS, bake, bake_anew, pyproject
from jinja2 import Environment
from pytest_cookies.plugin import Cookies

TEMPLATE = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
CHOICES = {name: values for name, values in TEMPLATE.items() if isinstance(values, list)}
CHOICES.pop("_copy_without_render")
LICENSES = CHOICES["license"]  # meet no other answer, so they take turns
COMBINATIONS = [
    dict(zip(CHOICES, values, strict=True)) | {"license": LICENSES[number % len(LICENSES)]}
    for number, values in enumerate(
        itertools.product(*({**CHOICES, "license": LICENSES[:1]}).values())
    )
]
SERVER = {"monitoring", "serving", "store"}  # folders and files that must do without `train`
SERVER |= {"contract.py", "load.py", "manifest.py", "reference.py"}
# Folders and files that import what an extra brings, and say so where it is missing.
EXTRAS = {"batch", "mnist.py", "pretrained.py", "remote.py", "tracing.py"}
KINDS = ("files", "parts", "also")  # what an overlay may hold, beside nested overlays
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it was built
# Built from parts, so that this file does not hold them.
STUBS = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error", "lorem" + " ipsum"]


def files(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder but git's own, with its content."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path: (folder / path).read_bytes() for path in found if path.parts[0] != ".git"}


def overlays() -> list[Path]:
    """Every overlay, nested ones too: the folders that hold `files`, `parts` or `also`."""
    return sorted({path.parent for kind in KINDS for path in OVERLAYS.rglob(kind)})


def chosen_by(overlay: Path) -> dict[str, str]:
    """The answers that an overlay belongs to, by question."""
    names = overlay.relative_to(OVERLAYS).parts
    return dict(zip(names[::2], names[1::2], strict=True))


def can_meet(one: Path, other: Path) -> bool:
    """Whether a project can get both; a shared overlay (`_…`) meets every value of its question."""
    first, second = chosen_by(one), chosen_by(other)
    return all(
        first[question] == second[question] or "_" in (first[question][0], second[question][0])
        for question in first.keys() & second.keys()
    )


def test_every_choice_has_its_overlay_and_every_overlay_its_choice() -> None:
    questions = {path.name for path in OVERLAYS.iterdir()}
    assert questions == set(CHOICES)
    for question in questions:
        folders = list((OVERLAYS / question).iterdir())
        assert {path.name for path in folders if path.name[0] != "_"} == set(CHOICES[question])
    for overlay in overlays():
        assert {path.name for path in overlay.iterdir()} <= {*KINDS, *CHOICES}
        for question, value in chosen_by(overlay).items():
            assert value[0] == "_" or value in CHOICES[question]


def test_every_shared_overlay_is_used_and_every_used_one_is_there() -> None:
    shared = {path for path in OVERLAYS.glob("*/_*") if path.is_dir()}
    used = [
        also.parents[1] / name
        for also in OVERLAYS.glob("*/*/also")
        for name in also.read_text(encoding="utf-8").split()
    ]
    assert shared == set(used)


def test_every_choice_is_explained() -> None:
    for question, values in CHOICES.items():
        assert set(TEMPLATE["__prompts__"][question]) == {"__prompt__", *values}


def test_no_overlay_takes_the_place_of_a_core_file() -> None:
    core = set(files(PROJECT))
    for overlay in overlays():
        assert not core & set(files(overlay / "files"))


def test_overlays_that_can_meet_write_different_files() -> None:
    for one, other in itertools.combinations(overlays(), 2):
        if can_meet(one, other):
            assert not set(files(one / "files")) & set(files(other / "files")), f"{one} {other}"


def test_every_overlay_of_a_question_has_the_same_parts() -> None:
    for question in OVERLAYS.iterdir():
        parts = [
            {path.name for path in (question / value / "parts").glob("*")}
            for value in CHOICES[question.name]
        ]
        assert all(found == parts[0] for found in parts)


def test_the_template_s_python_is_plain_python() -> None:
    tests = re.compile(r"^from \{\{ cookiecutter\.package_name \}\}([.a-z_]* import )", re.M)
    for path in [*PROJECT.rglob("*.py"), *OVERLAYS.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if "tests" in path.relative_to(ROOT).parts:
            text = tests.sub(r"from package\1", text)
            assert not re.search(r"\{\{|\{%|\{#", text), path
        compile(text, path, "exec")


@pytest.mark.parametrize("answers", COMBINATIONS, ids=lambda answers: "-".join(answers.values()))
def test_every_combination_bakes_into_files_that_parse(
    cookies: Cookies, answers: dict[str, str]
) -> None:
    project = bake_anew(cookies, **answers)
    baked = files(project)
    assert pyproject(project)["project"]["name"] == "ml-project"
    assert not [path for path in baked if "_overlays" in path.parts or "cookiecutter" in str(path)]
    for path, content in baked.items():
        if path.suffix in (".png", ".npz"):
            continue
        text = content.decode()
        assert "cookiecutter." not in text, path
        if path.suffix == ".j2":  # the project's own templates
            Environment().parse(text)
        else:
            assert not re.search(r"(?<!\$)\{\{ |\{%", text), path
        assert text.endswith("\n") or not text, path
        assert not text.endswith("\n\n"), path
        if path.suffix in (".yaml", ".yml"):
            # composed, not constructed: CloudFormation has tags of its own
            assert all(yaml.compose_all(text, YAML)), path
        if path.suffix == ".json":
            assert json.loads(text), path


@pytest.mark.parametrize("slug", ["yes", "null"])
@pytest.mark.parametrize(("ci", "cloud"), [("github", "aws"), ("gitlab", "none")])
def test_a_name_that_yaml_would_read_as_something_else_stays_text(
    cookies: Cookies, ci: str, cloud: str, slug: str
) -> None:
    chosen = {"package_name": "package_name", "ci": ci, "cloud": cloud}
    plain, strange = (bake(cookies, **chosen, project_slug=name) for name in ("plain-name", slug))
    expected = [(tag, value.replace("plain-name", slug)) for tag, value in yaml_scalars(plain)]
    assert ("tag:yaml.org,2002:str", slug) in expected
    assert yaml_scalars(strange) == expected


def yaml_scalars(project: Path) -> list[tuple[str, str]]:
    """Return type and text of every scalar in the project's YAML files."""
    paths = sorted(path.relative_to(project) for path in project.rglob("*.y*ml"))
    todo = [
        node
        for path in paths
        for node in yaml.compose_all((project / path).read_text(encoding="utf-8"), YAML)
    ]
    found = []
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.ScalarNode):
            found.append((node.tag, node.value))
        elif isinstance(node, yaml.MappingNode):
            todo += [part for pair in node.value for part in pair]
        else:
            todo += node.value
    return found


def test_a_licence_is_the_one_that_was_chosen(cookies: Cookies) -> None:
    beginnings = {
        "MIT": "MIT License",
        "Apache-2.0": "Apache License",
        "BSD-3-Clause": "BSD 3-Clause License",
        "Proprietary": "Copyright",
    }
    for name, beginning in beginnings.items():
        project = bake(cookies, license=name)
        text = (project / "LICENSE").read_text(encoding="utf-8")
        assert text.lstrip().startswith(beginning)
        identifier = pyproject(project)["project"]["license"]
        assert identifier == name or name == "Proprietary"
        assert name in (project / "README.md").read_text(encoding="utf-8")


def test_the_same_answers_give_the_same_files(cookies: Cookies) -> None:
    first, second = bake_anew(cookies), bake_anew(cookies)
    assert files(first) == files(second)


def test_the_project_is_a_repository_of_its_own_without_a_commit(cookies: Cookies) -> None:
    project = bake(cookies)
    git = ["git", "-C", str(project)]
    top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    assert Path(top.stdout.strip()).resolve() == project.resolve()
    assert subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True).returncode != 0


def test_nothing_is_left_to_be_filled_in(cookies: Cookies) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    baked = bake(cookies)
    paths = [ROOT / name for name in tracked.stdout.splitlines()]
    paths += [baked / name for name in files(baked)]
    for path in paths:
        if path.suffix not in (".png", ".npz") and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [word for word in STUBS if word in text], path


def test_overlays_hold_no_jinja_but_the_four_names() -> None:
    names = "package_name|project_slug|github_username|docs_url"
    blank = re.compile(r"\{\{ ?cookiecutter\.(" + names + r") ?\}\}")
    for overlay in overlays():
        for path, content in files(overlay / "files").items():
            if b"cookiecutter" in content or path.suffix == ".py":
                text = blank.sub("", content.decode())
                assert "cookiecutter" not in text, path
                assert "{%" not in text, path


def test_the_task_is_all_that_a_task_pack_adds_to_the_package() -> None:
    packages = list((OVERLAYS / "task").rglob("src/{{cookiecutter.package_name}}"))
    assert {package.relative_to(OVERLAYS).parts[2] for package in packages} == {"files", "mlops"}
    for package in packages:
        assert [path.name for path in package.glob("*")] == ["task"]


@pytest.mark.parametrize("task", TASKS)
def test_basic_project_has_no_prediction_log(cookies: Cookies, task: str) -> None:
    project = bake(cookies, task=task, mlops="basic")
    folders = {path.name for path in (project / "src" / "ml_project").iterdir() if path.is_dir()}
    assert {"training", "serving", "release"} <= folders
    assert not folders & {"store", "monitoring", "lifecycle"}
    serving = required(pyproject(project)["project"]["dependencies"])
    assert "fastapi" in serving
    assert not serving & {"sqlalchemy", "alembic", "psycopg"}


@pytest.fixture(scope="module")
def owners(environment: Path) -> dict[str, set[str]]:
    """Each importable module's distributions, as the environment of all tasks has them."""
    code = "import json, importlib.metadata as m; print(json.dumps(m.packages_distributions()))"
    done = subprocess.run([environment / "python", "-c", code], capture_output=True, check=True)
    return {name: set(map(plain, found)) for name, found in json.loads(done.stdout).items()}


def test_names_of_everything_installed_are_refused(environment: Path) -> None:
    taken = set(
        names.HOOK.read_text(encoding="utf-8").partition('TAKEN = set(\n    """')[2].split()
    )
    (proposed,) = re.findall(r"taken = ' ([a-z0-9_ ]*) '", TEMPLATE["project_slug"])
    assert set(proposed.split()) <= taken
    for found in (names.installed(environment / "python"), sys.stdlib_module_names):
        missing = set(filter(names.possible, found)) - set(proposed.split())
        assert not missing, f"run: scripts/names.py {environment / 'python'}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_everything_imported_is_required_where_it_is_used(
    cookies: Cookies, owners: dict[str, set[str]], task: str, form: str
) -> None:
    project = bake(cookies, task=task, mlops=form)
    content = pyproject(project)
    serving = required(content["project"]["dependencies"])
    training = serving | required(content["project"]["optional-dependencies"]["train"])
    everything = required(lock.requirements(content))
    for path in sorted((project / "src").rglob("*.py")) + sorted((project / "tests").glob("*.py")):
        parts = path.relative_to(project).parts
        if {"tests", *EXTRAS} & {*parts}:
            allowed = everything
        else:
            allowed = serving if SERVER & {*parts} else training
        if "pydantic" in allowed:  # which requires just one version of its core
            allowed = {*allowed, "pydantic_core"}
        for module in imported(path):
            own = module in ("ml_project", "scripts") or module in sys.stdlib_module_names
            assert own or owners.get(module, {module}) & allowed, f"{path.name}: {module}"


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports by name, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def required(requirements: list[str]) -> set[str]:
    return {plain(re.split(r"[~<>=;\[ ]", requirement)[0]) for requirement in requirements}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()
