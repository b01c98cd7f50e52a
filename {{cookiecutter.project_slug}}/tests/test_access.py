"""API keys, CORS, and the promises of the OpenAPI documentation."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package_name }}.client import Client
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving.app import create_app
from {{ cookiecutter.package_name }}.serving.schemas import ErrorResponse, PredictResponse
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .quick import BAD_ITEMS
from .servers import inside, running, sample, started, until

KEYS = "first-key,second-key"
WITHOUT_KEY = [
    {},
    {"x-api-key": ""},
    {"x-api-key": KEYS},
    {"x-api-key": "first"},
    {"authorization": "Bearer"},
    {"authorization": "Basic first-key"},
    {"authorization": "first-key"},
]
PAGE = "https://pages.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "first-key"},
        {"x-api-key": "second-key"},
        {"authorization": "Bearer first-key"},
        {"authorization": "bearer second-key"},
        {"x-api-key": "first-key", "authorization": "Bearer of-another-service"},
        {"x-api-key": "of-another-service", "authorization": "Bearer first-key"},
    ],
)
def test_each_api_key_is_accepted_in_both_headers(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        assert client.post("/v1/predict", json=example, headers=headers).status_code == 200
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_key_that_is_known_by_its_hash_is_accepted_and_the_hash_is_no_key(
    deployment: Path, example: dict[str, Any], tmp_path: Path
) -> None:
    hashed = [f"sha256:{sha256(key).hexdigest()}" for key in (b"one", b"other")]
    (tmp_path / "keys").write_text(hashed[1].upper().replace("SHA", "sha"))
    settings = {"api_keys": hashed[0], "api_keys_file": tmp_path / "keys"}
    with started(deployment, **settings) as client:
        for key, status in (("one", 200), ("other", 200), (hashed[0], 401), ("third", 401)):
            answer = client.post("/v1/predict", json=example, headers={"x-api-key": key})
            assert answer.status_code == status, key


@pytest.mark.parametrize("key", ["sha256:", "sha256:abc", f"sha256:{'x' * 64}"])
def test_hash_that_is_none_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(UserError, match=r"api_keys: .*64 hexadecimal digits"):
        load_settings(ServerSettings, overrides=[f"api_keys=right,{key}"])


@pytest.mark.parametrize("headers", WITHOUT_KEY)
def test_without_a_valid_key_only_health_metrics_and_docs_answer(
    deployment: Path, example: dict[str, Any], headers: dict[str, str]
) -> None:
    with started(deployment, api_keys=KEYS) as client:
        for answer in (
            client.post("/v1/predict", json=example, headers=headers),
            client.get("/v1/models", headers=headers),
        ):
            assert_asks_for_a_key(client, answer)
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path, headers=headers).status_code == 200, path
        assert sample(client, "http_requests_total", route="/v1/predict", status="401") == 1
        assert sample(client, "http_requests_total", status="401") == 2


def assert_asks_for_a_key(client: TestClient, answer: Any) -> None:
    assert answer.status_code == 401
    assert answer.json()["detail"][0]["loc"] == ["header", "x-api-key"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    version = client.get("/readyz").json()["model_version"]
    assert answer.headers["x-model-version"] == version
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("setting", "secret"),
    [
        ("api_keys=good-one,change-me", "good-one"),
        ("api_keys=Secret", "Secret"),
    ],
)
def test_production_refuses_well_known_secrets(setting: str, secret: str) -> None:
    load_settings(ServerSettings, None, [setting])
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["environment=production", setting])
    (line,) = str(raised.value).splitlines()
    assert f"command line: {setting.partition('=')[0]}: " in line
    assert secret not in line


def test_production_accepts_random_secrets() -> None:
    settings = ["environment=production", "api_keys=long-and-random"]
    assert load_settings(ServerSettings, None, settings).api_keys == ["long-and-random"]


def test_error_of_an_invalid_setting_shows_no_secret() -> None:
    with pytest.raises(UserError) as raised:
        load_settings(ServerSettings, None, ["api_keys=hunter2,x", "environment=test"])
    assert "hunter2" not in str(raised.value)


def status(client: TestClient, path: str = "/v1/models", **headers: str) -> int:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(path, headers=headers).status_code


def test_keys_in_a_file_change_without_a_restart(deployment: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old-key\n")
    with started(deployment, api_keys_file=file, api_keys="fixed-key") as client:
        keys = ("old-key", "new-key", "fixed-key")

        def valid() -> list[bool]:
            return [status(client, x_api_key=key) == 200 for key in keys]

        assert valid() == [True, False, True]
        for text, expected in (
            ("old-key\nnew-key\n", [True, True, True]),  # callers change over
            ("new-key", [False, True, True]),
        ):
            file.write_text(text)
            until(lambda expected=expected: valid() == expected)


@pytest.mark.parametrize("content", ["", "\n,\n", None, b"\xff"])
def test_unusable_file_of_keys_keeps_the_keys_and_is_logged_once(
    deployment: Path, tmp_path: Path, content: str | bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text("a-key\n")
    with started(deployment, api_keys_file=file) as client:
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

        def failures() -> list[str]:
            return [r.message for r in caplog.records if r.message == "API keys not changed"]

        until(failures)
        assert status(client, x_api_key="a-key") == 200
        assert status(client) == 401
        inside(client).access.read_keys()
        assert len(failures()) == 1
        file.write_text("b-key")
        until(lambda: status(client, x_api_key="b-key") == 200)


def test_start_without_a_usable_file_of_keys_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for content, reason in ((None, "cannot be read"), ("", "holds no key"), ("secret", "")):
        if content is not None:
            file.write_text(content)
        variables = {"APP_API_KEYS_FILE": str(file), "APP_ENVIRONMENT": "production"}
        with pytest.raises(UserError, match=r"^\$APP_API_KEYS_FILE: .*" + reason):
            load_settings(ServerSettings, None, [], variables)


def test_client_takes_its_key_from_the_file(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("first-key\nsecond-key\n")
    monkeypatch.delenv("APP_API_KEYS", raising=False)
    monkeypatch.setenv("APP_API_KEYS_FILE", str(tmp_path / "keys"))
    with running(deployment) as server, Client(server.url) as client:
        assert server.send("/v1/models").status == 401
        assert client.get("/v1/models")["models"]


@pytest.mark.parametrize(("access", "expected"), [("open", 200), ("key", 401), ("off", 404)])
def test_metrics_can_be_closed(deployment: Path, access: str, expected: int) -> None:
    with started(deployment, api_keys=KEYS, metrics=access) as client:
        assert status(client, "/metrics") == expected
        assert status(client, "/healthz") == 200
        with_key = status(client, "/metrics", x_api_key="first-key")
        assert with_key == (404 if access == "off" else 200)


def test_metrics_with_a_key_need_one() -> None:
    with pytest.raises(UserError, match="command line: metrics=key: set api_keys"):
        load_settings(ServerSettings, None, ["metrics=key"])


def test_docs_can_be_closed(deployment: Path) -> None:
    settings = ServerSettings(deployment_dir=deployment, docs=False, page=False)
    application = create_app(settings)
    with TestClient(application, "http://127.0.0.1") as client:
        for path in ("/docs", "/openapi.json", "/", "/swagger/swagger-ui.css"):
            assert status(client, path) == 404, path
        assert status(client, "/v1/models") == 200


@pytest.mark.parametrize(
    ("settings", "host", "allowed"),
    [
        ({}, "127.0.0.1:8000", True),
        ({}, "LocalHost:8000", True),
        ({}, "[::1]:8000", True),
        ({}, "rebound.example", False),
        ({}, "127.0.0.1.rebound.example:8000", False),
        ({"host": "0.0.0.0"}, "rebound.example", True),
        ({"allowed_hosts": "api.example, b.example"}, "API.example:80", True),
        ({"allowed_hosts": "api.example"}, "127.0.0.1", True),
        ({"host": "0.0.0.0", "allowed_hosts": "api.example"}, "rebound.example", False),
        ({"allowed_hosts": "*"}, "rebound.example", True),
    ],
)
def test_foreign_host_header_is_refused(
    deployment: Path,
    example: dict[str, Any],
    settings: dict[str, str],
    host: str,
    allowed: bool,
) -> None:
    """DNS rebinding: a web page whose own name points at this machine."""
    with started(deployment, **settings) as client:
        client.event_hooks = {}  # this refusal is the same for all routes and documented for none
        headers = {"host": host}
        for answer in (
            client.post("/v1/predict", json=example, headers=headers),
            client.get("/metrics", headers=headers),
        ):
            assert answer.status_code == (200 if allowed else 400)
            if not allowed:
                assert answer.json()["detail"][0]["loc"] == ["header", "host"]
        assert status(client, "/healthz", host=host) == 200, "platforms use any name"


@pytest.mark.parametrize("sent", ["/models/one", ""], ids=["left", "removed"])
def test_server_works_behind_a_proxy_that_adds_a_prefix(
    deployment: Path, example: dict[str, Any], sent: str
) -> None:
    settings = {"root_path": "/models/one", "api_keys": KEYS}
    with started(deployment, **settings) as client:
        client.event_hooks = {"response": []}
        key = {"x-api-key": "first-key"}
        assert client.post(f"{sent}/v1/predict", json=example).status_code == 401
        assert client.post(f"{sent}/v1/predict", json=example, headers=key).status_code == 200
        assert status(client, f"{sent}/v1/models") == 401
        assert status(client, f"{sent}/v1/models", **key) == 200
        assert sample(client, "http_requests_total", route="/v1/predict", status="200") == 1
        page = client.get(f"{sent}/docs").text
        for link in re.findall(r"""(?:src|href)=["']([^"']+)""", page):
            assert status(client, f"{sent}/{link}") == 200, link
        assert "url: 'openapi.json'" in page
        schema = client.get(f"{sent}/openapi.json").json()
        assert schema["servers"] == [{"url": "/models/one"}]  # for "try it out"
        assert "/v1/predict" in schema["paths"]
        assert client.head(f"{sent}/docs").status_code == 200


@pytest.mark.parametrize("prefix", ["models", "/models/", "/mo dels", "//"])
def test_invalid_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(UserError, match="root_path"):
        load_settings(ServerSettings, None, [f"root_path={prefix}"])


def test_cors_is_off_by_default(client: TestClient, example: dict[str, Any]) -> None:
    answer = client.post("/v1/predict", json=example, headers={"origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    assert client.options("/v1/predict", headers=preflight).status_code == 405


def test_cors_allows_the_configured_origins_only(deployment: Path, example: dict[str, Any]) -> None:
    settings = {"cors_origins": PAGE, "api_keys": KEYS}
    preflight = {"access-control-request-method": "POST"}
    preflight["access-control-request-headers"] = "content-type,x-api-key"
    key = {"x-api-key": "first-key"}
    with started(deployment, **settings) as client:
        for origin, allowed in ((PAGE, True), ("https://elsewhere.example", False)):
            before = client.options("/v1/predict", headers={"origin": origin, **preflight})
            assert (before.status_code == 200) == allowed
            headers = {"origin": origin, **key}
            answer = client.post("/v1/predict", json=example, headers=headers)
            assert (answer.headers.get("access-control-allow-origin") == PAGE) == allowed


def test_unknown_path_and_method_get_errors_in_the_common_form(client: TestClient) -> None:
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/predict"), 405)):
        assert answer.status_code == status
        assert answer.json()["detail"][0]["msg"]
        assert answer.json()["request_id"]


def test_docs_page_needs_no_internet(client: TestClient) -> None:
    page = client.get("/docs").text
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert links
    for link in links:
        assert not re.match(r"(https?:)?//", link), link
        assert client.get(f"/{link}").status_code == 200


def test_documented_example_works_and_every_status_is_documented(
    client: TestClient,
) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert client.post("/v1/predict", json=content["example"]).status_code == 200
    assert set(content["example"]["items"][0]) <= set(fields(content["schema"]))
    statuses = {"200", "400", "401", "408", "413", "415", "422", "503", "504"}
    assert set(operation["responses"]) == statuses
    assert "$ref" not in json.dumps(operation["requestBody"])
    for status, answer in operation["responses"].items():
        name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert name == ("PredictResponse" if status == "200" else "ErrorResponse")


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of an item, from the schema of a request."""
    item = schema["properties"]["items"]["items"]
    assert item["additionalProperties"] is schema["additionalProperties"] is False
    return item["properties"]


def test_bodies_that_violate_the_documented_schema_get_422(
    client: TestClient, example: dict[str, Any]
) -> None:
    """Counter-examples: items with a field that is unknown, or without one that is required."""
    schema = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["requestBody"]
    schema = schema["content"]["application/json"]["schema"]
    item = schema["properties"]["items"]["items"]
    unknown = [bad for bad, field in BAD_ITEMS if field in bad and field not in fields(schema)]
    missing = [
        {name: value for name, value in example["items"][0].items() if name != required}
        for required in item.get("required", ())
    ]
    assert unknown or missing
    for bad in (*unknown, *missing):
        assert client.post("/v1/predict", json={"items": [bad]}).status_code == 422
    limit = schema["properties"]["items"]["maxItems"]
    for count, status in ((0, 422), (limit, 200), (limit + 1, 422)):
        answer = client.post("/v1/predict", json={"items": example["items"][:1] * count})
        assert answer.status_code == status


def test_responses_match_the_documented_schema(client: TestClient, example: dict[str, Any]) -> None:
    """The predict path writes its response without the schema."""
    answer = client.post("/v1/predict", json=example)
    PredictResponse.model_validate_json(answer.content, strict=True, extra="forbid")
    ErrorResponse.model_validate_json(client.post("/v1/predict", json={}).content, extra="forbid")


def test_models_lists_metrics_measured_after_training(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["models"]
    assert model["variant"] == "champion"
    assert model["share"] is None
    assert model["metrics"]
    assert model["baseline_metrics"]
