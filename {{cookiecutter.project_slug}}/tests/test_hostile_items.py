"""Mutated real items: each is answered or refused by name, and harms no other request."""

import base64
import binascii
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.load import load_bundle
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.serving.scheduler import (
    LatencyProfile,
    ModelQueue,
    PendingRequest,
    RequestResult,
    WorkerPool,
)
from {{ cookiecutter.package_name }}.task.contract import Item

from .quick import ODD_ITEMS
from .servers import close

MUTANTS = 150
ODD: list[Any] = [
    *(None, True, "", "\0", "\ud800", "x" * 10_000, "🦘\u202e", " ", "1.0", "[PAD]", [], {}, [[]]),
    *(1e308, -1e308, 5e-324, math.inf, math.nan, 2**63, -1, 0, "9999-12-31T23:59:59", "0001-01-01"),
]


def mutated(value: Any, draw: random.Random) -> Any:
    """Change one place of a JSON value, at any depth."""
    if isinstance(value, dict | list) and value and draw.random() < 0.9:
        place = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        copy[place] = mutated(value[place], draw)
        if draw.random() < 0.1:
            del copy[place]
        return copy
    if isinstance(value, str) and value and draw.random() < 0.7:
        return damaged(value, draw)
    return draw.choice(ODD)


def damaged(text: str, draw: random.Random) -> str:
    """Flip a byte of what base64 holds, cut the text, or put something odd into it."""
    place, kind = draw.randrange(len(text)), draw.randrange(3)
    if kind == 0:
        try:
            content = bytearray(base64.b64decode(text, validate=True))
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            return base64.b64encode(content).decode()
        except (ValueError, binascii.Error):
            pass
    odd = draw.choice(["\0", "\ud800", "é", "\u0301" * 50, "-", "1" * 500, "\n"])
    return text[:place] if kind == 1 else text[:place] + odd + text[place:]


@pytest.fixture
def hostile(request_items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    draw = random.Random(0)
    real = [*request_items[:10], *ODD_ITEMS]
    return [*ODD_ITEMS, *(mutated(draw.choice(real), draw) for _ in range(MUTANTS))]


def test_hostile_item_is_answered_or_refused_by_name(
    client: TestClient, example: dict[str, Any], hostile: list[dict[str, Any]]
) -> None:
    statuses = set()
    before = len(example["items"])
    for item in hostile:
        body = json.dumps({"items": [*example["items"], item]})
        headers = {"content-type": "application/json"}
        answer = client.post("/v1/predict", content=body, headers=headers)
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 400, 422), (answer.text, body[:500])
        if answer.status_code == 422:
            assert answer.json()["detail"][0]["loc"][:3] == ["body", "items", before]
    assert statuses >= {200, 422}


def test_hostile_item_gets_the_same_result_alone_and_beside_others(
    deployment: Path, request_items: list[dict[str, Any]], hostile: list[dict[str, Any]]
) -> None:
    bundle, pool = load_bundle(*folder.champion_path(deployment)), WorkerPool(1)
    queue = ModelQueue(bundle, LatencyProfile(1, 1), pool)
    good = [Item.model_validate(item) for item in request_items[:2]]
    (expected,) = queue.run([PendingRequest(good)])
    answered = 0
    for value in hostile:
        try:
            item = Item.model_validate_json(json.dumps(value))
        except ValidationError:
            continue
        (alone,) = queue.run([PendingRequest([item])])
        before, beside, after = queue.run(
            [PendingRequest(good), PendingRequest([item]), PendingRequest(good)]
        )
        answered += isinstance(alone, RequestResult)
        for result, wanted in ((before, expected), (beside, alone), (after, expected)):
            assert type(result) is type(wanted)
            assert isinstance(result, RequestResult | InvalidItem), value
            assert close(comparable(result), comparable(wanted), 1e-5), value
    pool.close()
    assert answered > 10, "too few of them are valid"


def comparable(result: Any) -> Any:
    if isinstance(result, RequestResult):
        return json.loads(result.body)
    return [result.index, result.field, str(result)]
