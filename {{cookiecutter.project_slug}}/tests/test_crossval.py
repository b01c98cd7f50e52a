"""Cross-validation: folds with the baselines on the same rows, and intervals over folds."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.experiments import studies
from {{ cookiecutter.package_name }}.files import read_document
from {{ cookiecutter.package_name }}.task import baseline
from {{ cookiecutter.package_name }}.training.folds import CrossValidation, estimate

from . import quick
from .conftest import CONFIG

FOLDER = Path("docs/experiments/crossval-c")


def test_crossval_measures_every_fold_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = quick.own_data(tmp_path / "own")
    command = ["crossval", "--config", str(CONFIG), "--folds", "3", "--name", "c", *settings]
    assert cli.main(command) == 0
    record = read_document(FOLDER / "crossval.json", CrossValidation)
    assert len(record.folds) == len({fold.fingerprint for fold in record.folds}) == 3
    assert len(record.baselines) >= len(baseline.names()) - 1
    values = [fold.network[record.metric] for fold in record.folds]
    assert record.network.mean == pytest.approx(np.mean(values))
    assert (FOLDER / "folds.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(Path("runs").rglob("*.safetensors"))
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    logged = client.search_runs([client.search_experiments()[0].experiment_id])
    parents = [run for run in logged if run.data.tags.get("folds") == "3"]
    assert len(parents) == 1
    inside = [r for r in logged if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(inside) == 3

    # A fold without evaluation, as after a kill, is the only one that is trained again.
    trained: list[str] = []
    real = studies.train_tracked
    monkeypatch.setattr(
        studies, "train_tracked", lambda run, *rest: trained.append(run.name) or real(run, *rest)
    )
    next(Path("runs").rglob("crossval-c-fold-2/evaluation.json")).unlink()
    assert cli.main(command) == 0
    assert trained == ["crossval-c-fold-2"]
    again = read_document(FOLDER / "crossval.json", CrossValidation)
    assert [fold.network for fold in again.folds] == [fold.network for fold in record.folds]
    assert cli.main([*command, "train.weight_decay=0.02"]) == 2
    assert "train.weight_decay=0.02 instead of" in capsys.readouterr().err


def test_interval_over_folds_counts_the_overlap_of_training_sets() -> None:
    values = np.array([0.8, 0.9, 1.0, 0.7, 0.85])
    low, high = estimate(values).interval
    naive = 2.776 * values.std(ddof=1) / np.sqrt(5)
    assert (high - low) / 2 == pytest.approx(1.5 * naive, rel=1e-3)  # √(1/5 + 1/4) = 1.5 / √5


def test_intervals_of_several_leads_are_wider_than_that_of_one() -> None:
    values = np.array([0.1, 0.3, 0.2])
    (low, high), (lowest, highest) = (estimate(values, n).interval for n in (1, 4))
    # Student's t with 2 degrees of freedom at 0.975 and at 1 - 0.025 / 4
    assert (highest - lowest) / (high - low) == pytest.approx(8.860 / 4.303, rel=0.001)
