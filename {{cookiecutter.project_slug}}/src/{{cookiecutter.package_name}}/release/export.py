"""Pack a run's chosen network as a bundle: ONNX file, contract, reference, manifest."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from ..arrays import Arrays, concatenate, in_chunks
from ..bundle import load
from ..bundle.deployment import utc_now
from ..bundle.manifest import Manifest
from ..bundle.reference import distribution
from ..config import WorkError
from ..files import write_json
from ..task import contract
from ..task.contract import Contract
from ..task.data import Dataset
from ..training.documents import Evaluation
from ..training.evaluate import load_network
from ..training.fit import predict
from ..training.runs import Run

TRACED_ROWS = 3
PARITY_ROWS = (1, 2, 7, 64)  # batch sizes other than the traced one
PARITY_SHARES = (0.0, 0.3, 0.8)  # of every other free axis; at least one element is kept
BATCH_ROWS = 256  # per call of a session
TOLERANCE = 1e-4  # largest difference between torch and ONNX Runtime, relative to the output


def pack_bundle(run: Run, dataset: Dataset, evaluation: Evaluation, run_id: str) -> Path:
    """Pack and verify the run's bundle and return its folder; one that exists is only verified.

    `run_id` is the run's id in MLflow. Raises WorkError when ONNX and torch differ, BadBundle when
    an existing bundle was changed.
    """
    folder = run.folder / "bundle"
    if folder.exists():
        load.verify_bundle(folder)
        return folder
    work = run.folder / ".bundle"
    shutil.rmtree(work, ignore_errors=True)  # what an interrupted export left
    work.mkdir()

    # 1. The model, which must answer like the network, and the files beside it.
    network = load_network(run, dataset, evaluation.chosen_seed).cpu()
    export_onnx(network, dataset.validation, work / load.MODEL)
    dataset.contract.save(work)
    session = onnxruntime.InferenceSession(work / load.MODEL)
    outputs = check_parity(network, dataset.validation, session)
    statistics = {
        "features": concatenate(map(dataset.contract.features, in_chunks(dataset.validation))),
        "predictions": dataset.contract.prediction_stats(outputs),
    }
    reference: dict[str, Any] = {"rows": len(next(iter(outputs.values())))}
    for side, arrays in statistics.items():
        reference[side] = {name: distribution(values) for name, values in arrays.items()}
    write_json(work / "reference.json", reference)
    write_json(work / "example.json", {"items": [dataset.example()]})

    # 2. The manifest, which names all of them.
    manifest = Manifest(
        name=run.settings.name,
        version=run.name,
        task=Contract.TASK,
        created_at=utc_now(),
        git=run.info.git,
        data_fingerprint=dataset.fingerprint,
        run_id=run_id,
        seed=evaluation.chosen_seed,
        config=run.info.settings,
        metrics=evaluation.network.seeds[evaluation.chosen_seed],
        baseline_metrics={name: row.metrics for name, row in evaluation.baselines.items()},
        signature=load.read_signature(session),
        files={path.name: load.sha256(path) for path in sorted(work.iterdir())},
    )
    write_json(work / load.MANIFEST, manifest.model_dump())

    # 3. Load it as the server will, then give it its name.
    load.load_bundle(work)
    work.rename(folder)
    return folder


def export_onnx(network: nn.Module, split: Arrays, path: Path) -> None:
    """Write the network as one ONNX file, with any length of the first and of all free axes."""
    arguments = tuple(torch.from_numpy(split[name][:TRACED_ROWS]) for name in contract.INPUTS)
    free_axes = [{0: "batch", **axes} for axes in contract.INPUTS.values()]
    sizes = {name: torch.export.Dim(name) for axes in free_axes for name in axes.values()}
    dynamic = tuple({axis: sizes[name] for axis, name in axes.items()} for axes in free_axes)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs every pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own; check_parity judges the result
        program = torch.onnx.export(
            network.eval(),
            arguments,
            input_names=list(contract.INPUTS),
            output_names=list(contract.OUTPUTS),
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "only an export to a file returns nothing"
    onnx.save_model(program.model_proto, str(path))  # weights inside, one file


def check_parity(
    network: nn.Module, split: Arrays, session: onnxruntime.InferenceSession
) -> Arrays:
    """Compare ONNX with torch at several lengths of every free axis; return ONNX's outputs for the
    split. Raises WorkError when they differ."""
    sizes = [(rows, 1.0) for rows in PARITY_ROWS]
    if any(contract.INPUTS.values()):
        sizes += [(7, share) for share in PARITY_SHARES]
    for rows, share in sizes:
        cut = {n: _cut(split[n][:rows], axes, share) for n, axes in contract.INPUTS.items()}
        _compare_outputs(network, cut, session)
    chunks = in_chunks({name: split[name] for name in contract.INPUTS}, BATCH_ROWS)
    return concatenate(_compare_outputs(network, chunk, session) for chunk in chunks)


def _compare_outputs(
    network: nn.Module, inputs: Arrays, session: onnxruntime.InferenceSession
) -> Arrays:
    """Return ONNX's outputs for inputs in one batch. Raises WorkError when torch's differ."""
    outputs = load.run(session, inputs)
    for name, expected in predict(network, inputs, batch_size=PARITY_ROWS[-1]).items():
        gap = float(np.abs(outputs[name] - expected).max() / max(np.abs(expected).max(), 1))
        if not gap <= TOLERANCE:  # also if it is NaN
            shapes = {name: array.shape for name, array in inputs.items()}
            raise WorkError(
                f"{name}: ONNX and torch differ by {gap:.1e} for inputs {shapes} "
                f"(allowed: {TOLERANCE:.0e}); the export cannot be used, change the network"
            )
    return outputs


def _cut(array: np.ndarray, axes: dict[int, str], share: float) -> np.ndarray:
    """Keep the first `share` of an array along each of its free axes."""
    for axis in axes:
        array = array.take(range(max(1, int(share * array.shape[axis]))), axis)
    return array
