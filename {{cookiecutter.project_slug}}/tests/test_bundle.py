"""The bundle is complete, faithful to the trained network, and refused when anything changed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle import load
from {{ cookiecutter.package_name }}.config import WorkError, load_settings
from {{ cookiecutter.package_name }}.files import read_document
from {{ cookiecutter.package_name }}.release import export
from {{ cookiecutter.package_name }}.task.contract import Item
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import evaluate, fit, runs
from {{ cookiecutter.package_name }}.training.documents import RunInfo

from .conftest import CONFIG


@pytest.fixture
def bundle(deployment: Path) -> Path:
    folder, _ = deployment_folder.champion_path(deployment)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_manifest_states_origin_quality_and_files(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    origin = {"created_at", "git", "data_fingerprint", "run_id", "config"}
    quality = {"metrics", "baseline_metrics"}
    for key in {"name", "version", "task", "signature", "files"} | origin | quality:
        assert manifest[key], key
    others = {path.name for path in bundle.iterdir()} - {"manifest.json"}
    assert set(manifest["files"]) == others
    assert {"model.onnx", "reference.json", "contract.json"} <= others


def test_reference_counts_every_validation_row(bundle: Path) -> None:
    reference = json.loads((bundle / "reference.json").read_text(encoding="utf-8"))
    info = read_document(next(Path("runs").glob("*/run.json")), RunInfo)
    assert reference["rows"] == info.data.rows.validation
    for distribution in [*reference["features"].values(), *reference["predictions"].values()]:
        counts = distribution["counts"]
        assert sum(counts.values() if isinstance(counts, dict) else counts) == reference["rows"]


def test_error_for_one_flipped_byte_names_the_file(deployment: Path) -> None:
    folder, digest = deployment_folder.champion_path(deployment)
    load.load_bundle(folder, digest)
    for path in folder.iterdir():
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(load.BadBundle, match=path.name):
            load.load_bundle(folder, digest)
        path.write_bytes(whole)


def test_error_for_a_missing_file_names_it(deployment: Path) -> None:
    folder, digest = deployment_folder.champion_path(deployment)
    (folder / "contract.json").unlink()
    with pytest.raises(load.BadBundle, match=r"contract\.json: cannot be read"):
        load.load_bundle(folder, digest)


def deployment_of(bundle: str) -> str:
    """Write the JSON of a deployment whose champion lies in that folder."""
    champion = deployment_folder.BundleRef(version="1", bundle=bundle, manifest_sha256="x")
    return deployment_folder.Deployment(champion=champion, deployed_at="now").model_dump_json()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is not a deployment"),
        ("[]", "is not a deployment"),
        ('{"champion": {}}', "is not a deployment"),
        ('{"champion": {"version": "1"}}', r"champion\.bundle: Field required"),
        (deployment_of("../.."), "lies outside"),
        (deployment_of("bundles/none"), "manifest.json"),
    ],
)
def test_invalid_deployment_is_refused(deployment: Path, content: str, reason: str) -> None:
    (deployment / "deployment.json").write_text(content)
    with pytest.raises(load.BadBundle, match=reason):
        load.load_bundle(*deployment_folder.champion_path(deployment))


def test_manifest_cannot_name_files_outside_its_folder(bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"]["../../deployment.json"] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(load.BadBundle, match="is not a plain file name"):
        load.verify_bundle(bundle)


def test_deploying_again_replaces_a_damaged_bundle(deployment: Path, bundle: Path) -> None:
    flip(bundle / "model.onnx")
    assert cli.main(["deploy", "--config", str(CONFIG)]) == 0
    load.load_bundle(*deployment_folder.champion_path(deployment))
    names = sorted(path.name for path in (deployment / "bundles").iterdir())
    assert len(names) == 2
    assert ".damaged-" in names[1]


@pytest.mark.parametrize("key", ["name", "version", "task", "signature", "files"])
def test_manifest_without_a_required_key_is_refused(bundle: Path, key: str) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest[key]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(load.BadBundle, match=rf"manifest\.json: is not a manifest: {key}: "):
        load.verify_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"files": [1]}, "files: "), ({"signature": {"inputs": []}}, r"signature\.outputs: ")],
)
def test_manifest_with_a_value_of_the_wrong_type_is_refused(
    bundle: Path, change: dict[str, Any], reason: str
) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, **change}), encoding="utf-8")
    with pytest.raises(load.BadBundle, match=rf"manifest\.json: is not a manifest: {reason}"):
        load.verify_bundle(bundle)


def test_manifest_with_keys_of_a_newer_version_is_accepted(bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "new": 1}), encoding="utf-8")
    assert load.load_bundle(bundle).version == manifest["version"]


def test_bundle_predicts_like_the_trained_network(work: Path, bundle: Path) -> None:
    run = runs.open_run(load_settings(Settings, CONFIG, [], {}))
    dataset = run.dataset()
    loaded = load.load_bundle(bundle)
    seed = loaded.manifest.seed
    assert seed is not None
    network = evaluate.load_network(run, dataset, seed)
    expected = fit.predict(network, dataset.test, 64)
    names = [tensor.name for tensor in loaded.manifest.signature.inputs]
    outputs = loaded.run({name: np.asarray(dataset.test[name]) for name in names})
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-3, atol=1e-4)


def test_export_that_differs_from_the_network_is_refused(work: Path, bundle: Path) -> None:
    run = runs.open_run(load_settings(Settings, CONFIG, [], {}))
    dataset = run.dataset()
    network = evaluate.load_network(run, dataset, 0)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    session = load.load_bundle(bundle).session
    with pytest.raises(WorkError, match="ONNX and torch differ by"):
        export.check_parity(network, dataset.validation, session)


def test_training_and_serving_encode_the_same_way(bundle: Path) -> None:
    """The bundle's example is the first test row: encoded again it must be that row."""
    run = runs.open_run(load_settings(Settings, CONFIG, [], {}))
    dataset = run.dataset()
    items = json.loads((bundle / "example.json").read_text(encoding="utf-8"))["items"]
    encoded = load.load_bundle(bundle).contract.encode(
        [Item.model_validate(item) for item in items]
    )
    for name, array in encoded.items():
        row = dataset.test[name][:1][tuple(map(slice, array.shape))]  # it may be filled up
        np.testing.assert_allclose(array, row, atol=0.01)


def test_loading_and_predicting_leaves_no_trace_in_the_home_folder(
    bundle: Path, tmp_path: Path
) -> None:
    """ONNX Runtime's telemetry, on by default, writes there at once and calls home later."""
    code = (
        f"import sys, {cli.__package__}.bundle.load as load\n"
        "import numpy as np\n"
        "bundle = load.load_bundle(load.Path(sys.argv[1]))\n"
        "inputs = {end.name: np.zeros([size if isinstance(size, int) else 1 for size in end.shape],"
        " np.float32 if end.type == 'tensor(float)' else end.type[7:-1])"
        " for end in bundle.manifest.signature.inputs}\n"
        "print(list(bundle.run(inputs)))"
    )
    home = tmp_path / "home"
    home.mkdir()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)],
        env={**inherited, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("['")
    assert list(home.rglob("*")) == []


def test_server_imports_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys\n"
        f"import {cli.__package__}.serving.server\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("torch", "mlflow", "sklearn", "matplotlib", "onnx", "sqlalchemy", "yaml"):
        assert f"'{heavy}'" not in done.stdout
