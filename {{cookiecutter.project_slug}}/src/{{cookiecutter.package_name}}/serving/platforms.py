"""What hosting platforms ask of a container, translated to the routes that there are.

A prediction becomes a request to `POST /v1/predict`, a health check one to `/readyz`, so that
access, limits, routing, log, metrics and errors are the same. Without a platform nothing of this is
installed. Sources: "Custom inference code with hosting services" (SageMaker), "Custom container
requirements" (Vertex AI), "Container runtime contract" (Cloud Run), and the Open Inference
Protocol, version 2, which KServe, Triton and others speak.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, TypeAdapter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..task.contract import Prediction
from .context import RequestContext, RequestError
from .parser_process import parse_seconds, refuse_slow
from .predict import PATH, Predict

HEALTH_ROUTE, PREDICT_ROUTE = "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"  # variables of Vertex AI
READY = "/readyz"
JSON = TypeAdapter(Any)  # quicker than the standard library
ITEM, PREDICTION = "item", "prediction"  # tensors of JSON texts, one per item
Datatype = Literal[
    "BOOL", "BYTES", "FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64",
    "UINT8", "UINT16", "UINT32", "UINT64",
]  # fmt: skip


class Translation:
    """Says the same in a platform's words. By default the words are the server's own."""

    def request(self, body: bytes) -> bytes:
        """Translate a request's body. Raises ValidationError or RequestError if it is invalid."""
        return body

    def response(self, status: int, content: Any) -> Any:
        """Translate a response's JSON, also of an error."""
        return content


class VertexRequest(BaseModel, extra="forbid"):
    instances: list[Any]
    # A caller may send parameters; here they would change nothing.
    parameters: dict[str, Any] | None = Field(default=None, max_length=0)


class Instances(Translation):
    """Vertex AI: `{"instances": [item, …]}`, answered by `{"predictions": [prediction, …]}`."""

    def request(self, body: bytes) -> bytes:
        return JSON.dump_json({"items": VertexRequest.model_validate_json(body).instances})

    def response(self, status: int, content: Any) -> Any:
        return {"predictions": content["predictions"]} if status == 200 else content


class Tensor(BaseModel):
    name: str
    shape: list[int] = Field(min_length=1)  # the first axis counts the items
    datatype: Datatype
    data: list[Any]  # nested or flat, in row-major order

    def rows(self, loc: list[str | int]) -> list[Any]:
        """Return the value of each item."""
        try:
            if min(self.shape) < 0:
                raise ValueError
            return np.asarray(self.data, object).reshape(self.shape).tolist()
        except (ValueError, OverflowError):
            message = f"data does not fill the shape {self.shape}"
            raise RequestError(422, [*loc, "data"], message, "shape") from None


class RequestedOutput(BaseModel):
    name: str


class InferRequest(BaseModel):
    inputs: list[Tensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = []
    id: str | None = None


class Protocol2(Translation):
    """Open Inference Protocol: any route below /v2; errors are `{"error": message}`."""

    def response(self, status: int, content: Any) -> Any:
        if status < 400 or "detail" not in content:
            return content
        (first, *_) = content["detail"]
        return {"error": ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))}


class Live(Protocol2):
    def response(self, status: int, content: Any) -> Any:
        return {"live": status == 200}


class Ready(Protocol2):
    def response(self, status: int, content: Any) -> Any:
        return {"ready": status == 200}


class Infer(Protocol2):
    """Inference: tensors by the names of an item's fields, or `item`, whole items as JSON texts.

    The answer is `prediction`, JSON texts, or the requested fields of the predictions.
    """

    def __init__(self, name: str, predict: Predict) -> None:
        self.name, self.predict = name, predict
        self.asked = InferRequest.model_construct(outputs=[])

    def request(self, body: bytes) -> bytes:
        active = self.predict.models.active
        if active is not None and active.champion.bundle.name != self.name:
            message = f"there is no model {self.name}, this is {active.champion.bundle.name}"
            raise RequestError(404, ["path"], message, "unknown_model")
        self.asked = InferRequest.model_validate_json(body)
        known = [PREDICTION, *Prediction.model_fields]
        for index, output in enumerate(self.asked.outputs):
            if output.name not in known:
                message = f"there is no output {output.name}, there are {', '.join(known)}"
                raise RequestError(422, ["body", "outputs", index, "name"], message, "output")
        items: list[dict[str, Any]] = []
        for index, tensor in enumerate(self.asked.inputs):
            loc = ["body", "inputs", index]
            rows = tensor.rows(loc)
            items = items or [{} for _ in rows]
            if len(rows) != len(items):
                message = f"has {len(rows)} items, the first input {len(items)}"
                raise RequestError(422, [*loc, "shape"], message, "shape")
            for item, value in zip(items, rows, strict=True):
                item |= _item(value, loc) if tensor.name == ITEM else {tensor.name: value}
        return JSON.dump_json({"items": items})

    def response(self, status: int, content: Any) -> Any:
        if status != 200:
            return super().response(status, content)
        names = [output.name for output in self.asked.outputs] or [PREDICTION]
        return {
            "model_name": content["model"],
            "model_version": content["model_version"],
            "id": self.asked.id or content["request_id"],
            "outputs": [_output(name, content["predictions"]) for name in names],
        }


def _item(text: Any, loc: list[str | int]) -> dict[str, Any]:
    try:
        item = JSON.validate_json(text)
        if isinstance(item, dict):
            return item
    except (ValueError, TypeError):
        pass
    message = f"each element of {ITEM} must be the JSON text of an item"
    raise RequestError(422, [*loc, "data"], message, "json_item")


def _output(name: str, predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a field of all predictions, or whole predictions, as a tensor: values that have no
    datatype, such as lists of different lengths, as JSON texts."""
    values = predictions if name == PREDICTION else [one[name] for one in predictions]
    datatypes = {"b": "BOOL", "i": "INT64", "f": "FP64", "U": "BYTES"}
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in datatypes:
        array = np.asarray([JSON.dump_json(value).decode() for value in values])
    datatype, shape = datatypes[array.dtype.kind], list(array.shape)
    return {"name": name, "datatype": datatype, "shape": shape, "data": array.ravel().tolist()}


class PlatformRoutes:
    """The outermost ASGI application of a server with platforms: translate their routes."""

    def __init__(self, app: ASGIApp, predict: Predict) -> None:
        self.app, self.predict, self.settings = app, predict, predict.settings
        platforms = self.settings.platforms
        self._reads: dict[str, tuple[str, Translation]] = {}
        self._predictions: dict[str, type[Translation]] = {}
        self._protocol2 = "kserve" in platforms
        if "sagemaker" in platforms:
            self._reads["/ping"] = READY, Translation()
            self._predictions["/invocations"] = Translation
        if "vertex" in platforms:
            self._reads[os.environ[HEALTH_ROUTE]] = READY, Translation()
            self._predictions[os.environ[PREDICT_ROUTE]] = Instances
        if self._protocol2:
            self._reads["/v2/health/live"] = "/healthz", Live()
            self._reads["/v2/health/ready"] = READY, Ready()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        path, translation = found
        start: Message = {}

        async def translated_body() -> Message:
            context = RequestContext(scope, self.predict.metrics, access_log=False)
            body = await context.read_body(receive, self.settings)
            if type(translation) is not Translation:  # which leaves it as it is
                refuse_slow(parse_seconds(body))
            return {"type": "http.request", "body": translation.request(body)}

        async def respond(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body, headers = message.get("body", b""), list(start["headers"])
            if body:  # none for HEAD
                content = translation.response(start["status"], JSON.validate_json(body))
                body = JSON.dump_json(content)
                headers = [header for header in headers if header[0] != b"content-length"]
                headers.append((b"content-length", b"%d" % len(body)))
            await send({**start, "headers": headers})
            await send({**message, "body": body})

        if path != PATH:
            await self.app({**scope, "path": path}, receive, respond)
            return
        # The body is decompressed here, and its length changes.
        about_body = (b"content-encoding", b"content-length")
        headers = [header for header in scope["headers"] if header[0] not in about_body]
        await self.app({**scope, "path": path, "headers": headers}, translated_body, respond)

    def _find(self, scope: Scope) -> tuple[str, Translation] | None:
        """Return the server's own path and how to translate it."""
        path: str = scope["path"].removeprefix(self.settings.root_path)
        if scope["method"] == "POST" and path in self._predictions:
            return PATH, self._predictions[path]()
        if scope["method"] in ("GET", "HEAD") and path in self._reads:
            return self._reads[path]
        if not self._protocol2 or not path.startswith("/v2"):
            return None
        if scope["method"] == "POST" and (named := re.fullmatch("/v2/models/([^/]+)/infer", path)):
            return PATH, Infer(named[1], self.predict)
        return path, Protocol2()


def add_protocol2_routes(api: FastAPI, predict: Predict) -> None:
    """Add the metadata of the Open Inference Protocol."""
    unknown: dict[int | str, dict[str, Any]] = {404: {"description": "No model of this name"}}

    def missing(name: str) -> JSONResponse | None:
        active = predict.models.active
        if active is not None and active.champion.bundle.name == name:
            return None
        return JSONResponse({"error": f"no model {name} is loaded"}, 404)

    @api.get("/v2", tags=["Open Inference Protocol"], summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {"name": api.title, "version": api.version, "extensions": []}

    @api.get(
        "/v2/models/{name}",
        tags=["Open Inference Protocol"],
        summary="Model metadata",
        response_model=None,
        responses=unknown,
    )
    async def model(name: str) -> dict[str, Any] | JSONResponse:
        tensor = {"datatype": "BYTES", "shape": [-1]}
        return missing(name) or {
            "name": name,
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": ITEM, **tensor}],
            "outputs": [{"name": PREDICTION, **tensor}],
        }

    @api.get(
        "/v2/models/{name}/ready",
        tags=["Open Inference Protocol"],
        summary="Model readiness",
        response_model=None,
        responses=unknown,
    )
    async def model_ready(name: str) -> dict[str, Any] | JSONResponse:
        return missing(name) or {"name": name, "ready": True}
