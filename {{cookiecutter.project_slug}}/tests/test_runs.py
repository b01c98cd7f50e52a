"""A command takes the newest finished run of its configuration, and says what it passes over."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle.deployment import read_deployment
from {{ cookiecutter.package_name }}.commands import common
from {{ cookiecutter.package_name }}.config import UserError, differences, load_settings
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import runs

from .conftest import CONFIG, FORCE

# A process that trains a run and does not end by itself.
HOLDER = """
import sys, time
from pathlib import Path
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import runs

config, run = map(Path, sys.argv[1:])
with runs.lock(runs.read_run(run, load_settings(Settings, config, (), {}))):
    print("training", flush=True)
    time.sleep(600)
"""
NEWER = "99990101-000000"  # after every run of the tests


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, overrides, {})


@pytest.fixture
def finished(work: Path) -> str:
    """The name of the finished run of the tests' configuration."""
    (path,) = work.glob("runs/*/run.json")
    return path.parent.name


def copy_run(work: Path, first: str, change: Callable[[Path, dict], object]) -> None:
    """Add a newer copy of a run, changed by `change(folder, content of run.json)`."""
    folder = shutil.copytree(work / "runs" / first, work / "runs" / NEWER)
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    change(folder, content)
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")


def other_name(_: Path, content: dict) -> None:
    content["settings"]["name"] = "another"


def other_data(_: Path, content: dict) -> None:
    data = content["settings"]["data"]
    data |= {"test_share": 0.3} if "test_share" in data else {"folds": 7}


def not_finished(folder: Path, _: dict) -> None:
    next(folder.glob("seed-1/best.safetensors")).unlink()


def in_the_middle(folder: Path, _: dict) -> None:
    path = folder / "seed-0" / "history.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epoch": 1}))


def old_settings(_: Path, content: dict) -> None:
    content["settings"]["data"]["no_longer_there"] = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_name, "name=another instead of"),
        (other_data, "data."),
        (not_finished, f"not finished; go on with: train --resume {NEWER}"),
        (in_the_middle, "not finished"),
        (old_settings, "data.no_longer_there=1: no such setting"),
    ],
)
def test_newer_run_that_does_not_fit_is_skipped_and_told(
    work: Path,
    finished: str,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, dict], object],
    reason: str,
) -> None:
    copy_run(work, finished, change)
    assert cli.main(["deploy", "--config", str(CONFIG)]) == 0
    output = capsys.readouterr().out
    assert read_deployment(work / "deployment").champion.version == finished
    assert f"skipped run {NEWER}: " in output
    assert reason in output
    assert f"run {finished}\n" in output


def test_bare_command_follows_the_last_training_and_tells_its_data(
    work: Path, finished: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.Run, "dataset", lambda run: None)
    (work / common.DEFAULT_CONFIG.parent).mkdir()
    shutil.copy(CONFIG, work / common.DEFAULT_CONFIG)
    copy_run(work, finished, other_data)

    def chosen(*arguments: str) -> str:
        options = cli.build_parser().parse_args(["deploy", *arguments])
        return common.open_run_with_data(options)[0].name

    assert chosen() == NEWER
    line = capsys.readouterr().out
    assert line.startswith(f"run {NEWER} (data.")
    assert "instead of" in line
    assert chosen("--config", str(common.DEFAULT_CONFIG)) == finished


def test_damaged_run_is_skipped(work: Path, finished: str) -> None:
    copy_run(work, finished, lambda folder, content: None)
    (work / "runs" / NEWER / "run.json").write_text("{")
    lines: list[str] = []
    assert runs.open_run(settings(), echo=lines.append).name == finished
    assert "not valid JSON" in lines[0]


def test_every_table_of_an_evaluation_is_preceded_by_a_blank_line(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--config", str(CONFIG)]) == 0
    printed = capsys.readouterr().out.splitlines()
    heads = [number - 1 for number, line in enumerate(printed) if line.startswith("|--")]
    assert len(heads) > 1
    assert [printed[head] for head in heads if printed[head - 1]] == []


def test_no_run_of_the_configuration_is_refused_with_a_list_and_a_way_on(
    work: Path, finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (work / "deployment" / "deployment.json").read_bytes()
    for command in ("evaluate", "report", "deploy"):
        assert cli.main([command, "--config", str(CONFIG), "name=another"]) == 2
        first, second = capsys.readouterr().err.splitlines()
        assert "no finished run of this configuration (another); train one, or name" in first
        assert "with --run RUN or --config FILE" in first
        assert f"skipped run {finished}: name=" in second
    assert (work / "deployment" / "deployment.json").read_bytes() == before
    assert cli.main(["deploy", "--config", str(CONFIG), "name=another", "--run", finished]) == 0


def test_long_lists_of_runs_are_shortened(work: Path, finished: str) -> None:
    for number in range(9):
        shutil.copytree(work / "runs" / finished, work / "runs" / f"x{number}")
    with pytest.raises(UserError) as caught:
        runs.open_run(settings("name=another"))
    assert len(str(caught.value).splitlines()) == 7
    assert str(caught.value).endswith("and 5 more")


def test_resume_takes_the_newest_run_of_the_name_finished_or_not(work: Path, finished: str) -> None:
    copy_run(work, finished, not_finished)
    assert runs.open_run(settings(), resume=True).name == NEWER
    with pytest.raises(UserError, match=r"no run of this name \(another\)"):
        runs.open_run(settings("name=another"), resume=True)


def test_run_that_another_process_trains_is_refused_until_that_one_has_ended(
    work: Path, finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["train", "--config", str(CONFIG), "--resume", finished]
    command = [sys.executable, "-c", HOLDER, str(CONFIG), str(work / "runs" / finished)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "training\n"
        before = tracked_status(work, finished)
        assert cli.main(resume) == 2
        assert tracked_status(work, finished) == before
        other.kill()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: run {finished}: process {other.pid} on ")
    assert cli.main(resume) == 0


def tracked_status(work: Path, run: str) -> str:
    client = MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (tracked,) = client.search_runs(experiments, f"attributes.run_name = '{run}'")
    return tracked.info.status


def test_deploy_says_that_it_replaces_a_model_of_other_data(
    work: Path, finished: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_run(work, finished, other_name)
    assert cli.main(["deploy", "--config", str(CONFIG)]) == 0
    assert "note: replaces" not in capsys.readouterr().out
    assert cli.main(["deploy", "--config", str(CONFIG), "--run", NEWER, *FORCE]) == 0
    note = f"note: replaces {finished}, a model of other data: name=another instead of "
    assert note in capsys.readouterr().out


def test_differences_name_what_both_have() -> None:
    these = {"name": "a", "data": {"size": 1, "new": 2, "same": [1]}}
    others = {"name": "b", "data": {"size": None, "same": [1]}}
    assert differences(these, others) == ["name=a instead of b", "data.size=1 instead of null"]
