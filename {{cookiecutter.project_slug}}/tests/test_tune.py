"""Tuning looks at validation alone, and no trial is lost, whoever is killed."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from optuna.storages import RetryHeartbeatStaleTrialCallback

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import (
    load_settings,
    parse_search,
    search_space,
    with_values,
)
from {{ cookiecutter.package_name }}.files import read_document
from {{ cookiecutter.package_name }}.task import objective
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import dataset, runs, trial_values, tuning
from {{ cookiecutter.package_name }}.training.fit import Interrupted

from .conftest import CONFIG
from .quick import QUICK

SEARCH = ["--search", "train.weight_decay", "--search", "model.dropout=0.1,0.2"]
# A worker that stops in the middle of a trial, to be killed there.
WORKER = """
import sys, time
from pathlib import Path
from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.training import tuning
tuning.HEARTBEAT, tuning.GRACE, train_run = 1, 2, tuning.train_run

def slow(run, dataset, on_epoch):
    def wait(job, state):
        on_epoch(job, state)
        if job.name.startswith("seed-"):
            Path("mid-trial").touch()
            time.sleep(600)
    return train_run(run, dataset, wait)

tuning.train_run = slow
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tune(*arguments: str) -> int:
    return cli.main(["tune", "--config", str(CONFIG), "--study", "s", *arguments, *QUICK])


def record() -> tuning.TuneRecord:
    return read_document(Path("docs/experiments/tune-s/tune.json"), tuning.TuneRecord)


def test_every_searched_setting_is_valid_at_its_ends_and_listed_by_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, space = load_settings(Settings, CONFIG, (), {}), dict(search_space(Settings))
    assert len(space) >= 5
    with pytest.raises(SystemExit):
        cli.main(["tune", "--help"])
    text = capsys.readouterr().out
    for key, search in space.items():
        assert f"{key}={search}" in text
        ends = search.choices or trial_values.ends(settings, key, search)
        assert all(with_values(settings, {key: value}, "test") for value in ends)
    assert trial_values.values_inside(settings, space).keys() == space.keys()  # of the first trial


def test_trials_are_measured_on_validation_logged_and_leave_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[Any] = []
    measured: list[Any] = []
    load, metrics = dataset.load_data, objective.metrics
    monkeypatch.setattr(dataset, "load_data", lambda s: loaded.append(load(s)) or loaded[-1])
    monkeypatch.setattr(
        objective, "metrics", lambda o, split, c: measured.append(split) or metrics(o, split, c)
    )
    assert tune("--trials", "3", *SEARCH) == 0
    assert measured
    assert all(split is loaded[0].validation for split in measured)
    found = record()
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    best = (max if found.higher_is_better else min)(trial.value or 0.0 for trial in found.trials)
    assert found.trials[found.best].value == best
    assert found.before == found.trials[0].value
    assert not list(Path("runs").rglob("*.safetensors"))
    assert "train.weight_decay=" in found.command
    assert found.command in capsys.readouterr().out
    page = Path("docs/experiments/tune-s/README.md").read_text(encoding="utf-8")
    assert found.command in page
    assert Path("docs/experiments/tune-s/history.png").read_bytes()[:4] == b"\x89PNG"
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    logged = client.search_runs([client.search_experiments()[0].experiment_id])
    children = [run for run in logged if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 3
    assert {run.data.params["train.weight_decay"] for run in children} == {
        str(trial.settings["train.weight_decay"]) for trial in found.trials
    }

    # The same command again has nothing to do; more trials go on; another search is refused.
    assert tune("--trials", "3", *SEARCH) == 0
    assert len(record().trials) == 3
    assert tune("--trials", "4", *SEARCH) == 0
    assert [trial.value for trial in record().trials[:3]] == [t.value for t in found.trials]
    assert tune("--trials", "5", "--search", "train.weight_decay") == 2
    assert "--study NAME" in capsys.readouterr().err


def test_a_killed_workers_first_trial_is_taken_over_and_not_pruned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--config", str(CONFIG), "--study", "s", "--trials", "3", *SEARCH, *QUICK]
    with subprocess.Popen([sys.executable, "-c", WORKER, "tune", *arguments]) as worker:
        deadline = time.monotonic() + 600
        while not Path("mid-trial").exists():
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        worker.kill()
    monkeypatch.setattr(tuning, "HEARTBEAT", 1)
    monkeypatch.setattr(tuning, "GRACE", 2)
    monkeypatch.setattr(tuning.optuna.Trial, "should_prune", lambda trial: True)
    assert tune("--trials", "3", *SEARCH) == 0
    trials = record().trials
    assert trials[0].state == "interrupted"
    assert sorted(t.state for t in trials) == ["complete", "interrupted", "pruned", "pruned"]
    (complete,) = (trial for trial in trials if trial.state == "complete")
    assert trials[0].settings == complete.settings
    assert record().before == complete.value
    assert not list(Path("runs").rglob("*.safetensors"))


@pytest.mark.filterwarnings("ignore:Heartbeat of storage", "ignore:.* is experimental")
def test_a_trial_whose_worker_is_only_asleep_begins_anew_beside_it() -> None:
    settings = load_settings(Settings, CONFIG, QUICK, {})
    space = dict([parse_search(Settings, "train.weight_decay")])
    study = tuning.Study(settings, "s", space, dataset.load_data(settings))
    first = study.study.ask()
    with study._locked_run(first.number, settings) as asleep:
        RetryHeartbeatStaleTrialCallback()(study.study, study._trial(first.number))
        again = study.study.ask()
        with study._locked_run(again.number, settings) as run:
            assert run.folder != asleep.folder
            study._remove_folders(study.study.get_trials(deepcopy=False))
            assert run.folder.exists()
            assert asleep.folder.exists()
    with study._locked_run(again.number, settings) as run:
        assert run.folder == asleep.folder


def test_a_stopped_trial_is_queued_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(tuning, "train_run", stop)
    assert tune("--trials", "2", *SEARCH) == 1
    assert "go on with the same command" in capsys.readouterr().err
    monkeypatch.setattr(tuning, "train_run", runs.train_run)
    assert tune("--trials", "2", *SEARCH) == 0
    trials = record().trials
    assert [trial.state for trial in trials] == ["interrupted", "complete", "complete"]
    assert trials[0].settings == trials[1].settings


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--search", "train.lrr"], "did you mean train.lr?"),
        (["--search", "train.lr=-1..1"], "train.lr=-1.0"),
        (["--search", "train.lr=2..1"], "low < high"),
        (["--search", "train.lr=0..1:log"], "0 < low < high"),
        (["--search", "train.lr=a..b"], "must be numbers"),
        (["--search", "train.clip_norm"], "has no values beside its setting"),
        (["--search", "paths.runs=a,b"], "not be comparable"),
        (["--search", "train.epochs=2,3"], "both given and searched"),
        (["--seeds", "9"], "train.seeds has only 2"),
        (["paths.studies=nonsense"], "paths.studies"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert tune(*arguments) != 0
    assert reason in capsys.readouterr().err
