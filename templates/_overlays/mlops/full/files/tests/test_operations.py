"""Operations: alerts and dashboards, checked by a real Prometheus, and Docker Compose."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from {{ cookiecutter.package_name }} import cli

from .conftest import PROJECT
from .servers import Server, until

DEPLOY = PROJECT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)([^}]*)\}")
PROMETHEUS_SERIES = {"up", "ALERTS"}
KEYWORDS = {"and", "or", "unless", "offset", "bool"}


def load_services() -> ModuleType:
    """Import scripts/services.py, which is not part of the package."""
    path = PROJECT / "scripts" / "services.py"
    spec = importlib.util.spec_from_file_location("services", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


services = load_services()


@pytest.fixture(scope="session")
def tools() -> Path:
    """promtool; without it and Prometheus the test is skipped and says how to get them."""
    try:
        services.need("prometheus")
        return services.need("promtool")
    except services.Missing as missing:
        pytest.skip(str(missing))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules that are an `alert`, or that `record` a series."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"] if kind in rule]


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert's rule by its name."""
    by_name = {rule["alert"]: rule for rule in rules("alert")}
    assert len(by_name) == len(rules("alert"))
    return by_name


def expressions() -> dict[str, str]:
    """Every query of the alerts and dashboards, by where it stands."""
    queries = {f"alert {name}": rule["expr"] for name, rule in alerts().items()}
    for rule in rules("record"):
        queries[f"{rule['record']} {rule['labels']['slo']}"] = rule["expr"]
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for note in dashboard["annotations"]["list"]:
            queries[f"{path.name} {note['name']}"] = note["expr"]
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                queries[f"{path.name} {panel['title']} {target['refId']}"] = target["expr"]
    return {where: query.replace("$__rate_interval", "5m") for where, query in queries.items()}


def job_name() -> str:
    """The name of this project's servers in Prometheus."""
    (job,) = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    return job["job_name"]


def metric_names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    for inner in (r'"[^"]*"', r"\{[^}]*\}", r"\[[^\]]*\]"):
        expression = re.sub(inner, "", expression)
    grouping = r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
    expression = re.sub(grouping, "", expression)
    return set(re.findall(r"\b[a-zA-Z_][\w:]*\b(?!\s*\()", expression)) - KEYWORDS


def get_data(url: str, **parameters: str) -> Any:
    """Return what Prometheus answers: its data, or its error."""
    query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    try:
        with urllib.request.urlopen(f"{url}?{query}", timeout=120) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        return json.load(error)["error"]


@pytest.fixture
def watched(tools: Path, server: Server, tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A real server, and the address of a Prometheus that scrapes it every second."""
    config = read(DEPLOY / "prometheus" / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [server.url.removeprefix("http://")]}]
    content = read(RULES)
    for group in content["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "2s"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with services.prometheus(path) as prometheus:
        until(lambda: get_data(f"{prometheus}/api/v1/query", query="up == 1")["result"])
        yield server, prometheus


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_accepts_the_rules_and_their_tests_pass(tools: Path, command: list[str]) -> None:
    done = subprocess.run(
        [tools, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in read(RULES.with_name("alerts_test.yml"))["tests"]:
        for case in test["promql_expr_test"]:
            for name in re.findall(r'ALERTS\{alertname="(\w+)"', case["expr"]):
                (fires if case["exp_samples"] else silent).add(name)
    assert fires == set(alerts())
    assert silent == set(alerts())


def test_every_alert_says_how_bad_it_is_and_which_command_helps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.M))
    runbooks = (PROJECT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\w+)$", runbooks, re.M)
    assert sections == list(alerts())
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["annotations"]["summary"], name
        named = re.findall(r"`(\w+)[^`]*`", rule["annotations"]["description"])
        assert set(named) <= commands, f"{name} names an unknown command"
        page = f"/docs/runbooks.md#{name.lower()}"
        assert rule["annotations"]["runbook_url"].endswith(page)


def test_alerts_and_dashboards_read_only_this_project_s_job() -> None:
    for where, expression in expressions().items():
        selectors = re.findall(r"\{[^}]*\}", expression)
        assert selectors, where
        for selector in selectors:
            assert f'job="{job_name()}"' in selector, f"{where}: {selector}"


def test_dashboards_have_units_sources_and_no_overlapping_panels() -> None:
    (source,) = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert DASHBOARDS
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        assert dashboard["uid"] == f"{job_name()}-{path.stem}"
        assert job_name() in dashboard["title"]
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            across = range(place["x"], place["x"] + place["w"])
            down = range(place["y"], place["y"] + place["h"])
            cells = {(x, y) for x in across for y in down}
            assert not cells & taken, f"{panel['title']} lies over another panel"
            assert max(x for x, _ in cells) < 24
            taken |= cells
            if panel["type"] == "row":
                continue
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters) > 0
            for part in (panel, *panel["targets"]):
                assert part["datasource"] == {"type": source["type"], "uid": source["uid"]}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('up{job="a"} == 0 or absent(up{job="b"})', {"up"}),
        ("sum by (le, x) (rate(a_bucket[5m])) / ignoring (x) group_left () b", {"a_bucket", "b"}),
        ("time() - max(c offset 10m) > 90 * 86400 unless d", {"c", "d"}),
    ],
)
def test_metrics_are_found_in_an_expression(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


def test_alerts_and_dashboards_read_only_metrics_that_the_server_has(
    watched: tuple[Server, str],
) -> None:
    server, prometheus = watched
    types = re.findall(r"^# TYPE (\S+) (\S+)", server.send("/metrics").text, re.M)
    there = {name for name, kind in types if kind != "histogram"} | PROMETHEUS_SERIES
    there |= {rule["record"] for rule in rules("record")}
    for name, kind in types:
        if kind == "histogram":
            there |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    wrong: dict[str, Any] = {}
    for where, expression in expressions().items():
        answered = get_data(f"{prometheus}/api/v1/query", query=expression)
        if "result" not in answered:
            wrong[where] = answered
        elif unknown := metric_names(expression) - there:
            wrong[where] = unknown
    assert not wrong


def test_no_panel_of_an_idle_server_is_empty_without_a_reason(watched: tuple[Server, str]) -> None:
    _, prometheus = watched

    def samples(expression: str) -> list[str]:
        query = expression.replace("$__rate_interval", "10s")
        result = get_data(f"{prometheus}/api/v1/query", query=query)["result"]
        return [sample["value"][1] for sample in result]

    for early in ("slo:objective", "rate(process_cpu_seconds_total[10s])", "collector_up == 1"):
        until(partial(samples, early))
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] == "row":
                continue
            drawn = [value for target in panel["targets"] for value in samples(target["expr"])]
            assert "NaN" not in drawn, panel["title"]
            reason = panel["fieldConfig"]["defaults"].get("noValue")
            assert drawn or reason, f"{panel['title']} shows nothing"


def test_healthy_server_raises_no_alert_and_a_dead_one_does(
    watched: tuple[Server, str],
) -> None:
    server, prometheus = watched

    def raised() -> list[dict[str, Any]]:
        return get_data(f"{prometheus}/api/v1/alerts")["alerts"]

    time.sleep(3)  # longer than the quick rules wait
    assert raised() == []
    server.process.kill()
    server.process.wait()
    firing = until(lambda: [alert for alert in raised() if alert["state"] == "firing"])
    assert [alert["labels"]["alertname"] for alert in firing] == ["ServerDown"]
    assert server.url.removeprefix("http://") in firing[0]["annotations"]["summary"]


def compose() -> dict[str, dict[str, Any]]:
    return read(PROJECT / "compose.yaml")["services"]


def test_secrets_come_from_env_only_and_the_example_names_every_variable() -> None:
    text = (PROJECT / "compose.yaml").read_text(encoding="utf-8")
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    examples = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.M))
    used = dict(VARIABLE.findall(text))
    assert set(used) == set(examples)
    for name, rest in used.items():
        if "PASSWORD" in name:
            assert rest.startswith(":?"), f"{name} must be given, a default would be used"
            assert examples[name] == "", f"the example must not hold a {name} that works"
        elif "KEY" in name:
            assert rest == ":-"
    for name, service in compose().items():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY|_URL", key):
                bare = VARIABLE.sub("", str(value))
                assert not re.search(r"//\w+:[^@]", bare), f"{name}: {key} holds a secret"
                assert "//" in bare or not bare, f"{name}: {key} holds a secret"


def test_env_stays_out_of_git_and_of_the_image() -> None:
    assert ".env" in (PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    first, *kept = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert first == "*"
    assert not [line for line in kept if line.startswith("!.")]


def test_services_are_pinned_and_sandboxed_and_only_the_api_is_public() -> None:
    stages = re.findall(
        r"^FROM \S+ AS (\w+)", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), re.M
    )
    assert stages[-1] == "server", "the last stage is built by default"
    for name, service in compose().items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if "build" in service:
            assert service["build"].get("target", "server") in stages
        else:
            assert re.search(r":v?\d+(\.\d+\.\d+)?$", service["image"]), f"{name} is not pinned"
            assert service["user"] not in ("root", "0"), name
        if name != "api":
            for port in service.get("ports", ()):
                assert port.startswith("127.0.0.1:"), name
    pins = (PROJECT / "constraints.txt").read_text(encoding="utf-8")
    (tracking,) = re.findall(r"^mlflow-skinny==(\S+)", pins, re.M)
    assert compose()["mlflow"]["image"].endswith(f":v{tracking}")


def test_compose_mounts_exist_or_are_created_by_the_manual() -> None:
    manual = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
    (made,) = re.findall(r"^mkdir -p (.+)$", manual, re.M)
    for name, service in compose().items():
        for volume in service.get("volumes", ()):
            if isinstance(volume, dict):
                assert volume["bind"] == {"create_host_path": False}
                assert Path(volume["source"]).name in made.split()
            elif volume.startswith("./"):
                assert (PROJECT / volume.partition(":")[0]).exists(), f"{name}: {volume}"


@pytest.mark.skipif(sys.platform == "win32", reason="the loop runs in a container, under sh")
def test_retraining_job_survives_a_failure_and_stops_at_once(tmp_path: Path) -> None:
    shell, (loop,) = compose()["retrain"]["entrypoint"], compose()["retrain"]["command"]
    (name,) = re.findall(r"^\s*(\S+) retrain ", loop, re.M)
    command, calls = tmp_path / name, tmp_path / f"{name}-calls"
    fails_once_then_runs = '[ "$(wc -l < "$0-calls")" -lt 2 ] && exit 1\nexec sleep 600\n'
    command.write_text(f'#!/bin/sh\necho "$@" >> "$0-calls"\n{fails_once_then_runs}')
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RETRAIN_EVERY_SECONDS": "0.1"}
    with subprocess.Popen([*shell, loop.replace("$$", "$")], env=env) as process:
        until(lambda: calls.exists() and len(calls.read_text().splitlines()) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert calls.read_text().splitlines() == ["retrain --if-needed"] * 2
