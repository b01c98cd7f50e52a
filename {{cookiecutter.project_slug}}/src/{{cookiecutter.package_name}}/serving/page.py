"""The page at `/` to try the model: a fixed list of files that call nothing but the public API."""

from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from .. import task
from .context import RequestError
from .models import ModelManager
from .schemas import ERRORS

INDEX = "index.html"
# The page's shared part, and the task's own
FOLDERS = (Path(__file__).with_name("static"), Path(task.__file__).with_name("static"))
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # the browser asks whether its copy, known by its ETag, is current
}


def add_page_routes(api: FastAPI, models: ModelManager) -> None:
    """Add the page, which offers what the API has by now, and the example that it starts with."""
    paths = [path for folder in FOLDERS for path in folder.iterdir() if path.suffix in TYPES]
    files = {path.name: path.read_bytes() for path in paths}
    has_feedback = any(getattr(route, "path", "") == "/v1/feedback" for route in api.routes)
    offers = {"feedback": has_feedback, "docs": api.openapi_url is not None}
    index = Template(files[INDEX].decode())
    files[INDEX] = index.substitute({k: "yes" if v else "no" for k, v in offers.items()}).encode()
    tags = {name: f'"{sha256(content).hexdigest()[:16]}"' for name, content in files.items()}

    @api.get(
        "/v1/example",
        responses={status: ERRORS[status] for status in (401, 503)},
        tags=["models"],
        summary="Return a valid request",
    )
    async def example() -> dict[str, Any]:
        """The body of a request that the champion accepts: a row of its test split."""
        if models.active is None:
            raise RequestError.no_model(models.problem)
        return models.active.champion.example

    @api.get("/", include_in_schema=False)
    @api.get("/page/{name}", include_in_schema=False)
    async def page(request: Request, name: str = INDEX) -> Response:
        if name not in files:
            raise HTTPException(404)
        headers = {**HEADERS, "etag": tags[name]}
        if tags[name] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(files[name], headers=headers, media_type=TYPES[Path(name).suffix])
