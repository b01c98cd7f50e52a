"""The smallest FastAPI, and the smallest ASGI application: what no server on uvicorn can pass."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI

app = FastAPI()
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"17")]


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}


async def bare(
    scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]
) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b'{"hello":"world"}'})
