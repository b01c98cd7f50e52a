"""Requests and responses as pydantic models, for the OpenAPI documentation."""

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ..task.contract import Item, Prediction


class PredictResponse(BaseModel):
    """One prediction per item, in the same order, and the model that made them."""

    request_id: str = Field(description="needed for feedback; the client's x-request-id, if any")
    model: str
    model_version: str
    predictions: list[Prediction]


class ErrorResponse(BaseModel):
    """What is wrong with the request; `loc` is the path to the invalid field."""

    class Detail(BaseModel):
        loc: list[str | int]
        msg: str
        type: str

    detail: list[Detail]
    request_id: str


class ModelInfo(BaseModel):
    """A loaded model."""

    variant: str = Field(description="champion, challenger, or shadow (predicts unseen)")
    name: str
    version: str
    task: str
    created_at: str
    loaded_at: str
    share: float | None = Field(description="share of the callers, during an A/B test")
    engine: str = Field(description="inline (in the event loop) or lanes (in threads)")
    microseconds_per_item: int
    metrics: dict[str, float]
    baseline_metrics: dict[str, dict[str, float]]


class ModelsResponse(BaseModel):
    """The loaded models; `problem` says why the newest deployment is not among them."""

    models: list[ModelInfo]
    problem: str | None
    worker: int = Field(description="id of the process that responded")


class Health(BaseModel):
    """State of the server; `reason` when something is wrong."""

    status: str
    model_version: str | None = None
    reason: str | None = None
    worker: int = Field(default_factory=os.getpid, description="id of the process that responded")


def describe_errors(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Document the errors of a route by their status."""
    return {
        status: {"model": ErrorResponse, "description": text}
        for status, text in descriptions.items()
    }


ERRORS = describe_errors(
    {
        400: "The body is not valid JSON or gzip",
        401: "The API key is missing or invalid",
        408: "The body took too long to arrive",
        413: "The body is too large, or its items would take too long to read",
        415: "The body is not application/json, or its content-encoding is not gzip",
        422: "A field is invalid; the response names it",
        503: "The server is overloaded or has no model; see Retry-After",
        504: "The deadline passed before inference started",
    }
)


def predict_request(max_items: int) -> type[BaseModel]:
    """Create the schema of a predict request with at most `max_items` items."""
    return create_model(
        "PredictRequest",
        __config__=ConfigDict(extra="forbid"),
        __doc__="One or many items to predict.",
        items=(list[Item], Field(min_length=1, max_length=max_items, fail_fast=True)),
    )


def first_problem(error: ValidationError) -> tuple[list[str | int], str, str]:
    """Return the path to the first invalid field of a body, what is wrong with it, and its type."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ["body", *first["loc"]], first["msg"], first["type"]


def request_body(schema: type[BaseModel]) -> dict[str, Any]:
    """Document the body of a route that parses it itself."""
    content = schema.model_json_schema()
    definitions = content.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(definitions[node["$ref"].rsplit("/", 1)[-1]])
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    schemas = {"application/json": {"schema": resolve(content)}}
    return {"requestBody": {"required": True, "content": schemas}}
