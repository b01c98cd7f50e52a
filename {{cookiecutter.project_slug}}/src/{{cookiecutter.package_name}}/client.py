"""The client of the server's API, for commands with `--url` and the simulation."""

import json
import os
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from .config import UserError, WorkError

RESPONSE_SECONDS = 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """A client of one server. Keeps one connection to a server on this machine, without a proxy;
    others are reached by urllib, which knows the environment's proxies."""

    def __init__(self, url: str) -> None:
        """Prepare to connect. Raises UserError for an invalid URL."""
        if not url.startswith(("http://", "https://")):
            raise UserError(f"--url {url}: must start with http:// or https://")
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UserError(f"--url {url}: {error}") from None
        local = parts.scheme == "http" and (host in LOOPBACK or host.startswith("127."))
        self._base = parts.path
        keys = os.environ.get("APP_API_KEYS", "")
        if not keys.strip() and (file := os.environ.get("APP_API_KEYS_FILE")):
            try:
                keys = Path(file).read_text(encoding="utf-8").strip().replace("\n", ",")
            except OSError as error:
                raise UserError(f"$APP_API_KEYS_FILE: {file}: {error.strerror}") from None
        # The server may know keys by their hashes alone, which are nobody's key.
        words = (key.strip() for key in keys.split(","))
        self._key = next((key for key in words if not key.startswith("sha256:")), "")
        self._connection = HTTPConnection(host, port, timeout=RESPONSE_SECONDS) if local else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str) -> Any:
        """Return the JSON response to a GET request."""
        return self._request("GET", path, None, {})

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Return the JSON response to `content`, sent as JSON. Both raise WorkError when the
        server cannot be reached or its status is not 2xx."""
        all_headers = {**(headers or {}), "content-type": "application/json"}
        return self._request("POST", path, json.dumps(content).encode(), all_headers)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Any:
        if self._key:
            headers["x-api-key"] = self._key
        try:
            with self._open(method, path, body, headers) as response:
                status, content = response.status or 0, response.read()
            if 200 <= status < 300:
                return json.loads(content)
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            reason = getattr(error, "reason", error)
            raise WorkError(f"{self.url}{path}: no response: {reason}") from None
        raise WorkError(f"{self.url}{path}: returned {status}: {content.decode(errors='replace')}")

    def _open(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> HTTPResponse | HTTPError:
        if self._connection is not None:
            self._connection.request(method, self._base + path, body, headers)
            return self._connection.getresponse()
        # Checked in __init__: the address begins with http:// or https://.
        request = Request(self.url + path, body, headers, method=method)  # noqa: S310
        try:
            return urlopen(request, timeout=RESPONSE_SECONDS)  # noqa: S310  # nosec B310
        except HTTPError as error:
            return error
