"""The costs of a network are measured and stand in the model card."""

import re
from pathlib import Path

from safetensors.numpy import load_file

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.files import read_document
from {{ cookiecutter.package_name }}.training.documents import Evaluation

from .conftest import CONFIG


def test_size_and_latency_of_the_chosen_network_are_in_the_model_card(trained: Path) -> None:
    path = next(trained.glob("runs/*/evaluation.json"))
    evaluation = read_document(path, Evaluation)
    costs = evaluation.costs
    assert costs is not None
    weights = path.parent / f"seed-{evaluation.chosen_seed}" / "best.safetensors"
    assert costs.weights_bytes == weights.stat().st_size
    assert 0 < costs.parameters <= sum(array.size for array in load_file(weights).values())
    assert costs.item_ms > 0
    assert costs.batch_ms > 0
    assert costs.peak_memory_bytes is not None
    assert 50e6 < costs.peak_memory_bytes < 50e9
    text = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| {costs.parameters:,} " in text
    assert f"| {costs.item_ms:.2f} ms " in text


def test_size_of_an_exported_bundle_is_in_the_model_card(work: Path) -> None:
    card = work / "MODEL_CARD.md"
    assert "| Bundle " not in card.read_text(encoding="utf-8"), "reported before it was deployed"
    assert cli.main(["report", "--config", str(CONFIG)]) == 0
    size = sum(path.stat().st_size for path in next(work.glob("runs/*/bundle")).iterdir())
    assert re.search(rf"\| Bundle .*\| {size / 1000:.1f} kB ", card.read_text(encoding="utf-8"))
