"""The prediction log names who was answered by which model, and in which test."""

from pathlib import Path
from typing import Any

from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle.deployment import BundleRef

from .prediction_log import log_rows, written
from .servers import challenge, started, until
from .test_routing import SHARES, challenger, change_shares_under_load

__all__ = ["challenger"]  # a fixture


def test_logged_unit_follows_the_configured_caller_header(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    challenge(deployment, challenger, 0.5)
    with started(deployment, caller_header="x-user") as client:
        units: dict[str, set[str]] = {}
        for number in range(6):
            headers = {"x-user": f"u{number % 2}", "x-caller-key": f"{number}"}
            headers["x-request-id"] = f"{number}"
            client.post("/v1/predict", json=example, headers=headers)
        for row in written(client):
            units.setdefault(f"u{int(row['client_id']) % 2}", set()).add(row["unit"])
    assert all(len(same) == 1 for same in units.values())
    assert units["u0"] != units["u1"]


def test_each_share_is_logged_as_a_test_of_its_own(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    champion = folder.read_deployment(deployment).champion.version
    with started(deployment) as client:
        answers = change_shares_under_load(client, deployment, challenger, example)
        rows = written(client)
    assert len(rows) == len(answers)
    tests = {row["test"] for row in rows}
    expected = [f"{champion}~{challenger.version}@split:{s:g}:at {s}" for s in SHARES]
    assert tests == {None, *expected}


def test_shadow_is_logged_under_the_same_request_id(
    deployment: Path, challenger: BundleRef, example: dict[str, Any]
) -> None:
    challenge(deployment, challenger, 1.0, "shadow")
    with started(deployment) as client:
        for number in range(20):
            headers = {"x-request-id": f"r{number}", "x-caller-key": "me"}
            client.post("/v1/predict", json=example, headers=headers)
        until(lambda: len(written(client)) == 40)
    pairs: dict[str, list[dict[str, Any]]] = {}
    for row in log_rows():
        pairs.setdefault(row["request_id"], []).append(row)
    assert len(pairs) == 20
    for one, other in pairs.values():
        assert {one["variant"], other["variant"]} == {"champion", "shadow"}
        assert one["model_version"] != other["model_version"]
        # the same model under two versions: all but name and time is the same
        for column in one.keys() - {"id", "at", "milliseconds", "model_version", "variant"}:
            assert one[column] == other[column], column
