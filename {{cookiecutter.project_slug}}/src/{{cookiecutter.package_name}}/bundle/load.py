"""Read and verify a bundle. No torch, no MLflow: the server uses this."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from ..arrays import Arrays
from ..config import WorkError
from ..files import first_error
from ..task import contract
from ..task.contract import Contract
from .manifest import Manifest, Signature, TensorInfo
from .reference import Reference

if TYPE_CHECKING:
    import onnxruntime

MANIFEST = "manifest.json"
MODEL = "model.onnx"
REFERENCE = "reference.json"


class BadBundle(WorkError):
    """A bundle or deployment cannot be trusted: the message names the file and the reason."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, ready to predict."""

    manifest: Manifest
    contract: Contract
    reference: dict[str, Any]  # `Reference` as JSON
    session: onnxruntime.InferenceSession
    digest: str  # SHA-256 of the manifest, which names those of all other files

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    def run(self, inputs: Arrays) -> Arrays:
        return run(self.session, inputs)


def run(session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
    """Return the network's outputs by name."""
    outputs = session.run(None, inputs)
    return {name: np.asarray(array) for name, array in zip(contract.OUTPUTS, outputs, strict=True)}


def load_bundle(folder: Path, manifest_sha256: str | None = None) -> Bundle:
    """Load the bundle in `folder`. Raises BadBundle for a missing, changed or unsuitable file."""
    import onnxruntime  # 30 MB that whoever only reads contracts does without

    # 1. Every file is the one that was packed.
    manifest = verify_bundle(folder, manifest_sha256)
    # 2. This server's code can read the contract.
    contract, reference = load_contract(folder), load_reference(folder)
    # 3. ONNX Runtime can load the model, and it has the inputs and outputs of the manifest.
    options = onnxruntime.SessionOptions()
    # One thread per call and no spinning: the server's own requests are what runs in parallel.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            (folder / MODEL).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime raises many kinds
        raise BadBundle(f"{folder / MODEL}: cannot be loaded: {error}") from None
    if read_signature(session) != manifest.signature:
        raise BadBundle(f"{folder / MODEL}: its inputs and outputs differ from the manifest's")
    return Bundle(manifest, contract, reference, session, sha256(folder / MANIFEST))


def load_contract(folder: Path) -> Contract:
    """Read a bundle's contract. Raises BadBundle if it is missing or does not fit this code."""
    try:
        return Contract.load(folder)
    except (OSError, ValueError) as error:
        raise BadBundle(f"{folder / Contract.FILE}: does not fit this server: {error}") from None


def load_reference(folder: Path) -> dict[str, Any]:
    """Read a bundle's `reference.json`. Raises BadBundle naming the field that is wrong."""
    path = folder / REFERENCE
    content = _read_bytes(path)
    try:
        Reference.model_validate_json(content)
    except ValidationError as error:
        raise BadBundle(f"{path}: is not a reference: {first_error(error)}") from None
    return json.loads(content)


def verify_bundle(folder: Path, manifest_sha256: str | None = None) -> Manifest:
    """Return the manifest after checking every file against its hash. Raises BadBundle."""
    manifest = read_manifest(folder, manifest_sha256)
    for name, digest in manifest.files.items():
        if sha256(folder / name) != digest:
            raise BadBundle(f"{folder / name}: its content has changed (sha256 differs)")
    return manifest


def read_manifest(folder: Path, manifest_sha256: str | None = None) -> Manifest:
    """Read and check a manifest; the files that it names may be missing. Raises BadBundle."""
    path = folder / MANIFEST
    content = _read_bytes(path)
    if manifest_sha256 is not None and hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise BadBundle(f"{path}: is not the file that was deployed (its hash differs)")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BadBundle(f"{path}: is not a manifest: {first_error(error)}") from None
    for required in (MODEL, Contract.FILE):
        if required not in manifest.files:
            raise BadBundle(f"{path}: {required} is missing from its files")
    for name in manifest.files:
        if Path(name).name != name:
            raise BadBundle(f"{path}: {name!r} is not a plain file name")
    return manifest


def read_signature(session: onnxruntime.InferenceSession) -> Signature:
    """Return name, type and shape of every input and output of a loaded model."""
    inputs, outputs = (
        [TensorInfo(name=end.name, type=end.type, shape=end.shape) for end in ends]
        for ends in (session.get_inputs(), session.get_outputs())
    )
    return Signature(inputs=inputs, outputs=outputs)


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal. Raises BadBundle when it cannot be read."""
    return hashlib.sha256(_read_bytes(path)).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a path with NUL is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadBundle(f"{path}: cannot be read: {reason}") from None
