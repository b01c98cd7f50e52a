"""Requests that take long to parse keep nobody else waiting: another process parses them."""

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.serving import parser_process, predict

from .quick import BAD_ITEMS
from .servers import close, inside, processes, running, until

NESTED = b"[" * 100 + b"]" * 100
SLOW = b'{"items":[' + b",".join([NESTED] * 2000) + b"]}"


def parser_of(client: TestClient) -> parser_process.ParserProcess:
    return inside(client).predict.parser


@pytest.fixture
def all_large(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server that takes every request for a large one."""
    monkeypatch.setattr(predict, "LARGE_SECONDS", -1)
    return client


def test_large_request_is_answered_and_refused_like_any_other(
    client: TestClient, request_items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = [{"items": request_items[:5]}, {}, {"items": []}, {"items": request_items, "x": 1}]
    bodies += [{"items": [request_items[0], item]} for item, _ in BAD_ITEMS]
    texts = [*map(json.dumps, bodies), '{"items": [', "\\ud800", ""]

    def answers() -> list[tuple[int, Any]]:
        headers = {"content-type": "application/json", "x-request-id": "the-same"}
        sent = (client.post("/v1/predict", content=text, headers=headers) for text in texts)
        return [(answer.status_code, answer.json()) for answer in sent]

    monkeypatch.setattr(predict, "LARGE_SECONDS", math.inf)
    before = answers()
    assert parser_of(client)._process is None
    monkeypatch.setattr(predict, "LARGE_SECONDS", -1)
    after = answers()
    assert parser_of(client)._process is not None
    assert [status for status, _ in before] == [status for status, _ in after]
    assert close([content for _, content in before], [content for _, content in after], 1e-5)


def test_parser_that_dies_is_replaced(all_large: TestClient, example: dict[str, Any]) -> None:
    assert all_large.post("/v1/predict", json=example).status_code == 200
    process = parser_of(all_large)._process
    assert process is not None
    process.kill()
    process.wait()
    assert all_large.post("/v1/predict", json=example).status_code == 200


def test_too_much_to_parse_is_refused_or_told_to_come_back(
    client: TestClient, example: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/predict", content=SLOW * 5, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"][0]["type"] == "too_slow"
    parser_of(client)._waiting = parser_process.MAX_LARGE_SECONDS
    answer = client.post("/v1/predict", content=SLOW, headers=headers)
    assert answer.status_code == 503
    assert client.post("/v1/predict", json=example).status_code == 200


@pytest.mark.parametrize(
    "body", [b"[1" + b",1" * 10**6 + b"]", SLOW, b"{" + b'"a":1,' * 10**5 + b'"a":1}']
)
def test_cost_of_parsing_is_seen_in_what_a_body_holds(body: bytes) -> None:
    assert parser_process.parse_seconds(body) > parser_process.LARGE_SECONDS


def test_one_large_text_is_quick_to_parse() -> None:
    body = json.dumps({"items": [{"image": "A" * 4_000_000}]}).encode()
    assert parser_process.parse_seconds(body) < parser_process.LARGE_SECONDS


def test_parser_ends_with_the_server_even_if_that_is_killed(deployment: Path) -> None:
    with running(deployment) as server:
        before = set(processes(server))
        assert server.send("/v1/predict", {"items": [[[]] * 10_000]}).status == 422
        assert len(set(processes(server)) - before) == 1
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        until(lambda: not processes(server))
