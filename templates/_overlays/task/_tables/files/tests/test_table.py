"""Tables as people have them are read right, or refused with file, row, column and setting."""

import gzip
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.task.table import Table, read_table
from {{ cookiecutter.package_name }}.task.table_settings import TableSettings, with_old_keys


@pytest.fixture
def read(tmp_path: Path):
    """Write a file and read it with settings."""

    def read_content(content: str | bytes, name: str = "x.csv", **settings) -> Table:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, TableSettings(**settings))

    return read_content


def refusal(action, *arguments, **keywords) -> str:
    with pytest.raises(UserError) as error:
        action(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def cells(table: Table) -> list[tuple[str, ...]]:
    return list(zip(*(table.texts(name, "data.x") for name in table.names), strict=True))


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_separator_is_found_and_told_if_it_is_not_a_comma(read, mark: str) -> None:
    content = f"a{mark}b\n1{mark}two words\n3{mark}x\n"
    table = read(content)
    assert cells(table) == [("1", "two words"), ("3", "x")]
    assert [note for note in table.notes if "data.table.separator" in note] == table.notes
    assert len(table.notes) == (mark != ",")
    assert cells(read(content, separator=mark)) == cells(table)
    assert not read(content, separator=mark).notes


def test_a_tab_can_be_typed() -> None:
    for name in ("tab", "\\t", "\t"):
        assert TableSettings(separator=name).separator == "\t"


def test_a_separator_that_is_ambiguous_or_wrong_is_named(read) -> None:
    message = refusal(read, "a;b,c\n1;2,3\n")
    assert "',' and ';' fit every row; set data.table.separator" in message
    table = read("a;b\n1;2\n", separator=",")
    assert "if the separator is ';', set data.table.separator" in refusal(table.texts, "a", "x")


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c", "\n", "\r\n"])
def test_a_cell_holds_any_character(read, mark: str) -> None:
    table = read(f'text,label\n"one{mark}two",a\nthree,"say ""x"", {mark}"\n')
    assert cells(table) == [(f"one{mark}two", "a"), ("three", f'say "x", {mark}')]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_do_anywhere_and_blank_ones_are_left_out(read, end: str) -> None:
    lines = ["a,b", "1,2", "", '"3', '",4', "   ", ",", "5,6", ""]
    table = read(end.join(lines))
    assert cells(table) == [("1", "2"), (f"3{end}", "4"), ("5", "6")]
    assert [table.row(place) for place in range(3)] == [2, 4, 8]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "a,b\r\n1,2", "a\n1\n\n2\n"])
def test_the_last_line_may_end_or_not(read, content: str) -> None:
    assert len(read(content)) == content.count("1") + content.count("\n2")


def test_a_very_long_cell_is_read(read) -> None:
    long = "word,\n" * 500_000
    assert read(f'text,label\n"{long}",a\n').texts("text", "data.text") == [long]


@pytest.mark.parametrize("row", ["3", "3,4,5"])
def test_a_row_with_other_than_the_header_s_cells_is_refused(read, row: str) -> None:
    message = refusal(read, f'a,b\n"1\n1",2\n\n{row}\n6,7\n')
    count = row.count(",") + 1
    assert f"x.csv: row 5: has {count} cells, the header has 2" in message
    assert "data.table.quote" in message


def test_a_quote_that_is_never_closed_is_refused(read) -> None:
    content = 'a,b\n1,2\n3,"inch\n5,6\n7,8\n'
    message = refusal(read, content)
    assert "x.csv: row 3: a quote that opens a cell is never closed; data.table.quote" in message
    assert read(content, quote=None).texts("b", "x") == ["2", '"inch', "6", "8"]
    assert cells(read('a,b\n5" disk,x\n')) == [('5" disk', "x")]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl"])
def test_any_encoding_is_read(read, encoding: str, name: str) -> None:
    content = "äé,b\nñ,ß\n" if name == "x.csv" else '{"äé": "ñ", "b": "ß"}\n'
    table = read(content.encode(encoding), name, encoding=encoding)
    assert (table.names, cells(table)) == (["äé", "b"], [("ñ", "ß")])


def test_a_wrong_encoding_is_named_with_byte_row_and_setting(read) -> None:
    message = refusal(read, "a,b\n1,ü\n".encode("cp1252"))
    assert "x.csv: row 2: byte 6 (0xfc) is not utf-8; data.table.encoding" in message
    assert "data.table.encoding=utf-16-le" in refusal(read, "a,b\n1,2\n".encode("utf-16-le"))
    table = read("a,b\n1,ü\n".encode("utf-16"))
    assert cells(table) == [("1", "ü")]
    assert "UTF-16" in table.notes[0]
    with pytest.raises(ValueError, match="not an encoding of text"):
        TableSettings(encoding="base64")


def test_columns_that_nobody_needs_may_be_odd(read) -> None:
    table = read(",a,a,b,\n1,2,3,4,5\n")
    assert table.texts("b", "data.b") == ["4"]
    assert "no column 'a' (data.b): there are 2 of this name" in refusal(table.texts, "a", "data.b")
    message = refusal(table.texts, "c", "data.c")
    assert "no column 'c' (data.c): only '', 'a', 'a', 'b', ''" in message
    assert "data.table.header" in message


def test_a_file_without_header_has_the_names_of_the_settings(read) -> None:
    table = read("1,2\n3,4\n", header=["a", "b"])
    assert cells(table) == [("1", "2"), ("3", "4")]
    assert table.row(0) == 1
    message = refusal(read, "1,2\n3,4\n", header=["a"])
    assert "row 1: has 2 cells, data.table.header names 1" in message


def test_lines_before_the_header_are_skipped(read) -> None:
    table = read("made by X\n# 2014\na;b\n1;2\n", skip=2)
    assert cells(table) == [("1", "2")]
    assert table.row(0) == 4


NUMBERS = [
    ("51.0", {}, 51.0),
    ("-.5", {}, -0.5),
    ("+5.", {}, 5.0),
    ("1e3", {}, 1000.0),
    ("51,0", {"decimal": ","}, 51.0),
    ("1.234,5", {"decimal": ",", "thousands": "."}, 1234.5),
    ("1,234.5", {"thousands": ","}, 1234.5),
    ("-1 234 567", {"thousands": " "}, -1234567.0),
    ("1'234", {"thousands": "'"}, 1234.0),
    ("1234,5", {"decimal": ",", "thousands": "."}, 1234.5),
]


@pytest.mark.parametrize(("text", "settings", "value"), NUMBERS)
def test_a_number_is_read_with_the_signs_of_the_settings(read, text, settings, value) -> None:
    table = read(f'a;b\n{text};1\n" {text} ";1\n', separator=";", **settings)
    assert table.numbers("a", "data.a").tolist() == [value, value]


REFUSED = [
    ("51,0", {}, "data.table.decimal=,"),
    ("1.234,5", {}, "data.table.thousands='.'"),
    ("1,234.5", {}, "data.table.thousands=','"),
    ("1.23", {"decimal": ",", "thousands": "."}, "is not a finite number"),
    ("12.34.567", {"decimal": ",", "thousands": "."}, "is not a finite number"),
    ("1_000", {}, "is not a finite number"),
    ("0x10", {}, "is not a finite number"),
    ("inf", {}, "is not a finite number"),
    ("1e400", {}, "is not a finite number"),
    ("a" * 999, {}, f"'{'a' * 40}…' is not a finite number"),
    ("", {}, "an empty cell is not"),
    ("NA", {}, "'NA' is not"),
]


@pytest.mark.parametrize(("text", "settings", "reason"), REFUSED)
def test_what_is_no_number_is_refused_with_its_place(read, text, settings, reason) -> None:
    table = read(f"a;b\n1;1\n\n{text};1\n", separator=";", **settings)
    message = refusal(table.numbers, "a", "data.a")
    assert "x.csv: row 4, column 'a': " in message
    assert reason in message


def test_missing_numbers_are_nan_where_that_is_asked_for(read) -> None:
    table = read('a,b\n1,1\n"",1\nNA,1\n-,1\n', missing=["NA", "-"])
    assert [math.isnan(value) for value in table.numbers("a", "x", empty_as_nan=True)] == [
        *(False, True, True, True)
    ]
    assert table.texts("a", "x") == ["1", "", "NA", "-"]


TIMES = {
    "2014-01-31T13:00": datetime(2014, 1, 31, 13),
    "2014-01-31 13:00:00+01:00": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "2014-01-31T12:00:00Z": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "2014-01": datetime(2014, 1, 1),
    "2014": datetime(2014, 1, 1),
    "20140131": datetime(2014, 1, 31),
    "2014-W05": datetime(2014, 1, 27),
}
GUESSED = {
    "31.01.2014": datetime(2014, 1, 31),
    "31/01/2014 13:00": datetime(2014, 1, 31, 13),
    "01/31/2014 1:00 PM": datetime(2014, 1, 31, 13),
    "2014-1-31 3:00": datetime(2014, 1, 31, 3),
    "Jan 2014": datetime(2014, 1, 1),
    "2014Q3": datetime(2014, 7, 1),
    "Q3 2014": datetime(2014, 7, 1),
    "1391169600": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "1391169600000": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "1391169600000000": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "1391169600000000000": datetime(2014, 1, 31, 12, tzinfo=UTC),
    "1391169600.5": datetime(2014, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC),
    "874724710": datetime(1997, 9, 20, 3, 5, 10, tzinfo=UTC),
}


@pytest.mark.parametrize(("text", "moment"), [*TIMES.items(), *GUESSED.items()])
def test_a_time_is_read_and_a_guess_is_told(read, text: str, moment: datetime) -> None:
    table = read(f"time,b\n{text},1\n", separator=",")
    assert table.times("time", "data.time") == [moment]
    assert len(table.notes) == (text in GUESSED)
    assert all("data.table.times" in note for note in table.notes)


def test_a_form_of_times_may_be_set(read) -> None:
    content = "time\n01/02/2014\n03/04/2014\n"
    table = read(content)
    message = refusal(table.times, "time", "data.time")
    assert "row 2, column 'time': '01/02/2014' may be '%d/%m/%Y' or '%m/%d/%Y'" in message
    assert "set data.table.times" in message
    assert read(content, times="%m/%d/%Y").times("time", "x")[0] == datetime(2014, 1, 2)
    assert read("time\n60\n", times="s").times("time", "x") == [
        datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    ]
    for form in ("iso", "%Q"):
        with pytest.raises(ValueError, match="times"):
            TableSettings(times=form)


@pytest.mark.parametrize("odd", ["32.01.2014", "soon", "", "1391169600"])
def test_a_time_that_does_not_fit_is_refused_with_its_place(read, odd: str) -> None:
    table = read(f"time,b\n31.01.2014,1\n{odd},1\n", separator=",")
    message = refusal(table.times, "time", "data.time")
    assert f"row 3, column 'time': {odd!r} does not fit '%d.%m.%Y'" in message
    assert "data.table.times" in message
    table = read(f"time,b\n2014-01-01,1\n{odd},1\n", separator=",", times="%Y-%m-%d")
    assert f"{odd!r} does not fit '%Y-%m-%d'" in refusal(table.times, "time", "data.time")


def test_json_lines_are_read(read) -> None:
    table = read('{"id": 1, "text": "a\u2028b"}\n\n{"text": "c", "x": 2.5}\n', "x.jsonl")
    assert table.texts("id", "x") == ["1", ""]
    assert table.texts("text", "x") == ["a\u2028b", "c"]
    assert table.row(1) == 3
    assert "row 1, column 'x': an empty cell" in refusal(table.numbers, "x", "x")
    assert "row 2: is not valid JSON" in refusal(read, '{"a": 1}\n{"a": \n', "x.jsonl")
    assert "row 1: is '[1]', must be an object" in refusal(read, "[1]\n", "x.jsonl")


def test_a_json_array_is_read(read) -> None:
    rows = [{"a": "x", "n": 1, "tags": ["u"]}, {"a": 7, "n": 2.5, "tags": {}}]
    for name, content in (("x.json", json.dumps(rows, indent=1)), ("y.json", json.dumps(rows[0]))):
        table = read(content, name)
        assert table.texts("a", "x")[0] == "x"
        assert table.numbers("n", "x")[0] == 1
        assert "row 1, column 'tags': is '[\"u\"]', must be text" in refusal(
            table.texts, "tags", "x"
        )
    assert read(json.dumps(rows), "x.json").texts("a", "x") == ["x", "7"]
    assert "is not valid JSON" in refusal(read, "[1,", "x.json")


def test_numbers_of_json_keep_their_point(read) -> None:
    table = read('{"a": 1.234}\n', "x.jsonl", decimal=",", thousands=".")
    assert table.numbers("a", "x").tolist() == [1.234]
    table = read('{"a": 123456789012345678901234567890}\n', "x.jsonl")
    assert table.texts("a", "x") == ["123456789012345678901234567890"]


def test_parquet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {
        "time": pa.array([datetime(2014, 1, 1, 3), datetime(2014, 1, 1, 4)]),
        "zoned": pa.array([datetime(2014, 1, 1, 3, tzinfo=UTC)] * 2),
        "y": pa.array([1.5, None]),
        "n": pa.array([1, 2]),
        "name": pa.array(["a", "b"]).dictionary_encode(),
        "lists": pa.array([[1], [2]]),
    }
    parquet.write_table(pa.table(columns), path)
    table = read_table(path, TableSettings(decimal=","))
    assert table.times("time", "x") == [datetime(2014, 1, 1, 3), datetime(2014, 1, 1, 4)]
    assert table.times("zoned", "x")[0] == datetime(2014, 1, 1, 3, tzinfo=UTC)
    assert math.isnan(table.numbers("y", "x", empty_as_nan=True)[1])
    assert "row 2, column 'y': an empty cell" in refusal(table.numbers, "y", "x")
    assert cells(Table(path, table.settings, table.columns[3:5], [], [1, 2])) == [
        *(("1", "a"), ("2", "b"))
    ]
    assert "holds list<" in refusal(table.texts, "lists", "data.text")
    path.write_bytes(path.read_bytes()[:99])
    assert "is not valid Parquet" in refusal(read_table, path, TableSettings())


def test_gzipped_files_are_read(read) -> None:
    packed = gzip.compress(b"a;b\n1;2\n")
    assert cells(read(packed, "x.csv.gz")) == [("1", "2")]
    assert len(read(gzip.compress(b'{"a": 1}\n'), "x.jsonl.gz")) == 1
    assert "damaged gzip" in refusal(read, packed[:20], "x.csv.gz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("a,b\n", "no rows below the header"),
        ("a,b\n,\n", "no rows below the header"),
        (b"PK\x03\x04", "ZIP archive or an Excel file"),
    ],
)
def test_a_file_without_a_table_is_refused(read, content, reason: str) -> None:
    assert reason in refusal(read, content)


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(read_table, tmp_path / "none.csv", TableSettings())
    assert "is a folder" in refusal(read_table, tmp_path, TableSettings())


def test_settings_of_older_files_are_another_spelling() -> None:
    raw = {"separator": ";", "table": {"decimal": ","}, "path": "x"}
    moved = {"path": "x", "table": {"separator": ";", "decimal": ","}}
    assert with_old_keys(raw, separator="separator") == moved
    assert with_old_keys(moved, separator="separator") == moved
