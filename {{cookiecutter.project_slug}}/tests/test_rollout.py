"""Deployments change whole or not at all: deploy, set traffic, promote, roll back."""

import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle.deployment import Challenger, Deployment
from {{ cookiecutter.package_name }}.config import WorkError, load_settings
from {{ cookiecutter.package_name }}.release import rollout
from {{ cookiecutter.package_name }}.task.objective import HIGHER_IS_BETTER
from {{ cookiecutter.package_name }}.task.settings import Settings

from .conftest import CONFIG, FORCE
from .quick import QUICK
from .servers import install_copy

PROMOTE = {"decision": "promote", "reason": "the challenger is better"}
NO_MLFLOW = "http://127.0.0.1:9"


def run(command: str, *arguments: str) -> int:
    return cli.main([command, "--config", str(CONFIG), *arguments])


def history(folder: Path, action: str) -> list[dict[str, Any]]:
    lines = deployment_folder.read_history(folder / "deployment")
    return [line for line in lines if line["action"] == action]


def own_registry(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """MLflow keeps a connection for each address: a folder's own must not be another's."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", address(folder))


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def deployed(folder: Path) -> Deployment:
    return deployment_folder.read_deployment(folder / "deployment")


def aliases(folder: Path) -> dict[str, str]:
    """The run that each alias of the registry stands for."""
    client = MlflowClient(address(folder))
    model = client.search_registered_models()[0]
    versions = {
        str(one.version): one.tags["bundle"]
        for one in client.search_model_versions(f"name = '{model.name}'")
    }
    by_alias = client.get_registered_model(model.name).aliases
    return {name: versions[str(version)] for name, version in by_alias.items()}


@pytest.fixture(scope="module")
def redeployed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a second run was deployed: the first one is the previous champion."""
    folder = tmp_path_factory.mktemp("redeployed") / "work"
    shutil.copytree(trained, folder)
    (first,) = (path.parent for path in folder.glob("runs/*/run.json"))
    second = first.with_name("second")
    shutil.copytree(first, second, ignore=shutil.ignore_patterns("bundle"))
    with pytest.MonkeyPatch.context() as patch:
        own_registry(patch, folder)
        assert run("deploy", "--run", "second", *FORCE) == 0
    return folder


@pytest.fixture
def twice(redeployed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    folder = tmp_path / "work"
    shutil.copytree(redeployed, folder)
    own_registry(monkeypatch, folder)
    return folder


def add_challenger(folder: Path, since: str = "2026-01-01T00:00:00+00:00") -> Challenger:
    """Put a copy of the champion beside it, as challenger."""
    before = deployed(folder)
    copy = install_copy(folder / "deployment", "challenger")
    challenger = Challenger(**copy.model_dump(), share=0.1, since=since)
    after = before.model_copy(update={"challenger": challenger})
    deployment_folder.write_deployment(folder / "deployment", after)
    return challenger


def settings() -> Settings:
    return load_settings(Settings, CONFIG, QUICK, {})


def test_rollback_returns_to_the_previous_champion_and_moves_the_alias(twice: Path) -> None:
    before = deployed(twice)
    assert before.champion.version == "second"
    assert aliases(twice) == {"champion": "second"}
    assert run("rollback", "--reason", "errors") == 0
    assert deployed(twice).champion == before.previous[0]
    assert deployed(twice).previous == []
    assert aliases(twice) == {"champion": before.previous[0].version}
    line = history(twice, "rollback")[-1]
    assert (line["reason"], line["left"]) == ("errors", "second")
    assert line["version"] == before.previous[0].version
    assert line["who"]


def test_rollback_takes_out_the_challenger_first(twice: Path) -> None:
    before = deployed(twice)
    add_challenger(twice)
    assert run("rollback") == 0
    assert deployed(twice) == before
    assert history(twice, "rollback")[-1]["left"] == "challenger"


@pytest.mark.parametrize("challenger", [False, True])
def test_rollback_works_while_mlflow_is_down(
    twice: Path,
    challenger: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = deployed(twice)
    if challenger:
        add_challenger(twice)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NO_MLFLOW)
    waits: list[float] = []  # between tries to reach it
    monkeypatch.setattr(time, "sleep", waits.append)
    assert run("rollback") == 0
    assert sum(waits) < 20
    champion = before.champion if challenger else before.previous[0]
    assert (deployed(twice).champion, deployed(twice).challenger) == (champion, None)
    assert "warning: MLflow's aliases were not moved: " in capsys.readouterr().err
    assert history(twice, "rollback")[-1]["aliases"].startswith("not moved: ")
    assert aliases(twice) == {"champion": "second"}


def test_rollback_needs_neither_torch_nor_mlflow_to_start() -> None:
    heavy = "[name for name in ('torch', 'mlflow', 'onnx') if name in sys.modules]"
    script = f"import sys, {rollout.__name__}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_rollback_to_a_damaged_bundle_is_refused(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = twice / "deployment"
    bundle = deployment_folder.bundle_path(folder, deployed(twice).previous[0])
    (bundle / "model.onnx").write_bytes(b"damaged")
    before = (folder / "deployment.json").read_bytes()
    assert run("rollback") == 1
    assert "model.onnx: its content has changed" in capsys.readouterr().err
    assert (folder / "deployment.json").read_bytes() == before


def test_rollback_without_a_previous_champion_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (work / "deployment/deployment.json").read_bytes()
    assert run("rollback") == 1
    assert "there is no previous champion to return to" in capsys.readouterr().err
    assert (work / "deployment/deployment.json").read_bytes() == before


def test_damaged_bundle_in_the_deployment_folder_is_replaced_by_the_next_deploy(
    twice: Path,
) -> None:
    folder = twice / "deployment"
    bundle = deployment_folder.bundle_path(folder, deployed(twice).champion)
    (bundle / "model.onnx").write_bytes(b"damaged")
    assert run("deploy", "--run", "second") == 0
    assert deployment_folder.bundle_path(folder, deployed(twice).champion) == bundle
    assert (bundle / "model.onnx").stat().st_size > 100
    assert len(list(bundle.parent.glob("*.damaged-*"))) == 1


def test_new_traffic_begins_a_new_test(work: Path) -> None:
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    before = add_challenger(work, since=earlier)
    changed = rollout.set_traffic(work / "deployment", "more of it", share=0.5, mode="shadow")
    assert deployed(work).challenger == changed
    assert (changed.share, changed.mode, changed.version) == (0.5, "shadow", before.version)
    assert changed.since > earlier
    assert history(work, "traffic")[-1]["reason"] == "more of it"


def test_traffic_without_a_challenger_is_refused(work: Path) -> None:
    with pytest.raises(WorkError, match="there is no challenger"):
        rollout.set_traffic(work / "deployment", "more of it", share=0.5)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [(None, "says nothing"), ({"decision": "stop", "reason": "it is worse"}, "stop: it is worse")],
)
def test_challenger_is_not_promoted_against_the_verdict(
    twice: Path, verdict: dict[str, Any] | None, reason: str
) -> None:
    add_challenger(twice)
    before = deployed(twice)
    with pytest.raises(WorkError, match=reason):
        rollout.promote(settings(), before, verdict, "")
    assert deployed(twice) == before
    rollout.promote(settings(), before, verdict, "", force=True)
    assert deployed(twice).champion.version == "challenger"
    assert history(twice, "promote")[-1]["verdict"] == verdict


def test_verdict_about_another_deployment_promotes_nothing(twice: Path) -> None:
    add_challenger(twice)
    judged = deployed(twice)
    rollout.set_traffic(twice / "deployment", "more of it", share=0.5)
    before = deployed(twice)
    with pytest.raises(WorkError, match="the deployment changed in the meantime"):
        rollout.promote(settings(), judged, PROMOTE, "")
    assert deployed(twice) == before


def test_history_is_written_before_the_deployment_changes(
    twice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history_file = twice / "deployment" / "history.jsonl"
    history_file.unlink()
    history_file.mkdir()
    before = (twice / "deployment/deployment.json").read_bytes()
    assert run("rollback") == 1
    assert (twice / "deployment/deployment.json").read_bytes() == before
    assert json.loads(before)["champion"]["version"] == "second"


def test_model_clearly_worse_than_champion_or_baseline_needs_force_and_a_reason(
    twice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A third run, of which every test example is scored worse."""
    third = twice / "runs/third"
    shutil.copytree(twice / "runs/second", third, ignore=shutil.ignore_patterns("bundle"))
    sign = 1 if HIGHER_IS_BETTER else -1
    with np.load(third / "scores.npz") as stored:
        scores = {name: stored[name] for name in stored}
    worse = {
        n: x - sign * (1 + 0.1 * np.arange(len(x)) / len(x)) if n.isdigit() else x
        for n, x in scores.items()
    }
    np.savez(third / "scores.npz", **worse)  # pyright: ignore[reportArgumentType]
    evaluation = json.loads((third / "evaluation.json").read_text())
    for result in evaluation["baselines"].values():
        result["ahead_interval"] = [-0.1, 0.1]
    (third / "evaluation.json").write_text(json.dumps(evaluation))
    before = deployed(twice)
    assert run("deploy", "--run", "third") == 1
    message = capsys.readouterr().err
    assert "significantly worse than the champion second (" in message
    assert "baseline" not in message
    assert "--force --reason" in message
    next(iter(evaluation["baselines"].values()))["ahead_interval"] = [-0.2, -0.1]
    (third / "evaluation.json").write_text(json.dumps(evaluation))
    assert run("deploy", "--run", "third") == 1
    assert "the baseline " in capsys.readouterr().err
    assert run("deploy", "--run", "third", "--force") == 2
    assert deployed(twice) == before
    assert run("deploy", "--run", "third", *FORCE) == 0
    line = history(twice, "deploy")[-1]
    assert (line["reason"], len(line["forced"]), line["version"]) == (FORCE[-1], 2, "third")
    assert run("deploy", "--run", "third") == 0, "deploying the champion again repairs it"


@pytest.mark.parametrize("missing", [False, True])
def test_champion_that_cannot_be_compared_is_named_with_the_reason(
    twice: Path, capsys: pytest.CaptureFixture[str], missing: bool
) -> None:
    """Nobody takes silence for a comparison that found nothing."""
    second, third = twice / "runs/second", twice / "runs/third"
    shutil.copytree(second, third, ignore=shutil.ignore_patterns("bundle"))
    if missing:
        shutil.rmtree(second)
        reason = f"{Path('runs/second/run.json')}: cannot be read: "
    else:
        info = json.loads((second / "run.json").read_text())
        info["data"]["fingerprint"] = "other"
        (second / "run.json").write_text(json.dumps(info))
        reason = "run second was evaluated on other data"
    assert run("deploy", "--run", "third", *FORCE) == 0
    told = f"not compared: third with the champion second, because {reason}"
    assert told in capsys.readouterr().out
