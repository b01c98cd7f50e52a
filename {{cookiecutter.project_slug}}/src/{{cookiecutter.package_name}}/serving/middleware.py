"""The outermost ASGI application: access, dispatch, limits, headers, metrics and access log."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access
from .context import RequestContext, RequestError
from .logs import logger
from .models import CHAMPION
from .parser_process import parse_seconds, refuse_slow
from .predict import PATH, Predict


# Plain ASGI: Starlette's BaseHTTPMiddleware would cost more than the prediction of a small model.
class RequestMiddleware:
    """Check access, send predictions past FastAPI's router, count and log all requests."""

    def __init__(self, api: ASGIApp, predict: Predict, access: Access) -> None:
        self.api, self.predict, self.access = api, predict, access
        self.models, self.settings = predict.models, predict.settings
        self._prefix = self.settings.root_path + "/" if self.settings.root_path else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        context = RequestContext(scope, self.predict.metrics, self.settings.access_log)
        path = scope["path"]
        if self._prefix and path.startswith(self._prefix):  # proxies leave it or take it away
            path = path[len(self._prefix) - 1 :]
        try:
            if error := self.access.refusal(path, context):
                status, headers, body = context.error_response(error, self.models.version)
                route = PATH if path == PATH else "unknown"
                context.finish(route, status, self.models.version, CHAMPION)
            elif path == PATH and scope["method"] == "POST":
                status, headers, body = await self.predict.respond(context, receive)
            else:
                await self._route(context, path, receive, send)
                return
        except asyncio.CancelledError:  # by uvicorn: the drain has no time left for requests
            error = RequestError.ending()
            status, headers, body = context.error_response(error, self.models.version)
            if path == PATH:  # _route has counted its own
                context.finish(path, status, self.models.version, CHAMPION)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _route(
        self, context: RequestContext, path: str, receive: Receive, send: Send
    ) -> None:
        """Let FastAPI respond: read the body, add the headers, count and log."""
        head = context.scope["method"] == "HEAD"  # is answered like GET, without the body
        method = "GET" if head else context.scope["method"]
        root = self.settings.root_path
        scope = {**context.scope, "method": method, "root_path": root, "path": root + path}
        scope.setdefault("state", {}).update(request_id=context.request_id, asker=context.asker)
        version, status, unread = self.models.version, 500, True

        async def whole_body() -> Message:
            nonlocal unread
            if not unread:
                return await receive()
            unread = False
            body = await context.read_body(receive, self.settings)
            refuse_slow(parse_seconds(body))
            return {"type": "http.request", "body": body}

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *context.response_headers(version)]
                message = {**message, "headers": headers}
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.api(scope, whole_body, respond)
        except asyncio.CancelledError:
            status = 503
            raise
        except Exception:  # FastAPI has responded with 500 and raises it again
            logger.exception("unexpected error", extra={"fields": context.ids()})
        finally:
            # Only paths of known routes become labels: there is no end of unknown ones.
            route = getattr(scope.get("route"), "path", "unknown")
            context.finish(route, status, version, CHAMPION)
