"""Run, evaluation and manifest as JSON: earlier versions' are understood, invalid ones are named.

The files in `documents/` were written, but for their length, by the version of the template that
had no types for them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }}.bundle.manifest import Manifest
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.files import Document, read_document
from {{ cookiecutter.package_name }}.training.documents import BaselineResult, Evaluation, RunInfo

DOCUMENTS = Path(__file__).with_name("documents")
TYPES = {"run.json": RunInfo, "evaluation.json": Evaluation, "manifest.json": Manifest}
WRITTEN = {
    "run.json": "runs/*/run.json",
    "evaluation.json": "runs/*/evaluation.json",
    "manifest.json": "deployment/bundles/*/manifest.json",
}


def content(name: str) -> dict[str, Any]:
    return json.loads((DOCUMENTS / name).read_text(encoding="utf-8"))


def with_later_keys(name: str) -> dict[str, Any]:
    """An earlier document with the keys that were added since, empty."""
    document = content(name)
    if name == "run.json":
        document["data"] |= {"notes": [], "limits": []}
        document |= {"question": "", "hypothesis": ""}
    if name == "evaluation.json":
        document |= {"advice": {}, "ablations": {}, "costs": None}
    return document


@pytest.mark.parametrize(("name", "kind"), TYPES.items())
def test_earlier_documents_load_and_are_written_the_same(name: str, kind: type[Document]) -> None:
    document = read_document(DOCUMENTS / name, kind)
    assert json.dumps(document.model_dump()) == json.dumps(with_later_keys(name))


@pytest.mark.parametrize("name", TYPES)
def test_new_documents_have_the_keys_of_earlier_ones(trained: Path, name: str) -> None:
    (path,) = trained.glob(WRITTEN[name])
    new = json.loads(path.read_text(encoding="utf-8"))
    old = with_later_keys(name)
    assert list(new) == list(old)
    for key in ("data", "git", "rows", "network", "signature"):
        assert list(new.get(key, {})) == list(old.get(key, {}))


def test_earlier_run_keeps_its_meaning() -> None:
    run = read_document(DOCUMENTS / "run.json", RunInfo)
    assert run.settings["train"]["seeds"] == [0, 1]
    assert run.data.rows.total == 1079 + 359 + 359
    assert (run.git.commit, run.git.dirty) == (None, True)


def test_earlier_evaluation_keeps_its_meaning() -> None:
    evaluation = read_document(DOCUMENTS / "evaluation.json", Evaluation)
    assert evaluation.network.seeds[evaluation.chosen_seed]["accuracy"] == 0.9861
    name, best = evaluation.best_baseline()
    assert (name, best.verdict) == ("SVM with RBF kernel", "ahead")
    assert best.ahead_interval == (0.0176, 0.0613)


def test_earlier_manifest_keeps_its_meaning() -> None:
    manifest = read_document(DOCUMENTS / "manifest.json", Manifest)
    assert (manifest.name, manifest.version) == ("digit-reader", "20261125-165628")
    assert manifest.signature.inputs[0].shape == ["batch", 1, 8, 8]
    assert set(manifest.files) == {"contract.json", "model.onnx"}


@pytest.mark.parametrize(("name", "kind"), TYPES.items())
def test_keys_of_newer_versions_are_ignored(
    tmp_path: Path, name: str, kind: type[Document]
) -> None:
    path = tmp_path / name
    path.write_text(json.dumps({**content(name), "git": {"branch": "main"}, "new": 1}))
    read_document(path, kind)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen_seed": "best"}, "chosen_seed: "),
        ({"rows": {"train": 1, "test": 1}}, "rows.validation: Field required"),
        ({"network": None}, "network: "),
        ({"baselines": {"zero": {}}}, "baselines.zero.metrics: Field required"),
    ],
)
def test_invalid_document_is_refused_in_one_line_with_file_and_key(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({**content("evaluation.json"), **change}))
    with pytest.raises(UserError) as caught:
        read_document(path, Evaluation)
    assert str(caught.value).startswith(f"{path}: is not a valid evaluation.json: {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.2), "ahead"),
        ((-0.2, -0.01), "behind"),
        ((-0.01, 0.2), "not distinguishable"),
    ],
)
def test_win_is_claimed_only_when_the_interval_excludes_zero(
    interval: tuple[float, float], verdict: str
) -> None:
    result = BaselineResult(metrics={}, interval=(0, 1), ahead=0, ahead_interval=interval)
    assert result.verdict == verdict
