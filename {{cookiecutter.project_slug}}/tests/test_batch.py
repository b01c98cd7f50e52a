"""Whole tables are scored as the server would, row by row, and no kill loses or doubles a row."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet
from pydantic import BaseModel

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.batch import job, scorer, tables
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.task.contract import Item

from . import quick, servers

FIELDS = Item.model_fields
RELATIVE = 1e-4  # networks give slightly other numbers in batches of another size


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_ROWS", 8)


@pytest.fixture
def items(request_items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return request_items[:30]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as a file of the format of its name."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            for row in rows:
                given = {name: value for name, value in row.items() if value is not None}
                plain = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
                writer.writerow(plain)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Read an output of any format; what is no text in CSV is JSON."""
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist(maps_as_pydicts="strict")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: _value(name, cell) for name, cell in row.items()} for row in csv.DictReader(file)
        ]


def _value(name: str, cell: str) -> Any:
    if not cell:
        return None
    return cell if name in ("label", "error", "row", "note") else json.loads(cell)


def predict(*arguments: Any) -> int:
    return cli.main(["predict", *map(str, arguments)])


def served(client: TestClient, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the server's prediction of each item, or {"error": message}."""
    for item in items:
        answer = client.post(
            "/v1/predict",
            content=json.dumps({"items": [item]}),
            headers={"content-type": "application/json"},
        )
        body = answer.json()
        yield (
            {**body["predictions"][0], "error": None}
            if answer.status_code == 200
            else {"error": body["detail"][0]["msg"]}
        )


def assert_same(row: dict[str, Any], prediction: dict[str, Any]) -> None:
    """Check a row of an output against the server's prediction or error."""
    if prediction["error"]:
        known = not prediction["error"].startswith("Invalid JSON")  # lone surrogates
        assert prediction["error"] in row["error"] if known else "not Unicode" in row["error"]
    else:
        assert servers.close({name: row[name] for name in prediction}, prediction, RELATIVE)


@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("input", ["parquet", "csv", "jsonl"])
def test_predictions_are_those_of_the_server(
    input: str, output: str, client: TestClient, items: list[dict[str, Any]]
) -> None:
    rows = [{**item, "row": f"row {number}"} for number, item in enumerate(items)]
    path, result = write(Path(f"in.{input}"), rows), Path(f"out.{output}")
    assert predict("--input", path, "--output", result) == 0
    scored = read(result)
    assert [row["row"] for row in scored] == [row["row"] for row in rows]
    for row, prediction in zip(scored, served(client, items), strict=True):
        assert_same(row, prediction)


def test_an_invalid_row_gets_the_reason_of_the_server_and_no_other_is_harmed(
    client: TestClient, items: list[dict[str, Any]]
) -> None:
    odd = [*quick.ODD_ITEMS, *(item for item, _ in quick.BAD_ITEMS)]
    odd = [item for item in odd if item.keys() <= FIELDS.keys() and None not in item.values()]
    mixed = [one for pair in zip(odd, (items * 3)[: len(odd)], strict=True) for one in pair]
    path, output = write(Path("in.jsonl"), mixed), Path("out.jsonl")
    with path.open("a") as file:
        file.write('{"half": \n[]\n')
    assert predict("--input", path, "--output", output) == 0
    scored = read(output)
    for row, prediction in zip(scored, served(client, mixed), strict=False):
        assert_same(row, prediction)
    assert [row["error"][:31] for row in scored[len(mixed) :]] == [
        "the line is not a JSON object: "
    ] * 2


def test_a_cell_of_a_list_or_an_object_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    class Row(BaseModel):
        words: list[str]
        sizes: dict[str, float] | None
        text: str | None

    monkeypatch.setattr(tables, "Item", Row)
    cells = {"words": '["a"]', "sizes": '{"b": 1}', "text": "[1]", "other": "[1]"}
    read = {name: tables._value(cell, name) for name, cell in cells.items()}
    assert read == {**cells, "words": ["a"], "sizes": {"b": 1}}


def test_a_cell_without_a_value_is_a_field_that_is_not_given(
    client: TestClient, items: list[dict[str, Any]], example: dict[str, Any]
) -> None:
    rows = [{**item, "note": None} for item in items[:3]] + [dict.fromkeys(items[0])]
    for input in ("parquet", "csv", "jsonl"):
        path, output = write(Path(f"in.{input}"), rows), Path(f"{input}.parquet")
        assert predict("--input", path, "--output", output) == 0
        scored = read(output)
        assert [row["error"] is None for row in scored] == [True, True, True, False]


def test_a_killed_job_goes_on_and_no_row_is_lost_or_doubled(
    work: Path, items: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**item, "row": f"row {number}"} for number, item in enumerate(items)]
    for input in ("parquet", "csv", "jsonl"):
        path = write(Path(f"in.{input}"), rows)
        whole, resumed = Path(f"{input}-whole.jsonl"), Path(f"{input}-resumed.jsonl")
        assert predict("--input", path, "--output", whole) == 0
        code = f"""
import os, signal, sys
from {cli.__package__} import cli
from {cli.__package__}.batch import job, tables
tables.BLOCK_ROWS, job.PART_SECONDS, write, calls = 8, 0, job.write_atomically, []
def write_or_die(path, content):
    calls.append(path)
    if len(calls) == 3:
        content(path.with_name(".1-part.arrow"))
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, content)
job.write_atomically = write_or_die
cli.main(sys.argv[1:])
"""
        command = [sys.executable, "-c", code, "predict", "--input", path, "--output", resumed]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert not resumed.exists()
        capsys.readouterr()
        assert predict("--input", path, "--output", resumed) == 0
        assert "resuming at row 17" in capsys.readouterr().err
        assert servers.close(read(resumed), read(whole), RELATIVE)
        assert not list(work.glob(".*.parts"))


@pytest.mark.parametrize("changed", ["input", "options", "model"])
def test_parts_of_another_job_do_not_count(
    changed: str,
    deployment: Path,
    items: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, output = write(Path("in.jsonl"), items), Path("out.jsonl")
    arguments = ["--input", path, "--output", output]
    with monkeypatch.context() as patch:
        patch.setattr(job, "PART_SECONDS", 0)
        patch.setattr(job.Job, "_write", _interrupt)
        assert predict(*arguments) == 1
    if changed == "input":
        write(path, items[::-1])
        os.utime(path, ns=(0, 0))
    elif changed == "options":
        arguments += ["--prefix", "my_"]
    else:
        servers.replace_champion(deployment, servers.install_copy(deployment, "another"))
    assert "the same command goes on" in capsys.readouterr().err
    assert predict(*arguments) == 0
    error = capsys.readouterr().err
    assert f"{changed} changed since the last start: scoring all rows anew" in error
    assert len(read(output)) == len(items)


def _interrupt(_: job.Job) -> None:
    raise KeyboardInterrupt


def test_an_unfinished_job_leaves_the_old_output(
    work: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write(Path("in.jsonl"), items), Path("out.jsonl")
    output.write_text("of yesterday")
    assert predict("--input", path, "--output", output) == 2
    with monkeypatch.context() as patch:
        patch.setattr(tables, "_plain", lambda value: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict("--input", path, "--output", output, "--overwrite")
    assert output.read_text() == "of yesterday"
    assert predict("--input", path, "--output", output, "--overwrite") == 0
    assert len(read(output)) == len(items)


def test_columns_may_have_other_names(work: Path, items: list[dict[str, Any]]) -> None:
    rows = [{f"their {name}": value for name, value in item.items()} for item in items]
    rows = [{**row, "note": "é", "error": "none"} for row in rows]
    path, output = write(Path("in.parquet"), rows), Path("out.parquet")
    renamed = [f"--column={name}=their {name}" for name in items[0]]
    assert predict("--input", path, "--output", output, *renamed, "--prefix", "my_") == 0
    scored = read(output)
    assert {(row["note"], row["error"], row["my_error"]) for row in scored} == {("é", "none", None)}
    assert not any(name.startswith("their") for name in scored[0])


def test_a_column_of_paths_names_files(
    work: Path, items: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "item_from_file", lambda path: json.loads(path.read_bytes()))
    folder = work / "far"
    folder.mkdir()
    for number, item in enumerate(items[:3]):
        (folder / f"{number}.json").write_text(json.dumps(item))
    rows: list[dict[str, Any]]
    rows = [{"file": name} for name in ("0.json", "1.json", "gone.json", "2.json", None)]
    path, output = write(folder / "in.csv", rows), Path("out.parquet")
    assert predict("--input", path, "--output", output, "--paths", "file") == 0
    scored = read(output)
    assert [row["file"] for row in scored] == [row["file"] or "" for row in rows]
    assert [row["error"] is None for row in scored] == [True, True, False, True, False]
    assert "gone.json" in scored[2]["error"]


def _cases(items: list[dict[str, Any]]) -> dict[str, tuple[Path, str]]:
    """Return unusable inputs by name, with what the message must say."""
    empty, garbage, text = Path("empty.csv"), Path("garbage.parquet"), Path("latin.csv")
    header = write(Path("header.csv"), items[:1]).read_text().splitlines()[0]
    empty.write_text(header + "\n")
    garbage.write_bytes(b"PAR1 no table")
    text.write_bytes(header.encode() + b"\n\xe9\n")
    first = next(iter(items[0]))
    return {
        "empty": (empty, "has no rows"),
        "no bytes": (write(Path("nothing.jsonl"), []), "has no rows"),
        "garbage": (garbage, "cannot be read"),
        "no unicode": (text, "is not UTF-8"),
        "no column": (write(Path("other.parquet"), [{"x": 1}]), "is missing; the file has 'x'"),
        "wrong type": (
            write(Path("type.parquet"), [{**item, first: 5} for item in items]),
            f"row 1: {first}: ",
        ),
        "taken": (write(Path("taken.parquet"), [{**items[0], "error": 1}]), "--prefix"),
        "taken late": (write(Path("taken.jsonl"), [*items, {**items[0], "error": 1}]), "--prefix"),
        "open quote": (_append(write(Path("quote.csv"), items), '"'), "cannot be read"),
        "ending": (Path("table.xlsx"), ".parquet, .csv, .jsonl"),
        "gone": (Path("gone.csv"), "no such file"),
    }


def _append(path: Path, text: str) -> Path:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    return path


def test_an_unusable_input_is_refused_in_one_line_that_names_it(
    work: Path, items: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (path, message) in _cases(items).items():
        assert predict("--input", path, "--output", "out.parquet") == 2, name
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith(f"error: {path}"), name
        assert message in lines[0], name
        assert len(lines) == 1, name
        assert not [*Path().glob("*out.parquet*")], name


def test_strict_ends_at_the_first_invalid_row(
    work: Path, items: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(Path("in.jsonl"), [*items[:9], {}, *items])
    assert predict("--input", path, "--output", "out.csv", "--strict") == 1
    assert "in.jsonl: row 10: " in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_two_processes_do_not_write_one_output(
    work: Path, items: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(Path("in.jsonl"), items)
    Path(".out.csv.parts").mkdir()
    with job.FileLock(".out.csv.parts/.lock"):
        assert predict("--input", path, "--output", "out.csv") == 1
    assert "another process" in capsys.readouterr().err


def test_it_needs_no_training_library(work: Path, items: list[dict[str, Any]]) -> None:
    path = write(Path("in.parquet"), items)
    code = f"""
import sys
from {cli.__package__} import cli
assert cli.main(sys.argv[1:]) == 0
print([name for name in ("torch", "mlflow", "sklearn", "scipy") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, "predict", "--input", path, "--output", "out.csv"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"


def test_without_the_extra_the_message_names_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{cli.__package__}.batch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert predict("--input", "in.csv", "--output", "out.csv") == 2
    assert "pip install -e '.[batch]'" in capsys.readouterr().err


def test_scoring_a_table_replaces_its_inputs(deployment: Path, items: list[dict[str, Any]]) -> None:
    """What Ray Data calls for each of its batches."""
    bundle = next((deployment / "bundles").iterdir())
    table = pa.Table.from_pylist([{**item, "note": "kept"} for item in items])
    scored = scorer.Scorer(bundle)(table)
    assert scored.column_names == ["note", *scorer.Scorer(bundle).schema.names]
    assert scored["error"].null_count == len(items)
    with pytest.raises(UserError, match="column 'error'"):
        scorer.Scorer(bundle)(table.append_column("error", table["note"]))
