"""A new deployment is loaded under load; an invalid one is refused."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.deployment import BundleRef
from {{ cookiecutter.package_name }}.bundle.load import (
    MANIFEST,
    BadBundle,
    load_bundle,
    load_reference,
    sha256,
)
from {{ cookiecutter.package_name }}.serving import models

from .servers import (
    Load,
    Server,
    inside,
    install_copy,
    memory,
    rehashed,
    replace_champion,
    sample,
    started,
    until,
)

SWAPS = 20
NOISE = 6  # MiB that allocators and sockets may keep


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(models, "REFUSED_RETRY_SECONDS", 0.1)


def refused(client: TestClient) -> float:
    return sample(client, "deployments_refused_total")


def damage(path: Path) -> None:
    """Flip one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_server_starts_without_a_deployment_and_loads_the_first_one(
    deployment: Path, tmp_path: Path, example: dict[str, Any]
) -> None:
    later = tmp_path / "later"
    with started(later) as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "nothing is deployed yet" in ready.json()["reason"]
        answer = client.post("/v1/predict", json=example)
        assert answer.status_code == 503
        assert "nothing is deployed yet" in answer.json()["detail"][0]["msg"]
        assert answer.headers["retry-after"]
        assert answer.headers["x-model-version"] == "none"
        assert sample(client, "model_loaded") == 0
        assert refused(client) == 0, "there was none to refuse"
        assert client.get("/v1/models").json()["models"] == []
        deployment.rename(later)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/predict", json=example).status_code == 200
        assert sample(client, "model_loaded") == 1


@pytest.mark.parametrize("name", ["model.onnx", "contract.json", "reference.json", "manifest.json"])
def test_bundle_with_one_flipped_bit_is_refused_and_the_old_model_serves_on(
    client: TestClient, deployment: Path, example: dict[str, Any], name: str
) -> None:
    old = client.get("/readyz").json()["model_version"]
    new = install_copy(deployment, "bad")
    damage(folder.bundle_path(deployment, new) / name)
    replace_champion(deployment, new)
    problem = until(lambda: client.get("/v1/models").json()["problem"])
    assert f"bad/{name}: " in problem
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["reason"] == problem
    answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 200
    assert answer.json()["model_version"] == old
    until(lambda: refused(client) == 1)
    assert sample(client, "model_info", version=old) == 1


def test_truncated_deployment_file_is_refused(
    client: TestClient, deployment: Path, example: dict[str, Any]
) -> None:
    path = deployment / folder.DEPLOYMENT
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    problem = until(lambda: client.get("/v1/models").json()["problem"])
    assert "is not a deployment" in problem
    assert client.post("/v1/predict", json=example).status_code == 200
    path.write_bytes(whole)
    until(lambda: client.get("/v1/models").json()["problem"] is None)


def test_deployment_whose_files_arrive_late_is_waited_for_quietly(
    client: TestClient, deployment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "RETRY_SECONDS", 1.0)
    new = install_copy(deployment, "late")
    place = folder.bundle_path(deployment, new)
    place.rename(place.with_name("elsewhere"))
    replace_champion(deployment, new)
    until(lambda: client.get("/v1/models").json()["problem"])
    place.with_name("elsewhere").rename(place)
    until(lambda: client.get("/readyz").json()["model_version"] == "late")
    assert refused(client) == 0


def test_refused_deployment_is_counted_once_and_retried(
    client: TestClient, deployment: Path
) -> None:
    new = install_copy(deployment, "late")
    place = folder.bundle_path(deployment, new)
    place.rename(place.with_name("elsewhere"))
    replace_champion(deployment, new)
    until(lambda: refused(client) == 1)
    manager = inside(client).models
    until(lambda: manager._failures > 4)
    assert refused(client) == 1, "once per deployment, not per try"
    place.with_name("elsewhere").rename(place)
    until(lambda: client.get("/readyz").json()["model_version"] == "late")


def write_manifest(deployment: Path, ref: BundleRef, **fields: Any) -> BundleRef:
    """Change fields of the manifest; None removes one."""
    path = folder.bundle_path(deployment, ref) / MANIFEST
    content = {**json.loads(path.read_bytes()), **fields}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return ref.model_copy(update={"manifest_sha256": sha256(path)})


def broken_deployments(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Deploy one broken bundle after the other, and yield what the reason must name."""
    new = install_copy(deployment, "bad")

    def deploy(**changes: Any) -> None:
        replace_champion(deployment, new.model_copy(update=changes))

    loop = deployment / "bundles" / "loop"
    loop.symlink_to(loop)
    deploy(bundle="bundles/loop")
    yield "loop"
    deploy(bundle="bundles/a\0b")
    yield "null"
    for wrong in (None, "yesterday"):
        new = write_manifest(deployment, new, created_at=wrong)
        deploy()
        yield "created_at"
    for error in (MemoryError("no memory"), PermissionError(13, "denied"), RuntimeError("odd")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(models, "load_bundle", fail)
            deploy()
            yield type(error).__name__


def test_whatever_is_wrong_with_a_deployment_the_next_one_is_taken(
    client: TestClient,
    deployment: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = folder.read_deployment(deployment).champion
    for number, word in enumerate(broken_deployments(deployment, monkeypatch), 1):
        problem = until(lambda: client.get("/v1/models").json()["problem"])
        assert word in problem
        until(lambda number=number: refused(client) == number)
        assert caplog.messages.count("deployment refused") == number
        assert client.get("/readyz").json()["model_version"] == good.version
        replace_champion(deployment, good)
        until(lambda: client.get("/v1/models").json()["problem"] is None)
    replace_champion(deployment, install_copy(deployment, "9-new"))
    until(lambda: client.get("/readyz").json()["model_version"] == "9-new")


def test_slow_file_system_delays_no_answer(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, looked = threading.Event(), threading.Event()

    def slow(self: models.ModelManager) -> None:
        looking.set()
        assert looked.wait(120)

    monkeypatch.setattr(models.ModelManager, "_stamp", slow)
    assert looking.wait(120)
    for _ in range(3):
        assert client.post("/v1/predict", json=example).status_code == 200
    looked.set()


def test_model_that_cannot_predict_its_own_example_is_refused(
    client: TestClient, deployment: Path
) -> None:
    new = install_copy(deployment, "mute")
    place = folder.bundle_path(deployment, new)
    (place / "example.json").write_text(json.dumps({"items": [{"no": "item"}]}))
    replace_champion(deployment, rehashed(deployment, new))
    problem = until(lambda: client.get("/v1/models").json()["problem"])
    assert "cannot predict its own example" in problem


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ([], "content"),
        ({"features": {}}, "predictions"),
        ({"features": {"f": 1}, "predictions": {}}, "features.f"),
        ({"features": {"f": {"edges": [0, 1]}}, "predictions": {}}, "features.f.numbers.counts"),
        ({"features": {"f": {"edges": [1, 0], "counts": [1]}}, "predictions": {}}, "increase"),
        ({"features": {}, "predictions": {"p": {"counts": {"a": "x"}}}}, "categories.counts.a"),
    ],
)
def test_bundle_with_a_wrong_reference_is_refused_naming_file_and_field(
    deployment: Path, wrong: Any, field: str
) -> None:
    new = install_copy(deployment, "wrong")
    path = folder.bundle_path(deployment, new) / "reference.json"
    path.write_text(json.dumps(wrong))
    rehashed(deployment, new)
    with pytest.raises(BadBundle) as caught:
        load_bundle(path.parent)
    assert str(caught.value).startswith(f"{path}: is not a reference: ")
    assert field in str(caught.value)
    path.unlink()
    with pytest.raises(BadBundle, match=r"reference\.json: cannot be read"):
        load_reference(path.parent)


def test_new_champion_replaces_the_old_one_in_responses_and_metrics(
    client: TestClient, deployment: Path, example: dict[str, Any]
) -> None:
    old = client.get("/readyz").json()["model_version"]

    def post() -> tuple[int, str]:
        answer = client.post("/v1/predict", json=example)
        return answer.status_code, answer.json().get("model_version", "")

    with Load(post, callers=1) as load:
        until(lambda: len(load.answers) > 5)
        replace_champion(deployment, install_copy(deployment, "9-new"))
        until(lambda: client.get("/readyz").json()["model_version"] == "9-new")
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 5)
    assert {status for status, _ in load.answers} == {200}
    versions = [version for _, version in load.answers]
    assert versions == sorted(versions), "the old one does not answer after the new one"
    assert set(versions) == {old, "9-new"}
    assert sample(client, "model_info", version=old) == 0
    assert sample(client, "model_info", version="9-new") == 1
    assert folder.read_deployment(deployment).previous[0].version == old


def grows(pid: int) -> bool:
    """Whether the process takes another MiB within half a second."""
    before = memory(pid)
    time.sleep(0.5)
    return memory(pid) > before + 1


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")
def test_swaps_under_load_fail_no_request_mix_no_versions_and_leak_no_memory(
    server: Server, deployment: Path, example: dict[str, Any]
) -> None:
    first = folder.read_deployment(deployment).champion
    second = install_copy(deployment, "second")

    def post() -> tuple[int, str, str]:
        answer = server.send("/v1/predict", example)
        return answer.status, answer.headers["x-model-version"], answer.json["model_version"]

    def swap(champion: BundleRef) -> None:
        replace_champion(deployment, champion)
        until(lambda: server.send("/readyz").json["model_version"] == champion.version)

    with Load(post) as load:
        for number in range(SWAPS):  # the allocators warm up
            swap(first if number % 2 else second)
        until(lambda: not grows(server.process.pid))  # threads import libraries in the background
        before = memory(server.process.pid)
        for number in range(SWAPS):
            swap(first if number % 2 else second)
        after = memory(server.process.pid)
    assert {status for status, _, _ in load.answers} == {200}
    assert all(header == body for _, header, body in load.answers)
    assert {version for _, version, _ in load.answers} == {first.version, "second"}
    model = (folder.champion_path(deployment)[0] / "model.onnx").stat().st_size / 2**20
    print(f"{before:.1f} MB before, {after:.1f} MB after {SWAPS} swaps; a model: {model:.1f} MB")
    assert after - before < model + NOISE
