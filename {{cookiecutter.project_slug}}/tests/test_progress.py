"""Long work is seen where no terminal shows a bar: a line now and then."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import cli, progress
from {{ cookiecutter.package_name }}.progress import ProgressLines
from {{ cookiecutter.package_name }}.training import runs

from .conftest import CONFIG
from .quick import QUICK


def test_a_line_is_printed_when_the_last_one_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    lines: list[str] = []
    report = ProgressLines(lines.append, seconds=10)
    for now in (1.0, 9.9, 10.0, 15.0, 19.9, 20.0, 21.0):
        report(f"{now:g}")
    assert lines == ["10", "20"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = 100.0
    report("a bar is there")
    assert len(lines) == 2


def test_training_reports_its_epochs_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "ProgressLines", partial(ProgressLines, seconds=0))
    overrides = [*QUICK, "train.seeds=0", "train.epochs=2"]
    assert cli.main(["train", "--config", str(CONFIG), *overrides]) == 0
    output = capsys.readouterr().out
    assert "seed-0: epoch 1 of 2, loss " in output
    assert " on validation, " in output


def test_output_to_a_pipe_comes_line_by_line() -> None:
    code = (
        f"import sys\nfrom {cli.__package__} import cli\n"
        "try:\n    cli.main(['--help'])\nfinally:\n    print(sys.stdout.line_buffering)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True"
