"""Bytes on real sockets: bounds of headers and connections, offers of other protocols, HEAD."""

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from .servers import PATIENCE, Server, running, total, until

LIMITS: dict[str, Any] = {"max_header_bytes": 4096, "header_seconds": 600, "max_connections": 20}
JSON = "content-type: application/json"
H2C = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAA"


@pytest.fixture(scope="module")
def bounded(trained: Path) -> Iterator[Server]:
    """Run a server with small limits."""
    with running(trained / "deployment", workers=1, **LIMITS) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(trained: Path) -> Iterator[Server]:
    """Run a server that waits a second for a header."""
    with running(trained / "deployment", header_seconds=1) as server:
        yield server


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection(
        (str(address.hostname), address.port or 0), timeout=PATIENCE
    ) as client:
        yield client


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    """Write a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
    lines += [f"content-length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def response(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response: status, headers, body."""
    with client.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name] = value
        return status, headers, stream.read(int(headers.get("content-length", 0)))


def refused(client: socket.socket, status: int, kind: str) -> None:
    """Check that the response is this refusal and that the server closes the connection."""
    got, headers, body = response(client)
    assert got == status
    assert headers["connection"] == "close"
    content = json.loads(body)
    assert content["detail"][0]["type"] == kind
    assert content["request_id"] == headers["x-request-id"]
    assert client.recv(1) == b""


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 5000],
        [b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 5000 + b"\r\n\r\n"],
        [b"GET /" + b"a" * 5000],
        [b"GET /healthz HTTP/1.1\r\n", *[b"x: a\r\n" * 100] * 10],
        [
            request("/v1/predict", b"", JSON, "transfer-encoding: chunked"),
            b"0\r\nx: " + b"a" * 2**20,
        ],
        [request("/v1/predict", b"", JSON, "transfer-encoding: chunked"), b"1;" + b"a" * 2**20],
    ],
    ids=["header", "whole", "path", "many", "trailer", "extension"],
)
def test_header_without_end_gets_431_at_the_bound(bounded: Server, parts: list[bytes]) -> None:
    with connected(bounded) as client:
        for part in parts:
            client.sendall(part)
        refused(client, 431, "header_too_large")


def test_response_is_written_at_once(bounded: Server, example: dict[str, Any]) -> None:
    with connected(bounded) as client:
        for _ in range(20):
            client.sendall(request("/v1/predict", json.dumps(example).encode(), JSON))
            head, _, body = client.recv(2**16).partition(b"\r\n\r\n")
            assert b"content-length: %d\r\n" % len(body) in head


def test_client_that_waits_for_100_continue_gets_it_first(
    bounded: Server, example: dict[str, Any]
) -> None:
    whole = request("/v1/predict", json.dumps(example).encode(), JSON, "expect: 100-continue")
    head, separator, body = whole.partition(b"\r\n\r\n")
    with connected(bounded) as client:
        client.sendall(head + separator)
        assert client.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert response(client)[0] == 200


def test_header_below_the_bound_may_come_with_a_large_body(
    bounded: Server, example: dict[str, Any]
) -> None:
    body = json.dumps(example).encode() + b" " * 50_000
    with connected(bounded) as client:
        client.sendall(request("/v1/predict", body, JSON, "x: " + "a" * 3000))
        assert response(client)[0] == 200


def test_half_a_header_gets_408(hasty: Server) -> None:
    with connected(hasty) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: local")
        refused(client, 408, "request_too_slow")


def test_header_without_its_body_gets_408(hasty: Server) -> None:
    with connected(hasty) as client:
        client.sendall(request("/v1/predict", b"{}", JSON)[:-2])
        refused(client, 408, "request_too_slow")


def test_half_a_header_after_a_request_gets_408(hasty: Server) -> None:
    with connected(hasty) as client:
        client.sendall(request("/healthz", method="GET"))
        assert response(client)[0] == 200
        client.sendall(b"GET /hea")
        refused(client, 408, "request_too_slow")


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_connection_without_a_request_is_closed(hasty: Server, sent: bytes) -> None:
    with connected(hasty) as client:
        client.sendall(sent)
        assert client.recv(1) == b""


def test_idle_connection_stays_open_between_requests(deployment: Path) -> None:
    with running(deployment, header_seconds=1) as server, connected(server) as idle:
        idle.sendall(request("/healthz", method="GET"))
        assert response(idle)[0] == 200
        with connected(server) as other:
            assert other.recv(1) == b"", "more than header_seconds have passed"
        idle.sendall(request("/healthz", method="GET"))
        assert response(idle)[0] == 200


def test_connections_beyond_the_bound_are_refused_and_those_before_are_served(
    deployment: Path, example: dict[str, Any]
) -> None:
    body = json.dumps(example).encode()
    with (
        running(deployment, max_connections=5, header_seconds=600) as server,
        contextlib.ExitStack() as stack,
    ):
        first, *_ = [stack.enter_context(connected(server)) for _ in range(5)]
        first.sendall(request("/healthz", method="GET"))
        assert response(first)[0] == 200  # all five were accepted before it was answered
        for _ in range(20):
            with connected(server) as more:
                refused(more, 503, "connections")
        first.sendall(request("/v1/predict", body, JSON))
        assert response(first)[0] == 200
        first.sendall(request("/metrics", method="GET"))
        text = response(first)[2].decode()
        assert total(text, "http_requests_total", route="unknown", status="503") == 20


def test_closed_connections_make_room_for_others(bounded: Server) -> None:
    for _ in range(3 * LIMITS["max_connections"]):
        with connected(bounded) as client:
            client.sendall(b"G")
    until(bounded.ready)


@pytest.mark.parametrize("offer", [H2C, "connection: upgrade\r\nupgrade: websocket"])
def test_offers_of_other_protocols_are_ignored(
    bounded: Server, example: dict[str, Any], offer: str
) -> None:
    """curl --http2 and Java's HttpClient offer h2c, some with the body in a later packet."""
    body = json.dumps(example).encode()
    whole = request("/v1/predict", body, JSON, offer, "x-request-id: mine")
    head = len(whole) - len(body)
    for cut in (len(whole), head, head - 1, head + 5):
        with connected(bounded) as client:
            client.sendall(whole[:cut])
            client.sendall(whole[cut:])
            status, headers, content = response(client)
            assert status == 200, content
            assert headers["x-request-id"] == "mine"
            client.sendall(request("/healthz", method="GET"))  # the connection goes on
            assert response(client)[0] == 200


def test_many_offers_in_one_packet_are_all_answered(bounded: Server) -> None:
    offer = request("/healthz", b"", "connection: upgrade", "upgrade: x", method="GET")
    with connected(bounded) as client, client.makefile("rb") as stream:
        client.sendall(offer * 40 + request("/healthz", b"", "connection: close", method="GET"))
        content = stream.read()
    assert content.count(b"HTTP/1.1 200 OK\r\n") == 41


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_400(bounded: Server, sent: bytes) -> None:
    with connected(bounded) as client:
        client.sendall(sent)
        refused(client, 400, "http")


def test_head_is_answered_like_get_without_a_body(bounded: Server) -> None:
    for path in ("/healthz", "/readyz", "/v1/models", "/docs", "/openapi.json", "/", "/nowhere"):
        answers = []
        for method in ("GET", "HEAD"):
            with connected(bounded) as client:
                client.sendall(request(path, b"", "connection: close", method=method))
                content = b"".join(iter(lambda c=client: c.recv(65536), b""))
                answers.append(content.partition(b"\r\n\r\n"))
        (get, _, body), (head, _, nothing) = answers
        assert nothing == b"", path
        names = [{line.partition(b":")[0] for line in part.split(b"\r\n")} for part in (get, head)]
        assert names[0] == names[1], path
        length = b"content-length: %d" % len(body)
        assert length in get, path
        assert length in head, path


def test_metrics_answer_head(bounded: Server) -> None:
    with connected(bounded) as client:
        client.sendall(request("/metrics", b"", "connection: close", method="HEAD"))
        content = b"".join(iter(lambda: client.recv(65536), b""))
    assert content.startswith(b"HTTP/1.1 200")
    assert content.endswith(b"\r\n\r\n")


def test_connection_goes_on_after_head(bounded: Server) -> None:
    with connected(bounded) as client:
        client.sendall(request("/readyz", b"", method="HEAD"))
        head = client.recv(65536)
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        client.sendall(request("/readyz", b"", "connection: close", method="GET"))
        assert b"".join(iter(lambda: client.recv(65536), b"")).startswith(b"HTTP/1.1 200")


def test_flood_of_one_client_delays_nobody(bounded: Server) -> None:
    """A client that sends a header without end until it is cut off."""
    with connected(bounded) as flood:
        flood.sendall(b"GET / HTTP/1.1\r\nx: ")
        with contextlib.suppress(OSError):
            for _ in range(2000):
                flood.sendall(b"a" * 65536)
        assert bounded.send("/healthz").status == 200


def test_compressed_body_on_a_real_connection(bounded: Server, example: dict[str, Any]) -> None:
    body = gzip.compress(json.dumps(example).encode())
    with connected(bounded) as client:
        client.sendall(request("/v1/predict", body, JSON, "content-encoding: gzip"))
        assert response(client)[0] == 200
