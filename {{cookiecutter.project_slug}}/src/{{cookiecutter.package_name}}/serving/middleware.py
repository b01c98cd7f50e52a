"""The outermost ASGI application: API keys, dispatch, limits, headers, metrics and access log."""

from hashlib import sha256

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from .context import RequestContext, RequestError, hashed_key
from .logs import logger
from .models import CHAMPION
from .predict import PATH, Predict


# Plain ASGI: Starlette's BaseHTTPMiddleware would cost more than the prediction of a small model.
class RequestMiddleware:
    """Check API keys, send predictions past FastAPI's router, count and log all requests."""

    def __init__(self, api: FastAPI, predict: Predict) -> None:
        self.api, self.predict = api, predict
        self.models, self.settings = predict.models, predict.settings
        # Hashes: the time to compare the keys themselves would reveal how much of a key is right.
        self._keys = {sha256(key.encode()).digest() for key in self.settings.api_keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        context = RequestContext(scope, self.predict.metrics, self.settings.access_log)
        path = scope["path"]
        if self._keys and path.startswith("/v1/") and not self._authorised(context):
            version, route = self.models.version, PATH if path == PATH else "unknown"
            message = "send a valid key as x-api-key, or as authorization: Bearer KEY"
            headers = {"www-authenticate": "Bearer"}
            error = RequestError(401, ["header", "x-api-key"], message, "api_key", headers)
            status, headers, body = context.error_response(error, version)
            context.finish(route, status, version, CHAMPION)
        elif path == PATH and scope["method"] == "POST":
            status, headers, body = await self.predict.respond(context, receive)
        else:
            await self._route(context, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _authorised(self, context: RequestContext) -> bool:
        key = context.headers.get(b"x-api-key", b"")
        scheme, _, token = context.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            key = token
        context.asker = hashed_key(key)
        return sha256(key).digest() in self._keys

    async def _route(self, context: RequestContext, receive: Receive, send: Send) -> None:
        """Let FastAPI respond: limit the body, add the headers, count and log."""
        scope, version = context.scope, self.models.version
        scope.setdefault("state", {}).update(request_id=context.request_id, asker=context.asker)
        status, remaining = 500, self.settings.max_body_bytes

        async def limited() -> Message:
            nonlocal remaining
            message = await receive()
            remaining -= len(message.get("body", b""))
            if remaining < 0:
                raise RequestError.too_large(self.settings.max_body_bytes)
            return message

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *context.response_headers(version)]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.api(scope, limited, respond)
        except Exception:  # FastAPI has responded with 500 and raises it again
            fields = {"request_id": context.request_id}
            logger.exception("unexpected error", extra={"fields": fields})
        finally:
            # Only paths of known routes become labels: there is no end of unknown ones.
            route = getattr(scope.get("route"), "path", "unknown")
            context.finish(route, status, version, CHAMPION)
