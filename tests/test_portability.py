"""Projects hold on other systems, with other interpreters and with other versions of libraries."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import demo
import lock
import pytest
import yaml
from conftest import FORMS, OVERLAYS, PROJECT, ROOT, TASKS, bake, pyproject
from pytest_cookies.plugin import Cookies

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
PLATFORMS = ["x86_64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"]
# A project's command whose own modules see Windows, as far as Python can show it elsewhere: what
# only Unix has is not there. The libraries have been imported before, and see this system.
ON_WINDOWS = """
import importlib, pkgutil, sys, types

ABSENT = {
    "asyncio": ["open_unix_connection", "start_unix_server"],
    "os": ["fork", "geteuid", "getuid", "killpg", "pread", "sched_getaffinity", "setpriority"],
    "signal": ["SIGHUP", "SIGKILL"],
    "socket": ["AF_UNIX"],
    "socketserver": ["ThreadingUnixStreamServer"],
    "sys": [],
    **dict.fromkeys(["fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"]),
}


def like_windows(name, absent):
    if absent is None:
        return None  # ModuleNotFoundError
    module = types.ModuleType(name)
    module.__dict__.update(vars(importlib.import_module(name)))
    if name == "sys":
        module.platform = "win32"
    for attribute in absent:
        delattr(module, attribute)
    return module


path = importlib.import_module("ml_project").__path__
names = [found.name for found in pkgutil.walk_packages(path, "ml_project.")]
names = [name for name in names if ".migrations" not in name]  # only Alembic can run these
for name in names:
    importlib.import_module(name)
for name in ["ml_project", *names]:
    del sys.modules[name]
libraries = dict(sys.modules)
sys.modules.update({name: like_windows(name, absent) for name, absent in ABSENT.items()})
for name in names:
    importlib.import_module(name)
for name in ABSENT:
    del sys.modules[name]
sys.modules.update(libraries)
sys.exit(sys.modules["ml_project.cli"].main())
"""


def run(folder: Path, *command: object, **variables: str) -> str:
    """Run a command that works; return what it prints."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}"
    return done.stdout


def on_windows(project: Path, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a program that runs the project's commands as on Windows."""
    monkeypatch.setenv("PYTHONPATH", str(project / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    program = project / "build" / "on-windows"
    program.parent.mkdir()
    program.write_text(f"#!{environment / 'python'}\n{ON_WINDOWS}", encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("task", TASKS)
def test_every_module_can_be_imported_on_windows(
    cookies: Cookies, environment: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    project = bake(cookies, task=task)
    shown = run(project, on_windows(project, environment, monkeypatch), "serve", "--help")
    assert re.search(r"database_url=none\b", shown)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_the_main_commands_work_on_windows(
    cookies: Cookies, environment: Path, monkeypatch: pytest.MonkeyPatch, task: str, form: str
) -> None:
    project = bake(cookies, task=task, mlops=form)
    program = on_windows(project, environment, monkeypatch)
    config = project / "configs" / "default.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    code = "from tests.quick import QUICK; print(*QUICK, sep='\\n')"
    for setting in run(project, environment / "python", "-c", code).splitlines():
        (section, _, name), value = (
            setting.partition("=")[0].partition("."),
            setting.partition("=")[2],
        )
        settings.setdefault(section, {})[name] = yaml.safe_load(value)
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for command in ("train", "evaluate", "report"):
        run(project, program, command)
    run(project, program, "deploy", "--force", "--reason", "trained for seconds")
    assert "predictions" in run(project, program, "predict")
    with demo.server(project, program) as url:
        run(project, program, "predict", "--url", url)
    log = (project / "runs" / "server.log").read_text(encoding="utf-8")
    assert ("WSL" in log) == (form == "full")
    assert not list(project.glob("predictions.db*"))


@pytest.mark.parametrize("task", TASKS)
def test_the_type_checker_needs_no_optional_library(cookies: Cookies, task: str) -> None:
    """Otherwise `make check` fails in a fresh clone: only the template's tests install them all."""
    project = bake(cookies, task=task)
    content = pyproject(project)
    extras = content["project"]["optional-dependencies"]
    required = [*content["project"]["dependencies"], *extras.pop("train")]
    required += [*content["dependency-groups"]["dev"], "fsspec"]  # that PyTorch brings
    optional = [name for extra in extras.values() for name in extra]
    there, missing = (
        {re.split(r"[~<>=;\[ ]", name)[0] for name in names} for names in (required, optional)
    )
    for path in project.glob("src/**/*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.match(r"\s*(?:from|import) (\w+)", line)
            if found and found[1] in missing - there:
                assert "ignore[reportMissingImports]" in line, f"{path.name}: {line}"


def test_files_are_read_as_utf_8_on_every_system() -> None:
    """Without an encoding, a file is read in that of the system."""
    rule = ["--preview", "--select", "PLW1514", "--config", ROOT / "ruff.toml"]
    run(ROOT, Path(sys.executable).with_name("ruff"), "check", *rule, PROJECT, "scripts", "hooks")


def test_zizmor_finds_nothing_in_the_template_s_workflows() -> None:
    zizmor = Path(sys.executable).with_name("zizmor")
    run(ROOT, zizmor, "--offline", "--no-progress", ".github")


def test_no_job_has_a_name_that_gitlab_reserves() -> None:
    path = OVERLAYS / "ci" / "gitlab" / "files" / ".gitlab-ci.yml"
    names = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert not names & {"image", "services", "cache", "before_script", "after_script", "include"}


def test_hooks_run_the_environment_s_own_programs(cookies: Cookies, environment: Path) -> None:
    project = bake(cookies)
    (project / ".venv").symlink_to(environment.parent)
    unused = project / "src" / "ml_project" / "unused.py"
    unused.write_text("import os\n", encoding="utf-8")
    run(project, "git", "add", "--all")
    folders = {str(Path(found).parent) for found in map(shutil.which, ("git", "sh")) if found}
    variables = {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(project / "src")}
    variables["SKIP"] = "types"  # ten seconds
    command = [environment / "pre-commit", "run", "--all-files"]
    done = subprocess.run(command, cwd=project, env=os.environ | variables, capture_output=True)
    assert done.returncode == 1
    assert unused.read_text(encoding="utf-8") == ""  # ruff has mended it
    run(project, "git", "add", "--all")
    run(project, *command, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("resolution", ["locked", "lowest-direct", "highest"])
def test_every_library_has_a_wheel_for_every_python_and_system(
    tmp_path: Path, resolution: str, python: str, platform: str
) -> None:
    if not shutil.which("uv"):
        pytest.skip("uv is not installed")
    merged, constraints = lock.all_tasks(tmp_path / "tasks")
    # PyTorch's own index has its builds; the one that pip knows need not have all of them.
    everything = tomllib.loads(merged)["dependency-groups"]["dev"]
    wanted = [name for name in everything if not name.startswith("torch")]
    (tmp_path / "requirements.in").write_text("\n".join(wanted), encoding="utf-8")
    (tmp_path / "constraints.txt").write_text(constraints, encoding="utf-8")
    command = ["uv", "pip", "compile", "--quiet", "--only-binary", ":all:", "--upgrade"]
    command += ["--python-version", python, "--python-platform", platform, "requirements.in"]
    locked = resolution == "locked"
    command += ["--constraint", "constraints.txt"] if locked else ["--resolution", resolution]
    run(tmp_path, *command, MACOSX_DEPLOYMENT_TARGET="14.0")  # the oldest of onnxruntime's wheels
