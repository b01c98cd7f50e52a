"""Who may call: API keys, which can change while the server runs, and Host headers."""

import asyncio
from collections.abc import Mapping
from hashlib import sha256

from .context import RequestContext, RequestError, asker_of
from .logs import logger
from .settings import CoreServerSettings, key_hash, read_keys

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEALTH = ("/healthz", "/readyz")  # called by platforms, under whatever name


class Access:
    """Decides whether a request is allowed."""

    def __init__(self, settings: CoreServerSettings) -> None:
        self.settings = settings
        self._prefixes = ("/v1/", "/metrics") if settings.metrics == "key" else ("/v1/",)
        hosts = {host.lower().encode() for host in settings.allowed_hosts}
        # A web page can point its own name at 127.0.0.1 (DNS rebinding); its Host header tells.
        local = settings.host in LOOPBACK or settings.host.startswith("127.")
        self._hosts = hosts | {host.encode() for host in LOOPBACK} if hosts or local else set()
        if b"*" in hosts:
            self._hosts = set()
        self._keys: set[bytes] = set()
        self._problem = ""  # with the file of keys
        self.read_keys()

    def refusal(self, path: str, context: RequestContext) -> RequestError | None:
        """Return why a request is refused, None if it is allowed; note whose key it has."""
        headers = context.headers
        if self._hosts and not self._known_host(headers.get(b"host", b"")) and path not in HEALTH:
            message = "this host is not served, $APP_ALLOWED_HOSTS names those that are"
            return RequestError(400, ["header", "host"], message, "host")
        if self._keys and path.startswith(self._prefixes):
            key_hash = self._valid_key(headers)
            if key_hash is None:
                message = "send a valid key as x-api-key, or as authorization: Bearer KEY"
                bearer = {"www-authenticate": "Bearer"}
                return RequestError(401, ["header", "x-api-key"], message, "api_key", bearer)
            context.asker = asker_of(key_hash)
        return None

    def _known_host(self, host: bytes) -> bool:
        # Without a port; an IPv6 address has brackets. No browser leaves the header out.
        name = host[1:].partition(b"]")[0] if host[:1] == b"[" else host.partition(b":")[0]
        return not host or name.lower() in self._hosts

    def _valid_key(self, headers: Mapping[bytes, bytes]) -> bytes | None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        sent = [headers.get(b"x-api-key", b""), token if scheme.lower() == b"bearer" else b""]
        # Hashes: the time to compare the keys themselves would reveal how much of a key is right.
        return next(
            (hashed for key in sent if (hashed := sha256(key).digest()) in self._keys), None
        )

    def read_keys(self) -> None:
        """Read the file of keys again; one that cannot be used changes nothing."""
        settings, problem, keys = self.settings, "", self.settings.api_keys
        try:
            if settings.api_keys_file:
                keys = [*keys, *read_keys(settings.api_keys_file, settings.environment)]
            hashes = {key_hash(key) for key in keys}
            if self._keys and hashes != self._keys:
                logger.info("API keys changed", extra={"fields": {"keys": len(hashes)}})
            self._keys = hashes
        except ValueError as error:
            problem = str(error)
            if problem != self._problem:
                fields = {"file": str(settings.api_keys_file), "reason": problem}
                logger.error("API keys not changed", extra={"fields": fields})
        self._problem = problem

    async def watch(self) -> None:
        """Read the file of keys every `reload_seconds` until cancelled."""
        while self.settings.api_keys_file:
            await asyncio.sleep(self.settings.reload_seconds)
            await asyncio.to_thread(self.read_keys)
