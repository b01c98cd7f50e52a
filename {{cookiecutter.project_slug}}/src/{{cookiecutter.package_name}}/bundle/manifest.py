"""The content of a bundle's `manifest.json`: what the model is, where it comes from, its files."""

from typing import Any

from pydantic import Field

from ..files import Document
from ..interfaces import Metrics


class GitState(Document):
    """The code that made something; None where git could not tell."""

    commit: str | None = None
    dirty: bool | None = None  # whether files differed from the commit


class TensorInfo(Document):
    """An input or output of the ONNX model; a free dimension is a name."""

    name: str
    type: str
    shape: list[int | str | None]


class Signature(Document):
    """All inputs and outputs of the ONNX model, in order."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class Manifest(Document):
    """`manifest.json`. What has a default is origin and quality: a server answers without it."""

    name: str
    version: str
    task: str
    created_at: str  # ISO 8601, UTC
    git: GitState = GitState()
    data_fingerprint: str = ""
    run_id: str = ""  # in MLflow
    seed: int | None = None
    config: dict[str, Any] = Field(default={})
    metrics: Metrics = Field(default={})  # of the deployed network on the test split
    baseline_metrics: dict[str, Metrics] = Field(default={})
    signature: Signature
    files: dict[str, str]  # SHA-256 by file name
