"""Read and verify a bundle. No torch, no MLflow: the server uses this."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..interfaces import Arrays
from ..task import contract
from ..task.contract import Contract

MANIFEST = "manifest.json"
MODEL = "model.onnx"


class BadBundle(Exception):
    """A bundle or deployment cannot be trusted: the message names the file and the reason."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to answer."""

    manifest: dict[str, Any]
    contract: Contract
    session: onnxruntime.InferenceSession
    digest: str  # SHA-256 of the manifest, which names those of all other files

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def version(self) -> str:
        return self.manifest["version"]

    def run(self, inputs: Arrays) -> Arrays:
        """The network's outputs by name."""
        return run(self.session, inputs)


def run(session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    """The network's outputs by name."""
    found = session.run(None, inputs)
    return {name: np.asarray(array) for name, array in zip(contract.OUTPUTS, found, strict=True)}


def load_bundle(folder: Path, manifest_sha256: str | None = None) -> Bundle:
    """The bundle in `folder`; BadBundle when a file is missing, changed or of another shape."""
    manifest = verify_bundle(folder, manifest_sha256)
    own = load_contract(folder)
    try:
        session = _session((folder / MODEL).read_bytes())
    except Exception as error:  # ONNX Runtime raises many kinds
        raise BadBundle(f"{folder / MODEL}: cannot be loaded: {error}") from None
    if signature(session) != manifest["signature"]:
        raise BadBundle(f"{folder / MODEL}: its inputs and outputs differ from the manifest's")
    return Bundle(manifest, own, session, sha256(folder / MANIFEST))


def load_contract(folder: Path) -> Contract:
    """Read the contract of a bundle; BadBundle when it is missing or does not fit this code."""
    try:
        return Contract.load(folder)
    except (OSError, ValueError) as error:
        raise BadBundle(f"{folder / Contract.FILE}: does not fit this server: {error}") from None


def verify_bundle(folder: Path, manifest_sha256: str | None = None) -> dict[str, Any]:
    """The manifest, after checking that every file is there and has the hash it names."""
    path = folder / MANIFEST
    content = _bytes(path)
    if manifest_sha256 is not None and _digest(content) != manifest_sha256:
        raise BadBundle(f"{path}: is not the file that was deployed (its hash differs)")
    try:
        manifest = json.loads(content)
        files = dict(manifest["files"])
        for key in ("name", "version", "task", "signature"):
            manifest[key]
    except (ValueError, KeyError, TypeError) as error:
        raise BadBundle(f"{path}: is not a manifest: {error!r}") from None
    for needed in (MODEL, Contract.FILE):
        if needed not in files:
            raise BadBundle(f"{path}: names no {needed}")
    for name, digest in files.items():
        if Path(name).name != name:
            raise BadBundle(f"{path}: {name!r} is not a plain file name")
        if _digest(_bytes(folder / name)) != digest:
            raise BadBundle(f"{folder / name}: its content has changed (sha256 differs)")
    return manifest


def signature(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """Name, type and shape (a name for each free dimension) of inputs and outputs."""
    return {
        side: [{"name": end.name, "type": end.type, "shape": end.shape} for end in ends]
        for side, ends in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; BadBundle when it cannot be read."""
    return _digest(_bytes(path))


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread per call and no spinning: the server's own requests are what runs in parallel.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadBundle(f"{path}: cannot be read: {error.strerror}") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
