"""What is baked works: its own checks and tests pass, and it goes from data to a prediction."""

import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    CHECKS,
    FROM_OWN_DATA,
    NAMES,
    ROOT,
    TASK_FORMS,
    TASKS,
    WHOLE,
    bake,
    bake_named,
    demo_of,
    pyproject,
    run,
)
from PIL import Image
from pytest_cookies.plugin import Cookies

SLOW = [
    pytest.param(task, marks=pytest.mark.slow) for task in TASKS if task != "image-classification"
]


@pytest.mark.parametrize(("task", "form"), TASK_FORMS)
@pytest.mark.parametrize("check", CHECKS)
def test_it_passes_its_own_checks(
    checks: dict[Any, Future[str]], check: str, task: str, form: str
) -> None:
    output = checks[check, task, form].result()
    if check == "tests":
        found = re.match(r"(\d+) passed", output.splitlines()[-1])
        fewest = 100 if form == "full" or (task, form) in WHOLE else len(FROM_OWN_DATA)
        assert found, output[-500:]
        assert int(found[1]) >= fewest
    if check == "types":
        assert "0 errors, 0 warnings" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("task", "form"), TASK_FORMS)
def test_it_passes_its_own_checks_under_every_name(
    tmp_path: Path, environment: Path, task: str, form: str, name: str
) -> None:
    project = bake_named(tmp_path, name, task, form)
    for command in CHECKS.values():
        run(project, environment, *command)


@pytest.fixture(scope="session", params=["image-classification", *SLOW])
def project(request: pytest.FixtureRequest) -> Path:
    """The task's demo project; its environment is kept between runs."""
    return demo_of(request.param)


@pytest.fixture(scope="session")
def demo_output(project: Path) -> str:
    """What the demo prints: train, evaluate, report, deploy, serve, ask, stop."""
    task, folder = project.parent.name, project.parent
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), "--task", task, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_network_is_compared_with_baselines_on_the_same_split_over_several_seeds(
    project: Path, demo_output: str
) -> None:
    (evaluation,) = project.glob("runs/*/evaluation.json")
    found = json.loads(evaluation.read_text(encoding="utf-8"))
    assert len(found["network"]["seeds"]) >= 3
    assert len(found["baselines"]) >= 3
    unbeaten = [name for name, row in found["baselines"].items() if row["ahead_interval"][0] <= 0]
    (claim,) = {line for line in demo_output.splitlines() if "best baseline" in line}
    assert all(name in claim for name in unbeaten)
    assert unbeaten or "The network is ahead" in claim
    if project.name == "digit-reader":
        assert not unbeaten


def test_the_readme_shows_what_was_measured_with_pictures_that_exist(
    project: Path, demo_output: str
) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^\| \*\*Network\*\* +\|", readme, re.M)
    pictures = re.findall(r"!\[.*?\]\((?!https:)(.*?)\)", readme)  # the badge is elsewhere
    assert len(pictures) >= 3
    for name in pictures:
        with Image.open(project / name) as picture:
            extremes = picture.convert("L").getextrema()
            assert extremes[0] != extremes[1], name
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (project / link).exists(), link


def test_real_requests_are_answered_and_the_server_ends(project: Path, demo_output: str) -> None:
    assert '"predictions"' in demo_output
    assert "100 requests answered" in demo_output
    assert "server stopped with code 0" in demo_output
    assert not processes_of(project)


def test_the_demo_says_where_to_look(project: Path, demo_output: str) -> None:
    *_, ending = demo_output.partition("━━━")
    for path in ("README.md", "MODEL_CARD.md"):
        assert str(project / path) in ending
    (pictures,) = re.findall(r"^pictures +(.*)$", ending, re.M)
    assert list(Path(pictures).glob("*.png"))


def test_git_does_not_see_what_running_leaves_behind(project: Path, demo_output: str) -> None:
    status = ["git", "status", "--short", "--untracked-files=all"]
    seen = subprocess.run(status, cwd=project, capture_output=True, text=True, check=True)
    names = {line[3:].split("/")[0] for line in seen.stdout.splitlines()}
    made = {"runs", "deployment", "mlruns", "mlartifacts", "mlflow.db", "predictions.db", ".venv"}
    assert not names & {*made, "feedback", "loop"}


def test_the_loop_goes_from_drift_to_the_promotion_of_a_better_model(
    project: Path, demo_output: str
) -> None:
    done = subprocess.run(
        ["make", "loop"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    steps = dict(re.findall(r"^\| (\S[^|]*?) +\| (\S[^|]*?) +\|$", done.stdout, re.M))
    assert "no drift found" in done.stdout
    assert "drifted: " in done.stdout
    normal, shifted, after = (
        float(steps[step].split()[-1])
        for step in ("normal traffic", "distribution shift", "after promotion")
    )
    assert abs(normal - after) < abs(normal - shifted), "the new model is no better"
    assert "promote after" in steps["A/B test"]
    history = (project / "loop" / "deployment" / "history.jsonl").read_text(encoding="utf-8")
    actions = [json.loads(line)["action"] for line in history.splitlines()]
    assert actions[0] == "deploy"
    assert actions[-1] == "promote"
    section = (project / "README.md").read_text(encoding="utf-8").partition("<!-- loop:begin")[2]
    section = section.partition("<!-- loop:end")[0]
    for step in ("normal traffic", "A/B test", "after promotion"):
        assert f"| {step} " in section
    (name,) = re.findall(r"!\[.*?\]\((.*?)\)", section)
    with Image.open(project / name) as picture:
        assert picture.width > 800
    ignored = subprocess.run(["git", "check-ignore", name], cwd=project)
    assert ignored.returncode == 1, "the figure would not be committed"
    assert not processes_of(project)


def test_the_demo_leaves_a_folder_alone_that_it_did_not_make(tmp_path: Path) -> None:
    mine = tmp_path / "digit-reader" / "README.md"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert str(mine.parent) in done.stderr
    assert mine.read_text() == "mine"


def processes_of(project: Path) -> list[str]:
    """Commands still running from the project's environment (where /proc tells)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(project / ".venv") in command:
            found.append(command)
    return found


def commands_of(project: Path, environment: Path) -> set[str]:
    """What the command line of a project offers."""
    package = project.name.replace("-", "_")
    text = run(project, environment, "python", "-m", f"{package}.cli", "--help")
    commands = set(re.findall(r"^    ([a-z]+) ", text, re.M))
    assert {"train", "rollback"} <= commands
    return commands


@pytest.mark.parametrize("task_form", TASK_FORMS, ids="-".join)
def test_make_help_and_the_command_line_list_the_same_commands(
    projects: dict[tuple[str, str], Path], environment: Path, task_form: tuple[str, str]
) -> None:
    project = projects[task_form]
    make = subprocess.run(["make", "help"], cwd=project, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^  ([a-z]+) ", make.stdout, re.M))
    commands = commands_of(project, environment)
    assert commands <= targets
    assert ("retrain" in commands) == (task_form[1] == "full")


@pytest.mark.parametrize("task_form", TASK_FORMS, ids="-".join)
def test_every_command_of_the_readmes_exists(
    projects: dict[tuple[str, str], Path], environment: Path, task_form: tuple[str, str]
) -> None:
    project = projects[task_form]
    commands, targets = commands_of(project, environment), set[str]()
    # The template's README also says what to type in a project, a full one.
    for folder in (project, ROOT) if task_form[1] == "full" else (project,):
        text = (folder / "README.md").read_text(encoding="utf-8")
        targets |= set(re.findall(r"^([a-z]+):", (folder / "Makefile").read_text(), re.M))
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
            for line in block.splitlines():
                words = line.split()
                if words and words[0] == "make":
                    assert words[1] in targets, line
                if words and words[0] == project.name:
                    assert words[1] in commands, line
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), link


def test_setup_does_nothing_the_second_time(project: Path, demo_output: str) -> None:
    command = [sys.executable, "scripts/setup.py", "--no-dev"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_setup_names_the_command_that_failed(tmp_path: Path, cookies: Cookies) -> None:
    project = bake(cookies)
    content = (project / "pyproject.toml").read_text(encoding="utf-8")
    broken = content.replace('"numpy~=2.4"', '"numpy~=99.0"')
    assert broken != content
    (project / "pyproject.toml").write_text(broken, encoding="utf-8")
    command = [sys.executable, "scripts/setup.py", "--no-uv", "--no-dev"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 1
    assert "numpy" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: this command failed")
    assert not (project / ".venv" / "setup-stamp").exists()


def installed(project: Path, *arguments: str) -> set[str]:
    """name==version of what setup installs in a project."""
    shutil.rmtree(project / ".venv", ignore_errors=True)
    subprocess.run([sys.executable, "scripts/setup.py", *arguments], cwd=project, check=True)
    code = (
        "from importlib.metadata import distributions as d\n"
        "print(*(f'{x.name.lower().replace(chr(95), chr(45))}=={x.version}' for x in d()))"
    )
    python = next((project / ".venv").glob("*/python*"))
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if not re.match("pip=|setuptools=|wheel=", name)}


@pytest.mark.slow
def test_uv_and_pip_make_the_same_environment(cookies: Cookies) -> None:
    if not shutil.which("uv"):
        pytest.skip("uv is not installed")
    project = bake(cookies)
    with_uv, with_pip = installed(project), installed(project, "--no-uv")
    assert with_uv == with_pip
    pinned = set(re.findall(r"^[a-z0-9-]+==", (project / "constraints.txt").read_text(), re.M))
    loose = {line for line in with_pip if line.partition("==")[0] + "==" not in pinned}
    assert loose == {f"ml-project=={pyproject(project)['project']['version']}"}


@pytest.mark.slow
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ digit-reader serve"):
                process.send_signal(signal.SIGINT)
    assert process.returncode != 0
    assert not processes_of(tmp_path / "digit-reader")
