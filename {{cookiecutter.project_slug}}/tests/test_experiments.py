"""Runs are documented in MLflow, the README, the model card and figures."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.image import imread
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.experiments import report
from {{ cookiecutter.package_name }}.files import read_document, write_figure
from {{ cookiecutter.package_name }}.task import baseline as task_baseline
from {{ cookiecutter.package_name }}.task.objective import PRIMARY_METRIC
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training.documents import Evaluation, RunInfo

from .conftest import CONFIG
from .quick import QUICK


def rewrite(*arguments: str) -> int:
    return cli.main(["report", "--config", str(CONFIG), *arguments])


def test_every_number_in_the_readme_is_in_the_evaluation(trained: Path) -> None:
    text = (trained / "README.md").read_text(encoding="utf-8")
    evaluation = read_document(next(trained.glob("runs/*/evaluation.json")), Evaluation)
    assert report.results_summary(evaluation) in text
    for name, baseline in evaluation.baselines.items():
        line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
        assert report._number(baseline.metrics[PRIMARY_METRIC]) in line
        assert baseline.verdict in line


def test_settings_that_may_help_are_named_where_a_baseline_is_better(trained: Path) -> None:
    evaluation = read_document(next(trained.glob("runs/*/evaluation.json")), Evaluation)
    settings = load_settings(Settings, CONFIG)
    advice = task_baseline.advice(settings)
    assert advice
    for setting in advice:
        assert load_settings(Settings, CONFIG, [setting]) != settings
    advised = evaluation.model_copy(update={"advice": advice})
    for setting, reason in advice.items():
        assert f"`{setting}` ({reason})" in report.results_summary(advised)
    behind = any(result.ahead < 0 for result in evaluation.baselines.values())
    assert bool(evaluation.advice) == behind


def test_readme_shows_every_picture_and_the_commands_that_made_it(trained: Path) -> None:
    text = (trained / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(pictures) >= 3  # comparison, curves and at least one of the task
    for picture in pictures:
        assert (trained / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    run = next(trained.glob("runs/*")).name
    assert f"report --run {run}" in text
    assert "trained by `" in text


def test_model_card_states_origin_quality_and_settings(trained: Path) -> None:
    text = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    info = read_document(next(trained.glob("runs/*/run.json")), RunInfo)
    assert info.data.fingerprint[:16] in text
    assert f"| {info.hardware}, " in text
    assert "| `train.epochs`" in text
    assert "### Quality on the test split" in text


def test_model_card_begins_with_the_metadata_of_hugging_face(trained: Path) -> None:
    text = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    (model,) = metadata["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"]
    assert result["dataset"]["type"]
    assert result["dataset"]["name"]
    evaluation = read_document(next(trained.glob("runs/*/evaluation.json")), Evaluation)
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values[PRIMARY_METRIC] == pytest.approx(evaluation.network.mean[PRIMARY_METRIC])
    assert PRIMARY_METRIC in metadata["metrics"]


@pytest.mark.parametrize("front", ["", "---\nlicense: mit # mine\ntags:\n- own\n---\n"])
def test_metadata_and_text_of_a_person_stay_in_the_model_card(work: Path, front: str) -> None:
    card = work / "MODEL_CARD.md"
    body = f"\n# My card\n\n{report.RESULTS_BEGIN}\n{report.RESULTS_END}\nmy end\n"
    card.write_text(front + body, encoding="utf-8")
    assert rewrite() == 0
    text = card.read_text(encoding="utf-8")
    assert text.startswith(front.removesuffix("---\n") or "---\nmetrics:\n")
    assert "---\n\n# My card\n" in text or "---\n\n\n# My card\n" in text
    assert text.endswith("my end\n")
    assert rewrite() == 0
    assert card.read_text(encoding="utf-8") == text


def test_text_outside_of_the_markers_is_kept(work: Path) -> None:
    page = work / "README.md"
    before, after = page.read_text(encoding="utf-8").split(report.RESULTS_BEGIN)
    rest = after.split(report.RESULTS_END)[1]
    page.write_text(
        f"# Mine ✨\n\n{report.RESULTS_BEGIN}old{report.RESULTS_END}\nmy end", encoding="utf-8"
    )
    assert rewrite() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Mine ✨\n\n{report.RESULTS_BEGIN}")
    assert text.endswith(f"{report.RESULTS_END}\nmy end")
    assert "old" not in text.split(report.RESULTS_BEGIN)[1].split("\n")[0]
    assert before
    assert rest is not None


def test_reporting_twice_changes_nothing(work: Path) -> None:
    assert rewrite() == 0
    first = {p: p.read_bytes() for p in work.rglob("*") if p.suffix in (".md", ".png")}
    assert rewrite() == 0
    assert {p: p.read_bytes() for p in work.rglob("*") if p.suffix in (".md", ".png")} == first


@pytest.mark.parametrize(
    "text", ["no markers", report.RESULTS_BEGIN, report.RESULTS_END + report.RESULTS_BEGIN]
)
def test_page_without_markers_is_named_and_nothing_is_written(
    work: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {p: p.read_bytes() for p in work.rglob("*.md")}
    (work / "MODEL_CARD.md").write_text(text)
    assert rewrite() == 2
    assert "MODEL_CARD.md: must hold these two lines once" in capsys.readouterr().err
    del pages[work / "MODEL_CARD.md"]
    assert all(page.read_bytes() == content for page, content in pages.items())
    assert (work / "MODEL_CARD.md").read_text() == text


def test_mlflow_holds_a_parent_run_and_one_child_per_seed(trained: Path) -> None:
    client = MlflowClient(f"sqlite:///{trained / 'mlflow.db'}")
    experiment = client.search_experiments(filter_string="name LIKE '%'")[0]
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {"seed-0", "seed-1"} <= {run.data.tags["part"] for run in children}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(parent.data.tags["data_fingerprint"]) == 64
    assert f"test_{PRIMARY_METRIC}" in parent.data.metrics
    assert any(name.startswith("baseline_") for name in parent.data.metrics)
    for child in children:
        history = client.get_metric_history(child.info.run_id, "loss")
        assert [metric.step for metric in history] == list(range(1, len(history) + 1))
        assert len(history) <= int(parent.data.params["train.epochs"])


def test_registry_has_the_champion_and_deploying_again_adds_nothing(work: Path) -> None:
    assert cli.main(["deploy", "--config", str(CONFIG)]) == 0
    client = MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    model = client.search_registered_models()[0]
    versions = client.search_model_versions(f"name = '{model.name}'")
    assert len(versions) == 1
    champion = client.get_model_version_by_alias(model.name, "champion")
    assert champion.tags["bundle"] == next(work.glob("runs/*")).name
    assert len(list((work / "deployment/bundles").iterdir())) == 1


def test_two_processes_can_create_the_database_at_once(tmp_path: Path) -> None:
    code = (
        f"from {cli.__package__}.experiments.tracking import Tracker\n"
        f"from {cli.__package__}.task.settings import Settings\n"
        "Tracker(Settings(name='both'))"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()


KILLED_IN_A_MIGRATION = """
import os
from sqlalchemy import event
from sqlalchemy.engine import Engine

def kill(connection, cursor, statement, *others):
    if statement.strip().startswith("DROP TABLE"):  # of a table that was copied to change it
        os._exit(9)

event.listen(Engine, "before_cursor_execute", kill)
"""


def test_a_kill_while_mlflow_makes_its_tables_leaves_no_broken_database(tmp_path: Path) -> None:
    code = (
        f"from {cli.__package__}.experiments.tracking import Tracker\n"
        f"from {cli.__package__}.task.settings import Settings\n"
        "Tracker(Settings(name='kept'))"
    )
    for kill, ends in ((KILLED_IN_A_MIGRATION, 9), ("", 0)):
        command = [sys.executable, "-c", kill + code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == ends, done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'kept'")
    assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert not list(tmp_path.glob("*mlflow.db-journal"))


def test_a_database_whose_migration_was_killed_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("mlflow.db")) as connection:  # as it is after the first one
        connection.execute("CREATE TABLE metrics (key, value, timestamp, run_uuid, step)")
    assert cli.main(["train", "--config", str(CONFIG), *QUICK]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert f"{tmp_path / 'mlflow.db'} does not answer: duplicate column name: step" in line
    assert "move the file away" in line
    assert (tmp_path / "mlflow.db").exists()


def test_error_for_an_unreachable_mlflow_names_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    assert cli.main(["train", "--config", str(CONFIG), *QUICK]) == 1
    assert "error: MLflow at sqlite:////proc/nowhere/mlflow.db" in capsys.readouterr().err


def test_a_picture_has_the_same_bytes_each_time_and_an_opaque_white_edge(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        figure = Figure(figsize=(4, 3), layout="constrained", facecolor="none")
        figure.subplots().plot([1, 2, 3], label="a line")
        write_figure(tmp_path / name, figure)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    pixels = imread(tmp_path / "first.png")
    sides = (pixels[:12], pixels[-12:], pixels[:, :12], pixels[:, -12:])
    assert all(np.all(side == 1) for side in sides)
