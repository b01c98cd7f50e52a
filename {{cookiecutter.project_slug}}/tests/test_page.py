"""The page to try the model: its files, its policy, and what of the API it uses."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.serving import page
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .servers import started

NAMESPACE = "http://www.w3.org/2000/svg"


def files(client: TestClient, prefix: str = "") -> dict[str, str]:
    """The page and all files that it loads, by address; each must answer."""
    found: dict[str, str] = {}
    waiting = [f"{prefix}/"]
    while waiting:
        address = waiting.pop()
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["content-security-policy"] == page.HEADERS["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        found[address] = answer.text
        links = re.findall(r'(?:src|(?<!id="docs" )href)="([^"]+)"', answer.text)
        links += [f"page/{name}" for name in re.findall(r'from "\./([^"]+)"', answer.text)]
        waiting += [f"{prefix}/{link}" for link in links if f"{prefix}/{link}" not in found]
    return found


def test_page_loads_all_of_its_files_and_nothing_from_elsewhere(client: TestClient) -> None:
    found = files(client)
    there = {path.name for folder in page.FOLDERS for path in folder.iterdir()}
    assert {Path(address).name for address in found if address != "/"} == there - {page.INDEX}
    for address, text in found.items():
        assert not re.search(r"https?://|url\(|@import", text.replace(NAMESPACE, "")), address


def test_page_has_no_inline_script_or_style_which_its_policy_forbids(client: TestClient) -> None:
    html = client.get("/").text
    assert "<style" not in html
    assert not re.search(r"\s(style|on\w+)=", html)
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.S) == [""]
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy


def test_every_address_that_the_page_calls_is_documented(client: TestClient) -> None:
    called = set(re.findall(r'"(v1/[a-z]+)"', "".join(files(client).values())))
    paths = client.get("/openapi.json").json()["paths"]
    assert {"v1/predict", "v1/models", "v1/example"} <= called
    assert all(f"/{path}" in paths for path in called - {"v1/feedback"})
    offered = "yes" if "/v1/feedback" in paths else "no"
    assert f'data-feedback="{offered}" data-docs="yes"' in client.get("/").text


def test_page_offers_what_the_server_has(deployment: Path) -> None:
    without = {"feedback": False} if "feedback" in ServerSettings.model_fields else {}
    with started(deployment, **without) as client:
        assert 'data-feedback="no" data-docs="yes"' in client.get("/").text
        assert client.post("/v1/feedback", json={}).status_code == 404


def test_the_example_is_answered(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.get("/v1/example")
    assert answer.json() == example
    assert client.post("/v1/predict", json=answer.json()).status_code == 200


def test_without_a_model_the_example_says_why(tmp_path: Path) -> None:
    with started(tmp_path / "nowhere") as client:
        answer = client.get("/v1/example")
        assert answer.status_code == 503
        assert answer.json()["detail"][0]["type"] == "no_model"
        assert client.get("/").status_code == 200


def test_page_can_be_switched_off(deployment: Path) -> None:
    with started(deployment, page=False) as client:
        assert client.get("/", follow_redirects=False).headers["location"] == "docs"
        for path in ("/page/page.js", "/v1/example"):
            assert client.get(path).status_code == 404, path


@pytest.mark.parametrize("sent", ["/models/one", ""], ids=["left", "removed"])
def test_page_works_behind_a_proxy_that_adds_a_prefix(deployment: Path, sent: str) -> None:
    with started(deployment, root_path="/models/one") as client:
        client.event_hooks = {"response": []}
        assert f"{sent}/page/page.js" in files(client, sent)
        assert client.get(f"{sent}/v1/example").status_code == 200
        assert client.head(f"{sent}/").headers["content-type"] == "text/html; charset=utf-8"


def test_page_is_open_and_what_it_asks_for_needs_a_key(deployment: Path) -> None:
    with started(deployment, api_keys="first-key") as client:
        assert files(client)
        assert client.get("/v1/example").status_code == 401
        assert client.get("/v1/example", headers={"x-api-key": "first-key"}).status_code == 200


@pytest.mark.parametrize("name", ["page.py", "..%2fpage.py", "%2e%2e/page.py", "/etc/passwd", ""])
def test_only_the_files_of_the_list_are_served(client: TestClient, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_browser_keeps_a_file_until_it_changes(client: TestClient) -> None:
    for path in ("/", "/page/page.js"):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get(path, headers={"if-none-match": '"of-before"'})
        assert other.content == first.content
