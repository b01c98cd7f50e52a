"""The manifests in deploy/kubernetes agree with the server, the image and the alert rules."""

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from {{ cookiecutter.package_name }}.config import load_settings
from {{ cookiecutter.package_name }}.serving import drain
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .conftest import PROJECT

DEPLOY = PROJECT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"


def read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def pod() -> dict[str, Any]:
    return read("kubernetes/base/server.yaml")[0]["spec"]["template"]["spec"]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
    """The settings of a server in the cluster."""
    for name in [name for name in os.environ if name.startswith("APP_")]:
        monkeypatch.delenv(name)
    text = (BASE / "server.env").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(\w+)=(.*)$", text, re.M))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(ServerSettings)
    assert {name.removeprefix("APP_").lower() for name in variables} <= settings.model_fields_set
    return settings


def test_overlays_set_only_variables_that_the_server_reads() -> None:
    known = {f"APP_{name.upper()}" for name in ServerSettings.model_fields}
    found: set[str] = set()
    for path in DEPLOY.glob("kubernetes/**/kustomization.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for generator in content.get("configMapGenerator", ()):
            if generator["name"].endswith("-server"):
                found |= {literal.partition("=")[0] for literal in generator.get("literals", ())}
    assert found
    assert {name.removesuffix("_FILE") for name in found if name.startswith("APP_")} <= known


def test_the_operator_s_rules_are_those_of_prometheus() -> None:
    (rules,) = read("kubernetes/monitoring/rules.yaml")
    assert [rules["spec"]] == read("prometheus/alerts.yml"), "run: make rules"


def test_every_dashboard_is_deployed() -> None:
    (kustomization,) = read("grafana/dashboards/kustomization.yaml")
    dashboards = [path.name for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")]
    assert sorted(kustomization["configMapGenerator"][0]["files"]) == sorted(dashboards)


def test_prometheus_knows_the_servers_by_one_name_with_and_without_kubernetes() -> None:
    (config,) = read("prometheus/prometheus.yml")
    service = read("kubernetes/base/server.yaml")[1]
    assert service["kind"] == "Service"
    assert service["metadata"]["name"] == config["scrape_configs"][0]["job_name"]


def test_kubernetes_waits_longer_than_a_server_needs_to_end(settings: ServerSettings) -> None:
    assert settings.drain_seconds < pod()["terminationGracePeriodSeconds"]
    assert settings.deadline_ms / 1000 <= drain.request_seconds(settings)
    ready = pod()["containers"][0]["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < settings.lame_duck_seconds


def test_a_full_spool_does_not_get_the_pod_evicted(settings: ServerSettings) -> None:
    (log,) = [volume for volume in pod()["volumes"] if volume["name"] == "log"]
    (mount,) = [mount for mount in pod()["containers"][0]["volumeMounts"] if mount["name"] == "log"]
    assert settings.spool_dir is not None
    assert settings.spool_dir.as_posix().startswith(mount["mountPath"])
    size = re.fullmatch(r"(\d+)Mi", log["emptyDir"]["sizeLimit"])
    assert size is not None
    assert int(size[1]) > settings.log_megabytes


def test_pods_run_as_the_image_s_user_and_offer_the_server_s_port(settings: ServerSettings) -> None:
    image = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    (user,) = set(re.findall(r"^USER (\d+)", image, re.M))
    (jobs,) = read("kubernetes/base/job-pod.yaml")
    for spec in (pod(), jobs["spec"]["jobTemplate"]["spec"]["template"]["spec"]):
        assert spec["securityContext"]["runAsUser"] == int(user)
    (port,) = pod()["containers"][0]["ports"]
    assert port["containerPort"] == settings.port


@pytest.mark.parametrize("overlay", ["one-node", "cluster"])
def test_kustomize_renders_the_overlay(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    command = [kubectl, "kustomize", DEPLOY / "kubernetes" / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(done.stdout)]
    assert kinds.count("Deployment") == 1
    assert ("HorizontalPodAutoscaler" in kinds) == (overlay == "cluster")
