"""Every experiment has a record and a page; the check finds pages that do not match.

The folder that the tests work on has been reported.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.experiments import records
from {{ cookiecutter.package_name }}.experiments.report import WALKTHROUGH

from .conftest import CONFIG

EXPERIMENTS = Path("docs/experiments")


def report(*arguments: str) -> int:
    return cli.main(["report", "--config", str(CONFIG), *arguments])


def page() -> Path:
    return next(EXPERIMENTS.glob("*/record.json")).with_name("README.md")


def second_run(shift: float, **settings: str) -> str:
    """Copy the run as a later one with other settings, whose scores are higher by `shift`."""
    first = next(Path("runs").glob("*/run.json")).parent
    folder = Path(shutil.copytree(first, first.with_name("99990101-000000")))
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    info["settings"] |= settings
    info["settings"]["train"]["epochs"] += 1
    info |= {"started": "9999-01-01T00:00:00+00:00", "question": "Do more epochs help?"}
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    evaluation["run"] = folder.name
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    with np.load(folder / "scores.npz") as stored:
        scores = {seed: row + shift for seed, row in stored.items()}
    np.savez(folder / "scores.npz", **scores)  # pyright: ignore[reportArgumentType]
    return folder.name


@pytest.mark.parametrize("lost", [["runs"], ["runs", "mlflow.db"]])
def test_a_fresh_clone_without_runs_can_check_its_pages(work: Path, lost: list[str]) -> None:
    for name in lost:
        (shutil.rmtree if Path(name).is_dir() else Path.unlink)(work / name)
    assert report("--check") == 0


def test_check_passes_and_says_so_before_the_first_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report("--check") == 0
    assert "no results yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["README.md", "MODEL_CARD.md", "walkthrough", "index", "page", "picture"]
)
def test_check_names_the_page_that_was_changed_and_the_command_that_mends_it(
    work: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"index": EXPERIMENTS / "README.md", "page": page()}
    own["picture"] = page().with_name("comparison.png")
    own["walkthrough"] = WALKTHROUGH
    changed = own.get(name, Path(name))
    content = changed.read_bytes()
    changed.write_bytes(content.replace(b"<!-- results:end", b"9.9\n<!-- results:end") + b"\n")
    assert report("--check") == 1
    out = capsys.readouterr().out
    assert f"{changed}: " in out
    assert f"report --run {page().parent.name}" in out
    assert report() == 0
    assert report("--check") == 0


def test_check_advises_to_restore_a_page_whose_run_is_not_here(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("runs")
    content = page().read_bytes()
    page().write_bytes(content.replace(b"<!-- results:end", b"9.9\n<!-- results:end"))
    assert report("--check") == 1
    out = capsys.readouterr().out
    assert f"git checkout -- {page()}" in out
    assert "report --run" not in out


def test_words_of_a_person_outlive_a_new_report(work: Path) -> None:
    text = page().read_text(encoding="utf-8")
    text = text.replace(records.NO_TEXT, "Because of <b>this</b> | that ✨.")
    page().write_text(text, encoding="utf-8")
    assert report() == 0
    assert page().read_text(encoding="utf-8") == text
    assert report("--check") == 0


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.5, "better"), (-0.5, "worse"), (0.0, "not distinguishable")]
)
def test_difference_to_the_run_before_is_measured_on_the_same_test_rows(
    work: Path, shift: float, verdict: str
) -> None:
    sign = 1 if records.HIGHER_IS_BETTER else -1
    name = second_run(sign * shift)
    assert report("--run", name) == 0
    record = json.loads((EXPERIMENTS / name / "record.json").read_text(encoding="utf-8"))
    assert record["comparison"]["ahead"] == pytest.approx(shift, abs=1e-5)
    index = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    line = next(line for line in index.splitlines() if line.startswith(f"| [{name}]"))
    assert verdict in line
    assert "train.epochs=" in line
    assert "Do more epochs help?" in line


def test_first_run_of_a_name_is_compared_with_another_of_the_same_data(work: Path) -> None:
    name = second_run(0.0, name="another")
    assert report("--run", name) == 0
    index = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    assert index.count(" **best** ") == 1
    line = next(line for line in index.splitlines() if line.startswith(f"| [{name}]"))
    assert "not distinguishable" in line
    assert "train.epochs=" in line
    assert "name=" not in line


def test_tables_of_errors_are_on_the_experiments_page(work: Path) -> None:
    name = second_run(0.0)
    path = Path("runs") / name / "evaluation.json"
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    evaluation["details"]["errors_by_age"] = {"old": {"score": 0.25}}
    evaluation["details"]["by_size"] = {"large": {"score": 0.75}}
    path.write_text(json.dumps(evaluation), encoding="utf-8")
    assert report("--run", name) == 0
    text = (EXPERIMENTS / name / "README.md").read_text(encoding="utf-8")
    assert "| Errors by age | score |" in text
    assert "By size" not in text


def test_records_hold_no_paths_of_the_machine(work: Path) -> None:
    for path in EXPERIMENTS.glob("**/*.json"):
        assert str(work) not in path.read_text(encoding="utf-8")
    record = json.loads(page().with_name("record.json").read_text(encoding="utf-8"))
    assert "paths" not in record["info"]["settings"]


def test_a_run_without_record_to_compare_with_is_named(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("--against", "nothing") == 2
    assert "--against nothing: has no record" in capsys.readouterr().err


def test_walkthrough_keeps_the_words_of_a_person_and_its_bytes(work: Path) -> None:
    text = WALKTHROUGH.read_text(encoding="utf-8") + "\nWhy I chose this: *because* ✨.\n"
    WALKTHROUGH.write_text(text, encoding="utf-8")
    assert report() == 0
    assert WALKTHROUGH.read_text(encoding="utf-8") == text
    assert report("--check") == 0


def test_walkthrough_tells_what_failed_and_what_the_person_concluded(work: Path) -> None:
    name = second_run(-0.5 if records.HIGHER_IS_BETTER else 0.5)
    assert report("--run", name) == 0
    own = EXPERIMENTS / name / "README.md"
    text = own.read_text(encoding="utf-8").replace(records.NO_TEXT, "More is *not* better.")
    own.write_text(text, encoding="utf-8")
    assert report("--run", name) == 0
    failed = WALKTHROUGH.read_text(encoding="utf-8").partition("## What did not work")[2]
    (line,) = (line for line in failed.splitlines() if line.startswith(f"- [{name}]"))
    assert "train.epochs=" in line
    assert r"Conclusion: More is \*not\* better." in line
    assert failed.index("Worse than the run before:") < failed.index(line)


def test_walkthrough_without_its_markers_is_named_before_anything_is_written(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("README.md").unlink()
    WALKTHROUGH.write_text("Mine.\n", encoding="utf-8")
    assert report() == 2
    assert f"{WALKTHROUGH}: must hold these two lines" in capsys.readouterr().err
    assert WALKTHROUGH.read_text(encoding="utf-8") == "Mine.\n"
    assert not Path("README.md").exists()
