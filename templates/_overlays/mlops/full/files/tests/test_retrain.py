"""From the log to a new champion: retrained, compared, tested, promoted, and all of it recorded."""

import json
import shutil
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from {{ cookiecutter.package_name }}.arrays import Arrays
from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle import load as bundles
from {{ cookiecutter.package_name }}.bundle.deployment import Challenger
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.experiments import tracked_runs
from {{ cookiecutter.package_name }}.interfaces import LabelledItem
from {{ cookiecutter.package_name }}.lifecycle import gate, retrain
from {{ cookiecutter.package_name }}.monitoring import online
from {{ cookiecutter.package_name }}.release import rollout
from {{ cookiecutter.package_name }}.store.database import Database
from {{ cookiecutter.package_name }}.store.feedback import record_feedback
from {{ cookiecutter.package_name }}.store.feedback_schema import Feedback
from {{ cookiecutter.package_name }}.store.write import (
    PredictionRow,
    insert_predictions,
)
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.training import feedback_data, runs

from .conftest import CONFIG, kill_in_training
from .labelled import SETTINGS, content, original, pairs, settings, short_blocks, widened
from .test_rollout import aliases, deployed, history, own_registry, run

__all__ = ["original", "pairs", "short_blocks"]  # fixtures


def log_traffic(folder: Path, pairs: list[LabelledItem]) -> None:
    """Log what the champion predicts, a request a second until now, with its feedback."""
    bundle = bundles.load_bundle(*deployment_folder.champion_path(folder / "deployment"))
    contract, items = bundle.contract, [item for item, _ in pairs]
    inputs = contract.encode(items)
    outputs = bundle.run(inputs)
    features, stats = contract.features(inputs), contract.prediction_stats(outputs)
    predictions = contract.decode(outputs, items)

    def cell(arrays: Arrays, place: int) -> str:
        return json.dumps({name: [array[place].item()] for name, array in arrays.items()})

    start = time.time() - len(pairs)
    with closing(Database(f"sqlite:///{folder / 'predictions.db'}")) as database:
        database.migrate()
        rows = [
            PredictionRow(
                request_id=f"r-{place}",
                at=start + place,
                model_version=bundle.version,
                variant="champion",
                test=None,
                unit=f"{place % 50:x}",
                items=1,
                milliseconds=1.0,
                features=cell(features, place),
                outcomes=cell(stats, place),
                output=json.dumps([predictions[place].model_dump()]),
                input=json.dumps([item.model_dump(exclude_unset=True)]),
            )
            for place, item in enumerate(items)
        ]
        assert insert_predictions(database, rows) == len(rows)
        feedback = [
            Feedback(request_id=f"r-{place}", truth=truth) for place, (_, truth) in enumerate(pairs)
        ]
        assert record_feedback(database, feedback, contract.score_json).new == len(rows)


class Killed(Exception):
    """Stands for the end of the process."""


def die(*_: Any, **__: Any) -> None:
    raise Killed


def run_retrain(*arguments: str) -> int:
    flags = [one for one in arguments if one.startswith("--")]
    return run("retrain", *flags, *SETTINGS, *(one for one in arguments if one not in flags))


def run_names(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("runs/*/run.json")}


@pytest.fixture(scope="module")
def challenged(
    trained: Path, pairs: list[LabelledItem], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which a retrain was killed at every step, and repeated each time.

    In the middle of the training by a real SIGKILL. So that every task ends alike, the gate sees
    the challenger better than it is.
    """
    folder = tmp_path_factory.mktemp("challenged") / "work"
    shutil.copytree(trained, folder)
    log_traffic(folder, pairs)
    steps = [
        (tracked_runs, "evaluate"),
        (retrain, "run_gate"),
        (rollout, "stage_bundle"),
        (deployment_folder, "write_deployment"),
        (retrain, "clear_pending"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        own_registry(patch, folder)
        with pytest.MonkeyPatch.context() as deadly:
            deadly.setattr(runs, "create_run", die)
            with pytest.raises(Killed):
                run_retrain("--if-needed")
        flags = ["--if-needed", "--config", str(CONFIG)]
        kill_in_training(folder, "retrain", *flags, *SETTINGS, "train.seeds=[0]", "train.epochs=5")
        real = gate.compare_slices
        patch.setattr(gate, "compare_slices", lambda pairs: favoured(real(pairs), 0.01))
        for module, name in steps:
            with pytest.MonkeyPatch.context() as deadly:
                deadly.setattr(module, name, die)
                with pytest.raises(Killed):
                    run_retrain("--if-needed")
            assert (folder / "runs" / retrain.JOURNAL).exists()
            assert (deployed(folder).challenger is not None) == (name == "clear_pending")
        assert run_retrain("--if-needed") == 0
    return folder


def favoured(slices: list[gate.SliceComparison], low: float) -> list[gate.SliceComparison]:
    """The comparisons as they would be if no slice was worse and overall had this lower bound."""
    overall, *others = (replace(each, high=max(each.high, 0.0)) for each in slices)
    others = [replace(each, low=min(each.low, low)) for each in others]
    return [replace(overall, low=low, high=max(overall.high, low)), *others]


@pytest.fixture
def tested(challenged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    folder = tmp_path / "work"
    shutil.copytree(challenged, folder)
    own_registry(monkeypatch, folder)
    return folder


@pytest.fixture
def idle(work: Path, pairs: list[LabelledItem], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with labels in which nothing was retrained yet."""
    own_registry(monkeypatch, work)
    log_traffic(work, pairs)
    return work


def challenger_of(folder: Path) -> Challenger:
    challenger = deployed(folder).challenger
    assert challenger is not None
    return challenger


def test_retrain_killed_at_any_step_is_finished_by_the_next_call(
    trained: Path, tested: Path
) -> None:
    """One decision, one file of labels, one run, one version: nothing was done twice or lost."""
    (new,) = run_names(tested) - run_names(trained)
    assert json.loads((tested / "runs" / new / "seed-0/history.json").read_text())["epoch"] > 2
    assert len(list(tested.glob("feedback/*"))) == 1
    assert [line["outcome"] for line in history(tested, "decide")] == ["retrain"]
    champion = deployed(tested).champion
    assert champion == deployed(trained).champion
    assert challenger_of(tested).version == new
    assert (challenger_of(tested).mode, challenger_of(tested).share) == ("split", 0.1)
    assert aliases(tested) == {"champion": champion.version, "challenger": new}
    assert not (tested / "runs" / retrain.JOURNAL).exists()
    bundle = deployment_folder.bundle_path(tested / "deployment", challenger_of(tested))
    bundles.load_bundle(bundle, challenger_of(tested).manifest_sha256)
    about = json.loads((tested / "runs" / new / "run.json").read_text())
    assert not Path(about["settings"]["live"]["feedback"]).is_absolute()


def test_history_records_who_did_what_when_and_why(tested: Path) -> None:
    for action in ("decide", "gate", "challenge"):
        line = history(tested, action)[-1]
        assert line["who"]
        assert datetime.fromisoformat(line["at"]).tzinfo is not None
        assert line["reason"]
    assert history(tested, "decide")[-1]["reason"].startswith("retrain: ")
    compared = history(tested, "gate")[-1]
    assert compared["passed"] is True
    assert compared["low"] == 0.01


def test_gate_compares_on_data_that_neither_model_was_trained_on(
    tested: Path, original: Dataset
) -> None:
    champion = runs.open_run(settings(), deployed(tested).champion.version)
    challenger = runs.open_run(settings(), challenger_of(tested).version)
    new = challenger.dataset()
    count = len(next(iter(original.test.values())))
    for name, array in widened(original.test, new.test).items():
        np.testing.assert_array_equal(new.test[name][:count], array)
    trained_on = content(new.train)
    assert content(widened(champion.dataset().train, new.train)) <= trained_on
    duplicates = content(original.train) & content(original.test)  # in the data as it came
    assert len(trained_on & content(new.test)) <= len(duplicates)
    path = challenger.settings.live.feedback
    assert path is not None
    splits = [row.split for row in feedback_data.read_feedback_rows(path)]
    result = json.loads((challenger.folder / "gate.json").read_text())
    assert {part["name"] for part in result["parts"]} > {gate.OVERALL}
    assert len(next(iter(new.test.values()))) == count + splits.count("test")


def test_nothing_is_retrained_while_an_ab_test_runs(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_names(tested)
    assert run_retrain() == 0
    output = capsys.readouterr().out
    assert "not retraining yet: " in output
    assert f"the A/B test of {challenger_of(tested).version} is still running" in output
    assert history(tested, "decide")[-1]["outcome"] == "a test is running"
    assert run_names(tested) == before


def test_second_of_two_retrains_does_nothing(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_names(idle)
    with FileLock(idle / "runs" / retrain.LOCK_FILE):
        assert run_retrain() == 0
    assert "another retrain is already running; nothing done" in capsys.readouterr().out
    assert run_names(idle) == before
    assert history(idle, "decide") == []


def test_no_trigger_is_recorded_and_nothing_happens(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_names(work)
    assert run_retrain("--if-needed") == 0
    assert "not needed: no trigger fired" in capsys.readouterr().out
    assert [line["outcome"] for line in history(work, "decide")] == ["not needed"]
    assert run_names(work) == before


def test_drift_without_enough_labels_waits(idle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_retrain("--if-needed", "retrain.least_labels=5000", "retrain.new_labels=20") == 0
    output = capsys.readouterr().out
    assert "not retraining yet: " in output
    assert "of the 5000 new labels needed" in output
    assert history(idle, "decide")[-1]["outcome"] == "waits for labels"


def test_rejected_challenger_changes_nothing_and_its_labels_trigger_nothing_again(
    idle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (idle / "deployment/deployment.json").read_bytes()
    real = gate.compare_slices
    monkeypatch.setattr(gate, "compare_slices", lambda pairs: favoured(real(pairs), -0.01))
    assert run_retrain("--if-needed", "train.seeds=[0]", "train.epochs=1") == 0
    output = capsys.readouterr().out
    assert "challenger rejected, the champion stays: not significantly better overall" in output
    assert (idle / "deployment/deployment.json").read_bytes() == before
    assert list(aliases(idle)) == ["champion"]
    assert history(idle, "gate")[-1]["passed"] is False
    runs_before = run_names(idle)
    rejected = history(idle, "gate")[-1]
    assert "override" not in rejected
    assert run_retrain("--if-needed") == 0
    assert history(idle, "decide")[-1]["outcome"] != "retrain"
    assert run_names(idle) == runs_before


def test_gate_is_overridden_by_name_and_reason(
    idle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = gate.compare_slices
    monkeypatch.setattr(gate, "compare_slices", lambda pairs: favoured(real(pairs), -0.01))
    overrides = ["train.seeds=[0]", "train.epochs=1"]
    flags = ["--override", "the old shop is closed"]
    assert run("retrain", *flags, *SETTINGS, *overrides) == 0
    assert "the gate is overridden (the old shop is closed): not " in capsys.readouterr().out
    line = history(idle, "gate")[-1]
    assert (line["passed"], line["override"]) == (False, "the old shop is closed")
    assert line["who"]
    assert history(idle, "challenge")[-1]["reason"].startswith("gate overridden, the old shop")
    assert challenger_of(idle).version == line["version"]


def test_journal_without_its_data_is_ignored(work: Path) -> None:
    pending = retrain.PendingRetrain(run="r", feedback=work / "none.jsonl", reason="drift")
    retrain.write_pending(settings(), pending)
    assert retrain.read_pending(settings()) is None
    path = work / "runs" / retrain.JOURNAL
    path.write_text("{}")
    with pytest.raises(UserError, match="not the journal of a retrain, remove it"):
        retrain.read_pending(settings())


def test_pending_run_whose_data_changed_starts_again(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = deployed(work).champion.version
    about = json.loads((work / "runs" / old / "run.json").read_text())
    about["data"]["fingerprint"] = "of other data"
    (work / "runs" / old / "run.json").write_text(json.dumps(about))
    pending = retrain.PendingRetrain(run=old, feedback=None, reason="drift")
    new, _ = retrain._open_run(settings(), pending)
    assert run_names(work) == {old, new.name}
    assert "the data has changed" in capsys.readouterr().out
    assert retrain.read_pending(settings()) == pending.model_copy(update={"run": new.name})


def test_models_of_another_name_or_contract_are_not_compared(
    idle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_retrain("name=another") == 2
    assert "give the right --config" in capsys.readouterr().err
    bundle = bundles.load_bundle(*deployment_folder.champion_path(idle / "deployment"))
    name = next(iter(type(bundle.contract).model_fields))
    changed = bundle.contract.model_copy(update={name: None})
    with pytest.raises(Exception, match=f"settings in {name}, so a comparison"):
        gate.check_comparable(replace(bundle, contract=changed), bundle.contract)


def test_undecided_challenger_is_not_promoted(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tested / "deployment/deployment.json").read_bytes()
    assert run("promote") == 1
    assert "not promoted, the A/B test says keep going: at least" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before
    assert history(tested, "promote") == []
    assert aliases(tested)["champion"] == deployed(tested).champion.version


def test_promotion_moves_aliases_and_deployment_and_rollback_undoes_it(tested: Path) -> None:
    old, new = deployed(tested).champion, challenger_of(tested).version
    assert run("promote", "--force", "--reason", "for the demo") == 0
    assert deployed(tested).champion.version == new
    assert deployed(tested).challenger is None
    assert deployed(tested).previous == [old]
    assert aliases(tested) == {"champion": new}
    line = history(tested, "promote")[-1]
    assert (line["reason"], line["forced"], line["before"]) == ("for the demo", True, old.version)
    assert line["verdict"]["decision"] == "keep going"
    assert run("promote", "--force") == 1  # nothing is left to promote

    assert run("rollback", "--reason", "errors") == 0
    assert deployed(tested).champion == old
    assert aliases(tested) == {"champion": old.version}
    line = history(tested, "rollback")[-1]
    assert (line["reason"], line["left"], line["version"]) == ("errors", new, old.version)


def test_challenger_is_promoted_by_its_verdict(
    tested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = online.measure_ab_test

    def agreed(*arguments: Any) -> Any:
        arms, verdict = real(*arguments)
        return arms, replace(verdict, decision="promote", reason="the challenger is better")

    monkeypatch.setattr(online, "measure_ab_test", agreed)
    new = challenger_of(tested).version
    assert run("promote") == 0
    assert deployed(tested).champion.version == new
    assert history(tested, "promote")[-1]["verdict"]["reason"] == "the challenger is better"


def test_interrupted_promotion_is_finished_by_the_next_call(
    tested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = challenger_of(tested).version
    with monkeypatch.context() as deadly:
        deadly.setattr(deployment_folder, "write_deployment", die)
        with pytest.raises(Killed):
            run("promote", "--force")
    assert deployed(tested).champion.version != new
    assert run("promote", "--force") == 0
    assert deployed(tested).champion.version == new
    assert aliases(tested) == {"champion": new}


def test_damaged_challenger_is_never_promoted(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = deployment_folder.bundle_path(tested / "deployment", challenger_of(tested))
    (bundle / "model.onnx").write_bytes(b"damaged")
    before = (tested / "deployment/deployment.json").read_bytes()
    assert run("promote", "--force") == 1
    assert "model.onnx: its content has changed" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before


@pytest.mark.parametrize("missing", ["log", "contract"])
def test_forced_promotion_needs_no_verdict(
    tested: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new = challenger_of(tested).version
    if missing == "contract":
        champion = deployment_folder.bundle_path(tested / "deployment", deployed(tested).champion)
        (champion / "contract.json").unlink()
    (tested / "file").touch()
    log = "file/log" if missing == "log" else "predictions.db"
    assert run("promote", f"live.database=sqlite:///{log}") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert run("promote", "--force", f"live.database=sqlite:///{log}") == 0
    assert deployed(tested).champion.version == new
    assert history(tested, "promote")[-1]["verdict"]["decision"] == "unknown"


def test_promotion_without_mlflow_changes_nothing(
    tested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tested / "deployment/deployment.json").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run("promote", "--force") == 1
    assert "does not answer" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before


def test_without_a_challenger_nothing_is_promoted(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (work / "deployment/deployment.json").read_bytes()
    assert run("promote") == 1
    assert "there is no challenger to promote" in capsys.readouterr().err
    assert (work / "deployment/deployment.json").read_bytes() == before
