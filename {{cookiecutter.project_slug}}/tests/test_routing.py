"""Which model answers: always the same for a caller, by the share that is set, while running."""

import asyncio
import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.deployment import BundleRef
from {{ cookiecutter.package_name }}.bundle.load import Bundle
from {{ cookiecutter.package_name }}.serving import predict
from {{ cookiecutter.package_name }}.serving.metrics import ServerMetrics
from {{ cookiecutter.package_name }}.serving.models import ActiveModels, ModelManager
from {{ cookiecutter.package_name }}.serving.scheduler import (
    DeadlineExceeded,
    ModelQueue,
    RequestResult,
)
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.task.contract import Item

from .servers import Load, challenge, install_copy, sample, started, until

CALLERS = 4000
SHARES = (0.5, 1.0, 0.1)


@pytest.fixture
def challenger(deployment: Path) -> BundleRef:
    return install_copy(deployment, "challenger-1")


@pytest.fixture
def load(deployment: Path) -> Callable[..., ActiveModels]:
    """Load the models with this challenger."""
    manager = ModelManager(ServerSettings(deployment_dir=deployment), ServerMetrics())

    def load(challenger: BundleRef, share: float, mode: str = "split") -> ActiveModels:
        challenge(deployment, challenger, share, mode)
        manager.refresh()
        assert manager.active is not None
        return manager.active

    return load


def chosen(active: ActiveModels, keys: list[str]) -> set[str]:
    """The callers whom the challenger answers."""
    return {key for key in keys if active.choose(key, "request")[0].variant == "challenger"}


KEYS = [f"caller-{number}" for number in range(CALLERS)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_challenger_gets_its_share_of_the_callers(
    load: Callable[..., ActiveModels], challenger: BundleRef, share: float
) -> None:
    callers = chosen(load(challenger, share), KEYS)
    # The keys are fixed, so this passes always or never; 4 standard deviations of a fair split.
    tolerance = 4 * math.sqrt(share * (1 - share) / CALLERS)
    assert abs(len(callers) / CALLERS - share) < tolerance


def test_share_of_one_is_everybody(
    load: Callable[..., ActiveModels], challenger: BundleRef
) -> None:
    assert len(chosen(load(challenger, 1.0), KEYS)) == CALLERS


def test_larger_share_keeps_the_callers_of_a_smaller_one(
    load: Callable[..., ActiveModels], challenger: BundleRef
) -> None:
    before: set[str] = set()
    for share in (0.05, 0.2, 0.5, 1.0):
        callers = chosen(load(challenger, share), KEYS)
        assert before < callers
        before = callers


def test_another_test_assigns_the_callers_anew(
    load: Callable[..., ActiveModels], challenger: BundleRef, deployment: Path
) -> None:
    first = chosen(load(challenger, 0.5), KEYS)
    second = chosen(load(install_copy(deployment, "challenger-2"), 0.5), KEYS)
    # Of two independent halves a quarter of the callers is in both: 5 standard deviations.
    assert abs(len(first & second) / CALLERS - 0.25) < 5 * math.sqrt(0.25 * 0.75 / CALLERS)


def test_caller_keeps_its_variant_and_without_a_caller_the_request_id_decides(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    challenge(deployment, challenger, 0.5)
    versions: dict[str, str] = {}
    with started(deployment) as client:
        for name in ("x-caller-key", "x-request-id"):
            for number in [*range(20), *range(20)]:
                headers = {name: f"{name}-{number}"}
                answer = client.post("/v1/predict", json=example, headers=headers)
                key, version = f"{name}-{number}", answer.json()["model_version"]
                assert versions.setdefault(key, version) == version
                variant = answer.headers["x-model-variant"]
                assert (variant == "challenger") == (version == challenger.version)
                assert answer.headers["x-model-version"] == version
        for name in ("x-caller-key", "x-request-id"):
            used = {version for key, version in versions.items() if key.startswith(name)}
            assert len(used) == 2, "both variants answer"
        split = Counter(versions.values())[challenger.version]
        for variant in ("champion", "challenger"):
            assert sample(client, "http_requests_total", variant=variant, status="200") > 0
        assert 5 <= split <= 35  # of 40: 4.7 standard deviations


def test_caller_header_can_be_configured(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    challenge(deployment, challenger, 0.5)
    versions: dict[str, set[str]] = {}
    with started(deployment, caller_header="x-user") as client:
        for number in range(80):
            headers = {"x-user": f"u{number % 20}", "x-caller-key": f"{number}"}
            headers["x-request-id"] = f"{number}"
            answer = client.post("/v1/predict", json=example, headers=headers)
            versions.setdefault(headers["x-user"], set()).add(answer.json()["model_version"])
    assert all(len(same) == 1 for same in versions.values())
    assert len(set.union(*versions.values())) == 2, "both variants answer"


def test_models_lists_both_variants_with_their_shares(
    deployment: Path, challenger: BundleRef
) -> None:
    challenge(deployment, challenger, 0.25)
    with started(deployment) as client:
        models = {one["variant"]: one for one in client.get("/v1/models").json()["models"]}
        assert {name: one["share"] for name, one in models.items()} == {
            "champion": 0.75,
            "challenger": 0.25,
        }
        assert models["challenger"]["version"] == challenger.version
        for name, one in models.items():
            assert sample(client, "model_info", version=one["version"], variant=name) == 1


def test_share_changes_under_load_without_failed_requests(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    champion = folder.read_deployment(deployment).champion.version
    with started(deployment) as client:
        answers = change_shares_under_load(client, deployment, challenger, example)
    assert {status for status, _, _ in answers} == {200}
    versions = {(version, variant) for _, version, variant in answers}
    assert versions == {(champion, "champion"), (challenger.version, "challenger")}
    assert {version for _, version, _ in answers[-5:]} == {champion}


def change_shares_under_load(
    client: TestClient, deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> list[tuple[int, str, str]]:
    """Set each of `SHARES`, then end the test; return (status, version, variant) of responses."""

    def post() -> tuple[int, str, str]:
        answer = client.post("/v1/predict", json=example)
        version = answer.headers["x-model-version"]
        assert answer.json()["model_version"] == version
        return answer.status_code, version, answer.headers["x-model-variant"]

    def shares() -> list[float | None]:
        return [one["share"] for one in client.get("/v1/models").json()["models"]]

    with Load(post) as load:
        for share in SHARES:
            challenge(deployment, challenger, share, since=f"at {share}")
            until(lambda share=share: shares() == [1 - share, share])
            seen = len(load.answers)
            until(lambda seen=seen: len(load.answers) > seen + 40)
        after = folder.read_deployment(deployment).model_copy(update={"challenger": None})
        folder.write_deployment(deployment, after)
        until(lambda: shares() == [None])
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 10)
    return load.answers


def test_shadow_answers_nobody(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    champion = folder.read_deployment(deployment).champion.version
    challenge(deployment, challenger, 1.0, "shadow")
    with started(deployment) as client:
        for _ in range(20):
            answer = client.post("/v1/predict", json=example)
            assert answer.json()["model_version"] == champion
            assert answer.headers["x-model-variant"] == "champion"
        items = 20 * len(example["items"])
        until(lambda: sample(client, "predictions_total", variant="shadow") == items)
        assert sample(client, "predictions_total", variant="champion") == items
        assert sample(client, "http_requests_total", status="200", route="/v1/predict") == 20
        assert sample(client, "http_requests_total", variant="shadow") == 0
        models = {one["variant"]: one for one in client.get("/v1/models").json()["models"]}
        assert models["shadow"]["share"] is None


def test_shadow_predicts_its_share_of_the_requests(
    deployment: Path, challenger: BundleRef, load: Callable[..., ActiveModels]
) -> None:
    active = load(challenger, 0.3, "shadow")
    units = [active.choose(key, "request") for key in KEYS]
    assert {model.variant for model, _ in units} == {"champion"}
    shadowed = sum(active.shadow(unit) is not None for _, unit in units)
    assert abs(shadowed / CALLERS - 0.3) < 4 * math.sqrt(0.3 * 0.7 / CALLERS)


def test_failing_shadow_fails_no_request(
    deployment: Path,
    challenger: BundleRef,
    example: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    challenge(deployment, challenger, 1.0, "shadow")
    broken = threading.Event()
    run = Bundle.run

    def failing(self: Bundle, inputs: Any) -> Any:
        if self.version == challenger.version and broken.is_set():
            raise RuntimeError("the shadow is broken")
        return run(self, inputs)

    monkeypatch.setattr(Bundle, "run", failing)
    with started(deployment) as client:
        broken.set()
        for _ in range(5):
            assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "shadow_dropped_total") == 5)
        broken.clear()
        assert client.post("/v1/predict", json=example).status_code == 200
        until(lambda: sample(client, "predictions_total", variant="shadow") > 0)
        assert sample(client, "http_requests_total", status="500") == 0


def test_slow_shadow_skips_requests(
    deployment: Path,
    challenger: BundleRef,
    example: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    challenge(deployment, challenger, 1.0, "shadow")
    monkeypatch.setattr(predict, "MAX_SHADOW_REQUESTS", 3)
    held: list[asyncio.Future[RequestResult]] = []
    submit = ModelQueue.submit

    def slow(self: ModelQueue, items: list[Item], deadline: float) -> asyncio.Future[RequestResult]:
        if not self.low_priority:
            return submit(self, items, deadline)
        held.append(asyncio.get_running_loop().create_future())
        return held[-1]

    monkeypatch.setattr(ModelQueue, "submit", slow)
    with started(deployment) as client:
        for _ in range(8):
            assert client.post("/v1/predict", json=example).status_code == 200
        assert len(held) == 3
        assert sample(client, "shadow_dropped_total") == 5
        assert client.portal is not None
        for future in held:
            client.portal.call(future.set_exception, DeadlineExceeded())
        until(lambda: sample(client, "shadow_dropped_total") == 8)


def test_damaged_challenger_refuses_the_deployment_and_the_old_one_serves_on(
    deployment: Path, challenger: BundleRef, example: dict[str, Any], client: TestClient
) -> None:
    champion = folder.read_deployment(deployment).champion.version
    model = folder.bundle_path(deployment, challenger) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    challenge(deployment, challenger, 0.5)
    until(lambda: client.get("/v1/models").json()["problem"])
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert "challenger-1/model.onnx" in ready.json()["reason"]
    for _ in range(10):
        answer = client.post("/v1/predict", json=example)
        assert answer.json()["model_version"] == champion
    until(lambda: sample(client, "deployments_refused_total") == 1)
    assert [one["variant"] for one in client.get("/v1/models").json()["models"]] == ["champion"]


def test_challenger_with_another_version_than_deployed_is_refused(
    deployment: Path, challenger: BundleRef, client: TestClient
) -> None:
    challenge(deployment, challenger.model_copy(update={"version": "wrong"}), 0.5)
    problem = until(lambda: client.get("/v1/models").json()["problem"])
    assert "holds version challenger-1, not wrong" in problem


@pytest.mark.parametrize(
    "change", [{"share": 0}, {"share": 1.5}, {"mode": "mirror"}, {"bundle": "../elsewhere"}]
)
def test_invalid_deployment_file_is_refused(
    deployment: Path, challenger: BundleRef, client: TestClient, change: dict[str, Any]
) -> None:
    challenge(deployment, challenger, 0.5)
    until(lambda: len(client.get("/v1/models").json()["models"]) == 2)
    whole = json.loads((deployment / folder.DEPLOYMENT).read_text())
    whole["challenger"] |= change
    (deployment / folder.DEPLOYMENT).write_text(json.dumps(whole))
    until(lambda: client.get("/v1/models").json()["problem"])
    assert len(client.get("/v1/models").json()["models"]) == 2
