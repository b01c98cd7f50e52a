"""A task pack that lacks a member fails `make check` with an error that names the member."""

import subprocess
from pathlib import Path

import pytest
from conftest import cookiecutter

# module of `task/`, start of the definition to rename, words of the type checker's error
LACKING = [
    ("data.py", "def load(", '"load" is not present'),
    ("data.py", "def encode_labelled(", '"Splits.encode_labelled" is not implemented'),
    ("model.py", "def describe(", '"describe" is not present'),
    ("objective.py", "def slices(", '"slices" is not present'),
    ("objective.py", "PRIMARY_METRIC =", '"PRIMARY_METRIC" is not present'),
    ("objective.py", "PROPER_SCORE =", '"PROPER_SCORE" is not present'),
    ("baseline.py", "def names(", '"names" is not present'),
    ("contract.py", "def decode(", '"BaseContract.decode" is not implemented'),
    ("contract.py", "def item_from_file(", '"item_from_file" is not present'),
    ("figures.py", "def plot_results(", '"plot_results" is not present'),
    ("inspection.py", "def inspect(", '"inspect" is not present'),
    ("simulate.py", "def shifted_requests(", '"shifted_requests" is not present'),
]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory, environment: Path) -> str:
    """The type checker's output for a project whose pack lacks all of these members."""
    folder = tmp_path_factory.mktemp("lacking")
    done = cookiecutter(folder, "--no-input", "project_name=lacking", "task=recommendation")
    assert done.returncode == 0, done.stderr
    project = folder / "lacking"
    for module, definition, _ in LACKING:
        path = project / "src" / "lacking" / "task" / module
        text = path.read_text(encoding="utf-8")
        assert text.count(definition) == 1
        is_function = definition.startswith("def ")
        renamed = definition.replace("def ", "def other_") if is_function else f"OTHER_{definition}"
        path.write_text(text.replace(definition, renamed), encoding="utf-8")
    # Of the files that `make check` checks, those that have to name the members.
    files = ["src/lacking/task", "tests/test_interfaces.py", "tests/test_simulate.py"]
    command = ["basedpyright", "--pythonpath", str(environment / "python"), *files]
    checked = subprocess.run(
        [environment / command[0], *command[1:]], cwd=project, capture_output=True, text=True
    )
    assert checked.returncode == 1, checked.stdout + checked.stderr
    return checked.stdout


@pytest.mark.parametrize(("module", "definition", "words"), LACKING)
def test_missing_member_is_named(errors: str, module: str, definition: str, words: str) -> None:
    assert words in errors
