"""A sweep compares variants with a base on validation, and trains nothing twice."""

from pathlib import Path

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.experiments import studies
from {{ cookiecutter.package_name }}.files import read_document
from {{ cookiecutter.package_name }}.training.sweeps import SweepRecord

from .conftest import CONFIG
from .quick import QUICK

RECORD = Path("docs/experiments/sweep-s/sweep.json")


def sweep(*arguments: str) -> int:
    return cli.main(["sweep", "--config", str(CONFIG), "--name", "s", *arguments, *QUICK])


def test_variants_are_compared_with_the_base_and_not_trained_twice(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base,) = (path.parent.name for path in work.glob("runs/*/run.json"))
    trained: list[str] = []
    real = studies.train_tracked
    monkeypatch.setattr(
        studies, "train_tracked", lambda run, *rest: trained.append(run.name) or real(run, *rest)
    )
    Path("variants.yaml").write_text("no step: train.lr=1e-9\ndropout: [model.dropout=0.17]\n")
    assert sweep("--file", "variants.yaml") == 0
    record = read_document(RECORD, SweepRecord)
    assert record.base.run == base  # there was one already
    assert [variant.name for variant in record.variants] == ["no step", "dropout"]
    assert trained == [variant.run for variant in record.variants]
    untrained = record.variants[0]
    assert untrained.ahead is not None
    sign = 1 if record.higher_is_better else -1
    assert untrained.ahead == pytest.approx(sign * (untrained.mean - record.base.mean))
    for name in ("README.md", "differences.png"):
        assert RECORD.with_name(name).exists()
    assert sweep("--file", "variants.yaml") == 0
    assert len(trained) == 2
    assert read_document(RECORD, SweepRecord) == record


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "nothing to compare"),
        (["--variant", "model.dropuot=0"], "did you mean model.dropout?"),
        (["--variant", "train.seeds=5"], "has to be the same for all variants"),
        (["--variant", "train.clip_norm=1"], "is the same as the base"),
        (["--file", "absent.yaml"], "absent.yaml: cannot be read"),
    ],
)
def test_variants_that_compare_nothing_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert sweep(*arguments) == 2
    assert reason in capsys.readouterr().err
