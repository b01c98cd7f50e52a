"""Texts: all sources are read and checked; training and serving encode them identically."""

import csv
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import load as bundles
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.files import write_figure
from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.task import (
    contract,
    data,
    diagnostics,
    docstrings,
    encoder,
    figures,
    masking,
    model,
    objective,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings
from {{ cookiecutter.package_name }}.training import checkpoint, fit

from .conftest import CONFIG, FORCE
from .quick import QUICK

WORDS = "sum of all values along an axis or none if it was empty before as given".split()  # noqa: SIM905


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, [*QUICK, *overrides], {})


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load(settings().data)


def sentence(number: int) -> str:
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS, size=8)) + f" {number}"


def write_library(folder: Path, name: str, files: dict[str, str]) -> None:
    """Write the documentation of an installed library."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for path, entries in {"__init__.py": "", **files}.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        body = f"def f():\n    '''Does.\n\n    Parameters\n    ----------\n{entries}\n    '''\n"
        (folder / name / path).write_text(body if entries else "", encoding="utf-8")


def entry(name: str, field: str, description: str) -> str:
    return f"    {name} : {field}\n        {description}\n"


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSettings:
    """Settings that read two small libraries; the second is the unseen one."""
    kinds = ["int", "bool, optional", "float", "{'a', 'b'}"]
    for library in ("firstlib", "otherlib"):
        files = {"tests/test_it.py": entry("t", "int", "is of a test and must not be read")}
        for number in range(30):
            # Digits do not tell texts apart, so the last word, which names the file, has none.
            last = "qrstuv"[number % 6] * (number + 1)
            texts = [f"{sentence(10 * number + row)} {library} {last}" for row in range(4)]
            files[f"module{number}.py"] = "".join(map(entry, "abcd", kinds, texts))
        write_library(tmp_path, library, files)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = ["firstlib", "otherlib"]
    cache = tmp_path / "cache"
    return DataSettings(libraries=names, unseen="otherlib", cache=cache, vocabulary=300)


@pytest.mark.parametrize(
    ("field", "label"),
    [
        ("int, optional", "int"),
        ("int or None, default=None", "int"),
        ("{'auto', 'full'}, default 'auto'", "str"),
        ("'auto' or 'full'", "str"),
        ("array_like of shape (n_samples, n_features)", "array"),
        ("ndarray or array-like", "array"),
        ("list of str", "container"),
        ("tuple of ints", "container"),
        ("callable", "callable"),
        ("bool (default: True)", "bool"),
        ("float", "float"),
        ("int or float", None),
        ("str or callable", None),
        ("object", None),
        ("Estimator", None),
    ],
)
def test_type_field_gives_one_label_or_none(field: str, label: str | None) -> None:
    assert docstrings.label_of(field) == label


def test_types_are_removed_from_texts_and_tests_are_not_read(libraries: DataSettings) -> None:
    corpus = docstrings.read_docstrings(libraries)
    texts = [text for part in corpus.by_split.values() for text in part.texts]
    assert texts
    assert {label for part in corpus.by_split.values() for label in part.labels} == {
        "int",
        "bool",
        "float",
        "str",
    }
    for text in [*texts, *corpus.unlabelled]:
        assert "optional" not in text
        assert "'a'" not in text
        assert "of a test" not in text


def test_source_file_is_in_one_split_and_unseen_library_in_none(
    libraries: DataSettings,
) -> None:
    parts = docstrings.read_docstrings(libraries).by_split
    assert set(parts) == {"train", "validation", "test", "otherlib"}
    files = {
        name: {text.split()[-1] for text in part.texts} for name, part in parts.items()
    }  # the last word is the same in all of a file
    assert not files["train"] & files["validation"]
    assert not files["train"] & files["test"]
    assert not files["validation"] & files["test"]
    assert all("otherlib" in text for text in parts["otherlib"].texts)
    assert not any("otherlib" in text for name in ("train", "test") for text in parts[name].texts)


def test_held_out_entries_are_not_in_the_pretraining_texts(
    libraries: DataSettings, tmp_path: Path
) -> None:
    before = docstrings.read_docstrings(libraries)
    copied = before.by_split["test"].texts[0].partition(" : ")[2]
    source_file = next(
        path
        for path in (tmp_path / "firstlib").glob("module*.py")
        if before.unlabelled[0].split()[-1] in path.read_text(encoding="utf-8")
    )
    text = source_file.read_text(encoding="utf-8")
    source_file.write_text(text.replace("    '''\n", entry("copy", "object", copied) + "    '''\n"))
    for path in libraries.cache.iterdir():
        path.unlink()
    after = docstrings.read_docstrings(libraries)
    assert copied in source_file.read_text(encoding="utf-8")
    assert not any(copied in text for text in after.unlabelled)
    assert len(after.unlabelled) == len(before.unlabelled)


def test_types_are_removed_from_other_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a training file's `Returns` could reveal a held-out entry's type."""
    body = entry("x", "int", "How many of them there are to be.")
    body += "\n    Returns\n    -------\n" + entry("out", "ndarray", "All of them, side by side.")
    body += "\n    Notes\n    -----\n    Written at length for people who read to the end of it.\n"
    body += "\n    y : float\n        Stands where no list is, yet has the form of an entry.\n"
    write_library(tmp_path, "somelib", {"module.py": body})
    monkeypatch.syspath_prepend(str(tmp_path))
    (source,) = docstrings.extract("somelib")
    assert source.parameters == [
        ("x : How many of them there are to be.", "int"),
        ("out : All of them, side by side.", None),
    ]
    assert source.paragraphs == ["Written at length for people who read to the end of it."]


def test_copied_entries_count_once(dataset: data.Dataset) -> None:
    texts = [text for part in dataset.texts.values() for text in part]
    bare = [
        "".join(char for char in text.partition(" : ")[2].lower() if char.isalpha())
        for text in texts
    ]
    assert len({text[:100] for text in bare}) >= 0.99 * len(bare)


def test_cache_is_keyed_by_version_and_damaged_files_are_named(
    libraries: DataSettings,
) -> None:
    first = docstrings.read_docstrings(libraries)
    names = sorted(path.name for path in libraries.cache.iterdir())
    assert names == ["firstlib-1.0-1.json", "otherlib-1.0-1.json"]
    path = libraries.cache / names[0]
    stamp = path.stat().st_mtime_ns
    assert docstrings.read_docstrings(libraries) == first
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"firstlib-1\.0-1\.json: is damaged; delete it"):
        docstrings.read_docstrings(libraries)


def test_unknown_libraries_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'nosuch' is not an installed package"):
        data.load(DataSettings(libraries=["nosuch"], unseen=None, cache=tmp_path))
    with pytest.raises(UserError, match=r"data\.unseen: 'numpy' is not in"):
        data.load(DataSettings(libraries=["pydantic"], unseen="numpy", cache=tmp_path))


def write_csv(path: Path, count: int = 60, extra: str = "") -> Path:
    rows = [f"{sentence(number)},{'cat' if number % 2 else 'dog'}" for number in range(count)]
    rows = [row.replace(",", ";", row.count(",") - 1) for row in rows]
    path.write_text("text,label\n" + "\n".join(rows) + "\n" + extra, encoding="utf-8")
    return path


def table(path: Path, **more: Any) -> data.Dataset:
    return data.load(DataSettings(source="csv", path=path, vocabulary=300, **more))


def test_csv_file_is_read_and_every_text_is_in_one_split(tmp_path: Path) -> None:
    dataset = table(write_csv(tmp_path / "a.csv"))
    assert dataset.contract.labels == ["cat", "dog"]
    texts = [text for name in ("train", "validation", "test") for text in dataset.texts[name]]
    assert len(texts) == len(set(texts)) == 60
    assert len(dataset.unlabelled) == len(dataset.texts["train"])


def test_text_keeps_its_split_when_others_are_added(tmp_path: Path) -> None:
    few, many = (table(write_csv(tmp_path / f"{n}.csv", n)) for n in (60, 90))
    for name in ("train", "validation", "test"):
        assert set(few.texts[name]) <= set(many.texts[name])


def test_jsonl_gives_the_same_data_as_csv(tmp_path: Path) -> None:
    expected = table(write_csv(tmp_path / "a.csv"))
    path = tmp_path / "a.jsonl"
    lines = (tmp_path / "a.csv").read_text().splitlines()[1:]
    rows = [dict(zip(("text", "label"), line.rsplit(",", 1), strict=True)) for line in lines]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert table(path).fingerprint == expected.fingerprint


def test_files_without_header_with_numbered_classes_and_a_test_file_are_read(
    tmp_path: Path,
) -> None:
    """The form in which AG News is distributed."""
    for name, numbers in (("train.csv", range(80)), ("test.csv", range(75, 95))):
        rows = [f'"{1 + n % 2}","{sentence(n)}","A ""quoted"" story\nof {n}"' for n in numbers]
        (tmp_path / name).write_text("\n".join(rows), encoding="utf-8")
    dataset = table(
        tmp_path / "train.csv",
        test_path=tmp_path / "test.csv",
        header=["class", "title", "description"],
        text=["title", "description"],
        label="class",
        names={"1": "World", "2": "Sports"},
    )
    assert dataset.contract.labels == ["Sports", "World"]
    assert len(dataset.texts["test"]) == 20
    # five texts are in both files: they stay in test
    assert len(dataset.texts["train"]) + len(dataset.texts["validation"]) == 75
    assert dataset.texts["test"][0].endswith('A "quoted" story of 75')


def test_column_can_set_the_split(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    parts = ["train", "train", "validation", "test"]
    rows = [
        f"{'a' if n % 3 else 'b'},{sentence(n).replace(',', '')},{parts[n % 4]}" for n in range(40)
    ]
    path.write_text("label,text,split\n" + "\n".join(rows), encoding="utf-8")
    dataset = table(path, split="split")
    assert [len(dataset.texts[name]) for name in ("train", "validation", "test")] == [20, 10, 10]
    path.write_text(path.read_text() + "\na,one more,elsewhere", encoding="utf-8")
    with pytest.raises(
        UserError, match="row 42, column 'split': is 'elsewhere', must be one of train"
    ):
        table(path, split="split")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b" \n \n", "is empty"),
        (b"text,label\nab,c\n\xff\xfe,d\n", r"row 3: byte 16 \(0xff\) is not utf-8"),
        (b"words,label\na,b\n", r"no column 'text' \(data.text\): only 'words', 'label'"),
        (b"text,label\na,b\nc,d,e\n", "row 3: has 3 cells, the header has 2"),
        (b"text,label\na,b\nc\n", "row 3: has 1 cells, the header has 2"),
        (b"text,label\na,b\n  ,d\n", "row 3, column 'text': is empty; data.empty=drop"),
        (b"text,label\na,b\nc,\n", "row 3, column 'label': is empty"),
        (b'text,label\na,b\n"c,d\n', "row 3: a quote that opens a cell is never closed"),
        (b"text,label\na,b\nc,b\n", r"only one class \(b\)"),
        (
            b"text,label\nsame,b\nother,b\nsame,c\n",
            "row 4, column 'label': is 'c' for the text that is 'b' in bad.csv, row 2",
        ),
        (b"text,label\n", "no rows below the header"),
        ("text,label\nfine,b\n\u0007\u0007,c\n".encode(), "contains no readable character"),
    ],
)
def test_bad_csv_file_is_refused_naming_row_and_column(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        table(path)
    assert "bad.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[1, 2]", "row 2: is .*, must be an object"),
        ("{", "row 2: is not valid JSON"),
        ("[" * 100_000, "row 2: is not valid JSON"),
        ('{"text": "a"}', "row 2, column 'label': is empty"),
        ('{"text": "a", "label": NaN}', "row 2, column 'label': is empty"),
        (
            '{"text": ["a"], "label": "b"}',
            "row 2, column 'text': is .*, must be text or a number",
        ),
    ],
)
def test_bad_jsonl_file_is_refused_naming_row_and_column(
    tmp_path: Path, line: str, expected: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "one", "label": 1}\n' + line, encoding="utf-8")
    with pytest.raises(UserError, match=expected) as caught:
        table(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_class_without_training_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nosuch\.csv: cannot be read"):
        table(tmp_path / "nosuch.csv")
    rows = [f"{'a' if n % 2 else 'b'},{sentence(n).replace(',', '')},train" for n in range(8)]
    rows += ["a,some words,validation", "c,other words,test"]
    path = tmp_path / "a.csv"
    path.write_text("label,text,split\n" + "\n".join(rows), encoding="utf-8")
    with pytest.raises(UserError, match="no text of class 'c' is left for training"):
        table(path, split="split")


def test_texts_in_two_classes_can_be_dropped(tmp_path: Path) -> None:
    same = sentence(3).replace(",", ";")
    dataset = table(write_csv(tmp_path / "a.csv", extra=f"{same},dog\n"), conflicts="drop")
    texts = [text for part in dataset.texts.values() for text in part]
    assert len(texts) == 59
    assert same not in texts


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\f", "\n"])
def test_a_text_may_hold_any_character(tmp_path: Path, mark: str) -> None:
    rows = [f'"{sentence(n)}{mark}{n}",{"ab"[n % 2]}' for n in range(200)]
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
    assert sum(map(len, table(path).texts.values())) == 200


def test_tabs_are_found_and_told(tmp_path: Path) -> None:
    rows = [f"{sentence(n)}, and more\t{'ab'[n % 2]}" for n in range(60)]
    path = tmp_path / "a.csv"
    path.write_text("text\tlabel\n" + "\n".join(rows), encoding="utf-8")
    dataset = table(path)
    assert sum(map(len, dataset.texts.values())) == 60
    assert any("data.table.separator" in note for note in dataset.notes)
    with pytest.raises(UserError, match=r"if the separator is '\\t', set data\.table\.separator"):
        table(path, table={"separator": ","})


def test_near_copies_count_once_and_are_told(tmp_path: Path) -> None:
    extra = [
        f"{change(sentence(n))},{'cat' if n % 2 else 'dog'}\n"
        for n, change in enumerate(
            [str.upper, lambda text: text + " ", lambda text: text + " .", lambda text: text]
        )
    ]
    dataset = table(write_csv(tmp_path / "a.csv", extra="".join(extra)))
    assert sum(map(len, dataset.texts.values())) == 60
    assert any(
        note.startswith("4 rows were left out: they repeat a text") for note in dataset.notes
    )
    opposite = f"{sentence(0)}!,cat\n"
    assert sum(map(len, table(write_csv(tmp_path / "a.csv", extra=opposite)).texts.values())) == 61


def test_copied_documentation_counts_once_whatever_its_last_character() -> None:
    keys = {docstrings._copy_key(f"x : Number of rows{end}") for end in ("", ".", " ", "...")}
    assert len(keys) == 1


def test_empty_rows_can_be_left_out(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", extra=' ,cat\nno class,\n"\n",""\n')
    with pytest.raises(UserError, match=r"row 62, column 'text': is empty; data\.empty=drop"):
        table(path)
    dataset = table(path, empty="drop")
    assert sum(map(len, dataset.texts.values())) == 60
    assert "a.csv: 2 rows without text or class were left out." in dataset.notes


def test_cut_texts_are_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", extra=f"{'axis ' * 500},cat\n")
    (note,) = [note for note in table(path).notes if "data.tokens" in note]
    assert note.startswith("1 of 61 texts (1.6%) are longer than data.tokens=64")
    assert not any("data.tokens" in note for note in table(write_csv(tmp_path / "b.csv")).notes)


def test_several_labels_in_a_cell_are_told_and_can_be_left_out(tmp_path: Path) -> None:
    extra = [f"{sentence(n)},cat|dog\n" for n in range(100, 130)]
    path = write_csv(tmp_path / "a.csv", extra="".join(extra))
    dataset = table(path)
    assert dataset.contract.labels == ["cat", "cat|dog", "dog"]
    assert any("'cat|dog', look like several labels" in note for note in dataset.notes)
    dataset = table(path, label_separator="|")
    assert dataset.contract.labels == ["cat", "dog"]
    assert "a.csv: 30 rows with several labels were left out." in dataset.notes


def test_a_column_that_holds_no_classes_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", extra=f"a text,{'x' * 201}\n")
    with pytest.raises(UserError, match=r"row 62, .*longer than 200 characters.*data\.label"):
        table(path)


ODD_NAMES = ["a|b", "<b>x</b>", "two\nlines", 'say "x"', "$x_1$", "😀", "\\frac{", "x" * 200]


def test_classes_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [[sentence(n), ODD_NAMES[n % len(ODD_NAMES)]] for n in range(400)]
        csv.writer(file).writerows([["text", "label"], *rows])
    dataset = table(path)
    assert dataset.contract.labels == sorted(ODD_NAMES)
    outputs = {"logits": np.eye(len(ODD_NAMES))[dataset.test["label"] - 1]}
    details = objective.details(outputs, dataset.test, dataset.contract)
    words = [
        {"label": name, "probability": 1.0, "words": ["a", "b"], "weights": [0.5, 0.1]}
        for name in ODD_NAMES
    ]
    for name, _, figure in figures.plot_results(dataset, outputs, {**details, "words": words}):
        write_figure(tmp_path / name, figure)


def test_contradictory_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"source=csv needs data\.path="):
        DataSettings(source="csv")
    with pytest.raises(ValueError, match="none is left to train on"):
        DataSettings(libraries=["numpy"], unseen="numpy")
    with pytest.raises(UserError, match="heads=3 must divide width=32"):
        settings("model.heads=3")


def test_tokenizer_training_is_deterministic_across_processes() -> None:
    code = (
        "import sys, hashlib\n"
        f"from {data.__name__} import train_tokenizer\n"
        "texts = [f'{a}{b} {b}{c}{a}' for a in 'abcdefghij' for b in 'klmnopqr' for c in 'stuv']\n"
        "print(hashlib.sha256(train_tokenizer(texts, 320).to_str().encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    texts = [f"{a}{b} {b}{c}{a}" for a in "abcdefghij" for b in "klmnopqr" for c in "stuv"]
    expected = hashlib.sha256(data.train_tokenizer(texts, 320).to_str().encode()).hexdigest()
    assert runs[0].stdout.strip() == expected


def test_contract_survives_saving_and_loading_with_its_tokenizer(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    contract_ = dataset.contract
    contract_.save(tmp_path)
    again = Contract.load(tmp_path)
    assert again.model_dump() == contract_.model_dump()
    assert again.tokenizer == contract_.tokenizer
    assert "tokenizer" not in json.loads((tmp_path / "contract.json").read_text())
    items = [Item(text=text) for text in dataset.texts["test"]]
    np.testing.assert_array_equal(again.encode(items)["tokens"], dataset.test["tokens"])


def test_all_scripts_are_read_and_special_tokens_cannot_be_injected(
    dataset: data.Dataset,
) -> None:
    contract_ = dataset.contract
    for text in ("😀", "שלום עולם", "مرحبا بالعالم", "漢字", "[PAD] [PAD]", "[MASK]", "a\u200bb"):
        tokens = contract_.encode([Item(text=text)])["tokens"]
        assert (tokens != contract_.pad).all()
        assert (tokens != contract_.mask).all()
    for text in (" ", "\u0000", "\u0007\u0008"):
        with pytest.raises(InvalidItem) as caught:
            contract_.encode([Item(text="fine"), Item(text=text)])
        assert (caught.value.index, caught.value.field) == (1, "text")


def test_truncated_is_true_for_truncated_texts_only(dataset: data.Dataset) -> None:
    contract_ = dataset.contract
    fits, long = "axis " * contract_.max_tokens, "axis " * (contract_.max_tokens + 1)
    texts = ["axis", fits, long, "a" * 100_000, "axis" + " " * 50_000]
    items = [Item(text=text) for text in texts]
    logits = np.zeros((len(items), len(contract_.labels)), np.float32)
    predictions = contract_.decode({"logits": logits}, items)
    assert [prediction.truncated for prediction in predictions] == [False, False, True, True, False]


def test_longest_texts_are_encoded_in_milliseconds(dataset: data.Dataset) -> None:
    items = [Item(text=("word " * 20_000)[: contract.MAX_CHARACTERS])] * 20
    dataset.contract.encode(items[:1])
    started = time.process_time()  # others may use the machine too
    tokens = dataset.contract.encode(items)["tokens"]
    assert time.process_time() - started < 1  # a twentieth of that for one
    assert tokens.shape == (20, dataset.contract.max_tokens)


def test_drift_features_measure_length_and_rarity(dataset: data.Dataset) -> None:
    contract_ = dataset.contract
    items = [Item(text="the array"), Item(text="the array of the array"), Item(text="漢 字 array")]
    features = contract_.features(contract_.encode(items))
    assert features["tokens"].tolist()[:2] == [2, 5]
    assert features["unknown_share"][0] == 0
    assert features["unknown_share"][2] >= 0.5
    assert features["rarity"][0] > 0


def test_prediction_does_not_depend_on_the_batch(dataset: data.Dataset) -> None:
    network = model.build(settings(), dataset.contract).eval()
    tokens = torch.from_numpy(dataset.test["tokens"][:70])
    with torch.inference_mode():
        whole = network(tokens)
        assert whole.isfinite().all()
        for row in range(0, 70, 9):
            alone = tokens[row : row + 1]
            alone = alone[:, : int((alone != dataset.contract.pad).sum())]
            torch.testing.assert_close(network(alone)[0], whole[row], rtol=1e-4, atol=1e-5)


def test_groups_hold_every_text_once_and_no_empty_column(dataset: data.Dataset) -> None:
    tokens = torch.from_numpy(dataset.train["tokens"])
    seen = []
    for rows, part in encoder.group_by_length(tokens, dataset.contract.pad):
        seen += rows.tolist()
        assert (part != dataset.contract.pad).any(dim=0).all()
        for row, short in zip(rows, part, strict=True):
            assert (tokens[row] != dataset.contract.pad).sum() == (
                short != dataset.contract.pad
            ).sum()
    assert sorted(seen) == list(range(len(tokens)))


def test_masking_selects_the_set_share_of_words_and_nothing_else(dataset: data.Dataset) -> None:
    contract_ = dataset.contract
    tokens = torch.from_numpy(dataset.unlabelled)
    masked, selected = masking.mask(tokens, contract_, 0.2, torch.Generator().manual_seed(3))
    again, _ = masking.mask(tokens, contract_, 0.2, torch.Generator().manual_seed(3))
    assert torch.equal(masked, again)
    words = tokens > (contract_.mask or 0)
    assert not (selected & ~words).any()
    assert selected.sum() / words.sum() == pytest.approx(0.2, abs=0.02)
    hidden = masked == contract_.mask
    assert not (hidden & ~selected).any()
    assert hidden.sum() / selected.sum() == pytest.approx(0.8, abs=0.03)
    assert torch.equal(masked[~selected], tokens[~selected])


def test_pretraining_learns_resumes_bit_identically_and_can_be_switched_off(
    dataset: data.Dataset, tmp_path: Path
) -> None:
    long = settings("pretrain.epochs=2", "pretrain.lr=0.01")
    network: Any = model.build(long, dataset.contract)
    stage = network.pretraining(long, dataset)
    state = fit.fit(stage, 0, tmp_path / "whole")
    first, last = state.history[0]["masked_loss"], state.history[-1]["masked_loss"]
    untrained = stage.measure(stage.build())["masked_loss"]
    assert last < first < untrained
    left = 5

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    with pytest.raises(fit.Interrupted):
        fit.fit(stage, 0, tmp_path / "parts", stop=stop)
    fit.fit(stage, 0, tmp_path / "parts")
    digests = [bundles.sha256(tmp_path / name / "best.safetensors") for name in ("whole", "parts")]
    assert digests[0] == digests[1]
    assert network.pretraining(settings("pretrain.epochs=0"), dataset) is None


def test_decisive_words_get_the_largest_weights(dataset: data.Dataset) -> None:
    """A network that decides by one word alone gives weight to that word alone."""
    contract_, label = dataset.contract, 1
    (number,) = contract_.tokenize(["if"])[0].ids

    def predict(tokens: np.ndarray) -> dict[str, np.ndarray]:
        logits = np.zeros((len(tokens), len(contract_.labels)))
        logits[:, label] = np.where((tokens == number).any(axis=1), 3.0, -3.0)
        return {"logits": logits}

    explained = diagnostics.word_weights(predict, dataset)
    examples = [example for example in explained if example["label"] == contract_.labels[label]]
    assert examples
    for example in examples:
        weights = zip(example["words"], example["weights"], strict=True)
        heavy = {word for word, weight in weights if weight > 0.1}
        assert {word.strip(".,:;()`'*").lower() for word in heavy} == {"if"}


def test_evaluation_reports_the_unseen_library_and_word_weights(trained: Path) -> None:
    details = json.loads(next(trained.glob("runs/*/evaluation.json")).read_text())["details"]
    row = details["kept_apart"]["numpy"]
    assert row["examples"] == 400
    assert 0 < row["macro_f1"] < 1
    assert details["words"]
    text = (trained / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "| Kept apart | accuracy" in text
    assert len(list(trained.glob("docs/experiments/*/words.png"))) == 1


def test_every_text_can_be_plotted(tmp_path: Path) -> None:
    texts = ["costs $5 or $x_$", "emoji 😀 שלום 漢字 \\frac{", "x" * 500, "short"]
    write_figure(tmp_path / "sheet.png", figures.plot_texts(["a → b, 3%"] * 4, texts))
    one = {"label": "é 😀", "probability": 0.5, "words": texts[1].split(), "weights": [0.1] * 5}
    write_figure(tmp_path / "words.png", figures.plot_word_weights([one]))
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_hugging_face_encoder_is_fine_tuned_exported_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder is tiny and written here in that format."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = data.train_tokenizer(data.load(settings().data).texts["train"], 800)
    folder = tmp_path / "encoder"
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    body = transformers.BertModel(config)
    body.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    overrides = [*QUICK, f"model.pretrained={folder}", "model.frozen=1", "train.epochs=1"]
    command = ["--config", str(CONFIG)]
    assert cli.main(["train", *command, *overrides, "train.seeds=[0]"]) == 0
    (run,) = tmp_path.glob("runs/*")
    assert cli.main(["evaluate", *command, "--run", run.name]) == 0
    assert cli.main(["deploy", *command, "--run", run.name, *FORCE]) == 0
    assert cli.main(["predict"]) == 0
    assert '"truncated"' in capsys.readouterr().out
    (best,) = tmp_path.glob("runs/*/seed-0/best.safetensors")
    trained: Any = model.build(settings(*overrides), data.load(settings(*overrides).data).contract)
    sentence = model.describe(trained)
    assert sentence.startswith(f"BertModel from {folder}, pretrained")
    assert model.describe(torch.nn.Linear(2, 3)) == "A network (Linear) with 9 parameters."
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    checkpoint.load_weights(best, trained)
    changed = {
        name
        for name, tensor in trained.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert not any("embeddings" in name or "layer.0." in name for name in changed)
    assert any("layer.1." in name for name in changed)

    for override, expected in (
        ("model.frozen=3", "the encoder has 2 layers"),
        ("data.tokens=64", "reads at most 40"),
        ("model.pretrained=nowhere", "nowhere: cannot load tokenizer.json"),
    ):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert cli.main(["train", *command, *overrides, override]) == 2
        assert expected in capsys.readouterr().err


def test_labelled_items_can_be_added_to_every_split_with_their_texts(dataset: data.Dataset) -> None:
    whole, held_out = dataset.holdout(0.4)
    assert sorted(dataset.texts["test"]) == sorted([*whole.texts["test"], *held_out["text"]])
    labels = dataset.contract.labels
    pairs = [
        (Item(text=text), GroundTruth(label=labels[label]))
        for text, label in zip(held_out["text"], held_out["label"].tolist(), strict=True)
    ]
    long = (Item(text=" ".join(WORDS * 9)), GroundTruth(label="int"))
    new = {"train": [*pairs[:9], long], "validation": pairs[9:13], "test": pairs[13:]}
    more = whole.with_examples(new)
    for name, added in new.items():
        before, after = getattr(whole, name), getattr(more, name)
        count = len(before["label"])
        assert len(after["label"]) == len(after["tokens"]) == count + len(added)
        assert after["tokens"].dtype == before["tokens"].dtype
        assert len(more.texts[name]) == len(after["label"])
        for row in (0, count - 1, count, len(after["label"]) - 1):
            (tokens,) = more.contract.encode([Item(text=more.texts[name][row])])["tokens"]
            np.testing.assert_array_equal(after["tokens"][row][: len(tokens)], tokens)
            assert (after["tokens"][row][len(tokens) :] == more.contract.pad).all()
    assert more.train["tokens"].shape[1] == settings().data.tokens
    assert more.fingerprint != whole.fingerprint
    assert more.unseen == dataset.unseen
    network: Any = model.build(settings(), more.contract)
    outputs = fit.predict(network, more.test, 64)
    assert 0 <= objective.metrics(outputs, more.test, more.contract)["macro_f1"] <= 1
    details = objective.details(outputs, more.test, more.contract)
    details |= diagnostics.diagnose(network._predict, more)
    assert len(list(figures.plot_results(more, outputs, details))) >= 2
    for item, truth in (
        (Item(text="axis"), GroundTruth(label="haiku")),
        (Item(text="\t"), pairs[0][1]),
    ):
        with pytest.raises(ValueError, match=r"haiku|no readable character"):
            whole.encode_labelled([(item, truth)])


def test_slices_are_the_classes_with_enough_examples(dataset: data.Dataset) -> None:
    masks = objective.slices(dataset.test, dataset.contract)
    assert set(masks) < set(dataset.contract.labels)
    assert all(mask.sum() >= 20 for mask in masks.values())
