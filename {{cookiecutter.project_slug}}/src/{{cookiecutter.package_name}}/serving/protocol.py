"""uvicorn's HTTP/1.1 protocol with bounds, so that no connection harms the others.

uvicorn 0.54 bounds neither the size nor the time of a header, its `limit_concurrency` also refuses
requests of those who are connected already, and it loses the body of a request that offers another
protocol.
"""

import asyncio
from http import HTTPStatus
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .context import RequestError, new_request_id
from .metrics import ServerMetrics
from .models import CHAMPION
from .settings import CoreServerSettings

# For a refused client to finish sending: who is cut off while it sends cannot read why.
LINGER_SECONDS = 1.0
LINGER_BYTES = 2**22
OFFERS = {b"connection", b"upgrade", b"http2-settings"}  # headers about this connection alone


class HeaderTooLarge(Exception):
    """A header is longer than `max_header_bytes`."""


class HeadWithBody:
    """A transport that writes the head of a response together with its body.

    uvicorn writes them one after the other. The first wakes a client on this machine, which then
    takes the core from the server only to wait for the second.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None and not data.startswith(b"HTTP/1.1 100 "):
            self._head = data
        elif self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """Bound headers and connections, ignore `Upgrade`. The application's state has the settings."""

    _waiting = False  # for the rest of a header, or for the first part of its body
    _refused = False
    _bytes = 0  # received since a header or a part of a body was complete
    _timer: asyncio.TimerHandle | None = None  # runs while no request has arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._settings: CoreServerSettings = self.app_state["settings"]
        self._metrics: ServerMetrics = self.app_state["metrics"]
        self._limit = self._settings.max_header_bytes
        if len(self.connections) > self._settings.max_connections:
            self._refuse(503, "too many connections, retry later", "connections")
            self.transport.close()
        else:
            self._restart_timer(waiting=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._restart_timer(waiting=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._refused:
            if self._bytes > LINGER_BYTES:
                self.transport.close()
            return
        self._unset_keepalive_if_required()
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as offer:
                    data = self._request_without_upgrade() + data[offer.args[0] :]
            if self._bytes > self._limit:  # also of trailers and of chunks' extensions
                raise HeaderTooLarge
        except (httptools.HttpParserError, HeaderTooLarge) as error:
            if HeaderTooLarge in (type(error), type(error.__context__)):
                message = f"header is larger than {self._limit:,} bytes"
                self._refuse(431, message, "header_too_large")
            else:
                self._refuse(400, "invalid HTTP request", "http")
            return
        idle = self.cycle is None or self.cycle.response_complete
        self._restart_timer(waiting=idle or (self._waiting and self.cycle.more_body))

    # httptools calls the next four while it parses.
    def on_message_begin(self) -> None:
        self._waiting = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # What arrived may be mostly body, so only then count exactly.
        if self._bytes > self._limit:
            length = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if len(self.url) + length > self._limit:
                raise HeaderTooLarge
        self._bytes = 0
        if not self.parser.should_upgrade():  # else it is parsed once more
            super().on_headers_complete()
            if self.cycle is not None and self.scope["method"] != "HEAD":  # that has no body
                self.cycle.transport = cast(asyncio.Transport, HeadWithBody(self.transport))

    def on_body(self, body: bytes) -> None:
        self._waiting, self._bytes = False, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._waiting, self._bytes = False, 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _request_without_upgrade(self) -> bytes:
        """Return the header without its offer of another protocol, for a new parser.

        A server may ignore such an offer (RFC 9110, 7.8), but httptools ends the request with it.
        curl --http2 and Java's HttpClient offer h2c with each first request.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":  # to a parser an offer too
            raise httptools.HttpParserError
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in OFFERS]
        connection = b",".join(value for name, value in self.headers if name == b"connection")
        if b"close" in [option.strip() for option in connection.lower().split(b",")]:
            lines.append(b"connection: close")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"\r\n".join([*lines, b"", b""])

    def _restart_timer(self, waiting: bool) -> None:
        """Let the timer run on while a request is waited for, and stop it otherwise."""
        if waiting and self._timer is None:
            self._timer = self.loop.call_later(self._settings.header_seconds, self._time_out)
        elif not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        seconds = self._settings.header_seconds
        if self._waiting:
            message = f"request did not arrive within {seconds:g} s"
            self._refuse(408, message, "request_too_slow")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, kind: str) -> None:
        """Answer with an error, if no other answer has begun, and close the connection."""
        self._refused = True
        self._restart_timer(waiting=False)
        self._metrics.requests("unknown", str(status), "none", CHAMPION).inc()
        begun = self.cycle and self.cycle.response_started and not self.cycle.response_complete
        if not begun and not self.transport.is_closing():
            request_id = new_request_id()
            body = RequestError(status, ["header"], message, kind).body(request_id)
            lines = [
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                f"x-request-id: {request_id}",
                "x-content-type-options: nosniff",
                "connection: close\r\n\r\n",
            ]
            self.transport.write("\r\n".join(lines).encode() + body)
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
