"""Pack a run's chosen network as a bundle: ONNX file, contract, reference, manifest."""

import logging
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from ..bundle import load
from ..bundle.reference import distribution
from ..config import WorkError
from ..files import write_json
from ..interfaces import Arrays
from ..task import contract
from ..task.contract import Contract
from ..task.data import Dataset
from ..training.evaluate import load_network
from ..training.fit import predict
from ..training.runs import Run

TRACED_ROWS = 3
PARITY_ROWS = (1, 2, 7, 64)  # none of them the traced number
PARITY_SHARES = (0.0, 0.3, 0.8)  # of each other axis of free length; at least one is kept
TOLERANCE = 1e-4  # largest difference between torch and ONNX Runtime, relative to the output


def pack_bundle(run: Run, dataset: Dataset, evaluation: dict[str, Any], run_id: str) -> Path:
    """The run's bundle, made and verified unless it is there already; WorkError without parity."""
    folder = run.folder / "bundle"
    if folder.exists():
        load.verify_bundle(folder)
        return folder
    work = run.folder / ".bundle"
    shutil.rmtree(work, ignore_errors=True)  # what an interrupted export left
    work.mkdir()
    network = load_network(run, dataset, evaluation["chosen_seed"]).cpu()
    export_onnx(network, dataset.validation, work / load.MODEL)
    dataset.contract.save(work)
    session = load.onnxruntime.InferenceSession(work / load.MODEL)
    outputs = check_parity(network, dataset.validation, session)
    write_json(work / "reference.json", reference(dataset.contract, dataset.validation, outputs))
    write_json(work / "example.json", {"items": [dataset.example()]})
    write_json(
        work / load.MANIFEST,
        {
            "name": run.settings.name,
            "version": run.name,
            "task": Contract.TASK,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "git": run.about["git"],
            "data_fingerprint": dataset.fingerprint,
            "run_id": run_id,
            "seed": evaluation["chosen_seed"],
            "config": run.about["settings"],
            "metrics": evaluation["network"]["seeds"][str(evaluation["chosen_seed"])],
            "baseline_metrics": {
                name: row["metrics"] for name, row in evaluation["baselines"].items()
            },
            "signature": load.signature(session),
            "files": {path.name: load.sha256(path) for path in sorted(work.iterdir())},
        },
    )
    load.load_bundle(work)
    work.rename(folder)
    return folder


def export_onnx(network: nn.Module, split: Arrays, path: Path) -> None:
    """Write the network as one ONNX file; the first axis and those of the contract are free."""
    arguments = tuple(torch.from_numpy(split[name][:TRACED_ROWS]) for name in contract.INPUTS)
    sizes = {name: torch.export.Dim(name) for name in {"batch", *_free_axes()}}
    dynamic = tuple(
        {0: sizes["batch"], **{axis: sizes[name] for axis, name in axes.items()}}
        for axes in contract.INPUTS.values()
    )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports each pass of its work
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself; parity is checked below
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
    network: nn.Module, split: Arrays, session: load.onnxruntime.InferenceSession
) -> Arrays:
    """The ONNX outputs for a split, after comparing them with torch at several sizes of batch and
    of every other axis that is free."""
    count = len(next(iter(split.values())))
    sizes = [(rows, 1.0) for rows in (*PARITY_ROWS, count)]
    if _free_axes():
        sizes = [(7, share) for share in PARITY_SHARES] + sizes
    whole: Arrays = {}
    for rows, share in sizes:
        inputs = {
            name: _cut(split[name][:rows], axes, share) for name, axes in contract.INPUTS.items()
        }
        whole = load.run(session, inputs)
        for name, expected in predict(network, inputs, batch_size=rows).items():
            gap = float(np.abs(whole[name] - expected).max() / max(np.abs(expected).max(), 1))
            if not gap <= TOLERANCE:
                shapes = {name: array.shape for name, array in inputs.items()}
                raise WorkError(
                    f"{name}: ONNX and torch differ by {gap:.1e} for inputs {shapes} "
                    f"(allowed: {TOLERANCE:.0e}); the export is not usable"
                )
    return whole


def _free_axes() -> set[str]:
    return {name for axes in contract.INPUTS.values() for name in axes.values()}


def _cut(array: np.ndarray, axes: dict[int, str], share: float) -> np.ndarray:
    """The beginning of an array along each of its free axes."""
    for axis in axes:
        array = array.take(range(max(1, int(share * array.shape[axis]))), axis)
    return array


def reference(contract: Contract, inputs: Arrays, outputs: Arrays) -> dict[str, Any]:
    """Distribution of drift features and answers on the validation split."""
    return {
        "rows": len(next(iter(inputs.values()))),
        "features": {k: distribution(v) for k, v in contract.features(inputs).items()},
        "predictions": {k: distribution(v) for k, v in contract.prediction_stats(outputs).items()},
    }
