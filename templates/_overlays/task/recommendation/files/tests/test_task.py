"""Interactions are read and checked, no user is in two splits, rankings are right."""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.interfaces import LabelledItem
from {{ cookiecutter.package_name }}.task import (
    baseline,
    contract,
    data,
    figures,
    imports,
    linear,
    model,
    neighbours,
    objective,
    ranking,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item, Prediction
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.neighbours import Neighbours
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings

from .quick import CACHE


def quick_data(**changes: Any) -> DataSettings:
    return DataSettings(cache=CACHE, libraries=["numpy", "matplotlib", "sqlalchemy"], **changes)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return data.load(quick_data())


def write_csv(path: Path, users: int = 60, items: int = 12, seed: int = 0) -> dict[str, list[str]]:
    """Write users with at least six items at increasing times; return each one's items by time."""
    rng = np.random.default_rng(seed)
    lines, items_by_user = ["user,item,when,stars"], {}
    for user in range(users):
        items_of_user = rng.permutation(items)[: rng.integers(6, items)]
        items_by_user[f"u{user}"] = [f"i{item}" for item in items_of_user]
        rows = [
            f"u{user},i{item},{1000 + place},{place % 5 + 1}"
            for place, item in enumerate(items_of_user)
        ]
        lines += [rows[place] for place in rng.permutation(len(rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return items_by_user


def named(dataset: Dataset, lists: np.ndarray) -> list[list[str]]:
    items = dataset.contract.items
    return [[items[number - 1] for number in row if number] for row in lists.tolist()]


def labelled_items(dataset: Dataset, rows: dict[str, np.ndarray]) -> list[LabelledItem]:
    pairs = zip(named(dataset, rows["history"]), named(dataset, rows["target"]), strict=True)
    return [
        (Item.model_validate({"items": history}), GroundTruth.model_validate({"items": target}))
        for history, target in pairs
    ]


def random_split(users: int, count: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Make scores, and lists of 3 known and 1 or 2 held-out items per user."""
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(count)[:5] + 1 for _ in range(users)]).astype(np.int32)
    lists[::3, 4] = 0
    split = {"history": lists[:, :3], "target": lists[:, 3:], "seen": np.arange(users) % 2 == 0}
    return rng.normal(size=(users, count)).astype(np.float32), split


# --- reading sources ---


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os, a.b.c as d", {"os", "a.b.c"}),
        ("from a.b import c, d", {"a.b"}),
        ("from __future__ import annotations", set()),
        ("from . import x", {"top.inner"}),
        ("from .x import y", {"top.inner.x"}),
        ("from ..x import y", {"top.x"}),
        ("from ...x import y", set()),
        ("def f():\n  if 1:\n    import deep\n  else:\n    import other", {"deep", "other"}),
        (
            "try:\n  import a\nexcept E:\n  import b\nelse:\n  import c\nfinally:\n  import d",
            set("abcd"),
        ),
        ("match x:\n  case 1:\n    import m", {"m"}),
        ("class C:\n  async def f(self):\n    async with x:\n      import w", {"w"}),
        ("'import no'", set()),
        ('x = "\\d"', set()),
    ],
)
def test_imports_are_found_anywhere_in_a_file(source: str, expected: set[str]) -> None:
    assert imports.modules(source.encode(), ("top", "inner")) == expected


def test_package_of_a_file_is_its_folders_with_init(tmp_path: Path) -> None:
    folder = tmp_path / "plain" / "top" / "inner"
    folder.mkdir(parents=True)
    for path in (folder, folder.parent):
        (path / "__init__.py").touch()
    assert imports.package(folder / "x.py") == ("top", "inner")
    assert imports.package(tmp_path / "x.py") == ()


@pytest.fixture
def standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small standard library in place of the real one."""
    folder = tmp_path / "lib"
    for name, text in {
        "asyncio/log.py": "import logging",
        "asyncio/base.py": "from . import log\nfrom .log import logger",
        "broken.py": "import",
        "test/support.py": "import a",
        "json/tests/any.py": "import b",
        "unittest/test_case.py": "import c",
        "site-packages/else.py": "import d",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(imports.sysconfig, "get_paths", lambda: {"stdlib": str(folder)})
    return folder


def test_sources_are_read_without_tests_and_broken_files(standard: Path, tmp_path: Path) -> None:
    files, versions = imports.imports_of_libraries(["click"], tmp_path)
    assert set(versions) == {"python", "click"}
    standard_files = {
        name: modules for name, modules in files.items() if name.startswith("python/")
    }
    expected = {"log": ["logging"], "base": ["asyncio", "asyncio.log"]}
    assert standard_files == {
        f"python/asyncio/{name}.py": modules for name, modules in expected.items()
    }
    assert "click.formatting" in files["click/core.py"]
    assert "click/testing.py" not in files


def test_cache_is_keyed_by_version_and_rebuilt_when_damaged(
    standard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    files, _ = imports.imports_of_libraries(["click"], cache)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    for damaged in (content[:1000], b"[]", b"{}", b"\xff"):
        path.write_bytes(damaged)
        assert imports.imports_of_libraries(["click"], cache)[0] == files
        assert path.read_bytes() == content
    monkeypatch.setattr(imports, "_sources", lambda libraries: [])
    assert imports.imports_of_libraries(["click"], cache)[0] == files
    monkeypatch.setattr(imports.metadata, "version", lambda name: "0.0")
    assert imports.imports_of_libraries(["click"], cache)[0] == {}
    assert len(list(cache.iterdir())) == 2


def test_missing_library_and_unwritable_cache_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"data\.libraries: 'no-such' is not installed"):
        imports.imports_of_libraries(["no-such"], tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(imports, "_sources", lambda libraries: [])
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match=r"cannot be written: .* \(data\.cache\)"):
        imports.imports_of_libraries([], blocked)


# --- splits ---


def test_no_user_is_in_two_splits_and_warm_users_are_tested_on_unseen_items(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    items_by_user = write_csv(path, users=300, items=30)
    dataset = data.load(DataSettings(source="csv", path=path, time="when", warm=0.3))
    users = {
        tuple(items): user for user, items in items_by_user.items()
    }  # in order of time, all differ
    assert (
        len(users)
        == len(items_by_user)
        == sum(
            len(part["seen"]) - part["seen"].sum() * (part is dataset.test)
            for part in (dataset.train, dataset.validation, dataset.test)
        )
    )

    def whole(split: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
        halves = zip(named(dataset, split["history"]), named(dataset, split["target"]), strict=True)
        return [tuple(history + target) for history, target in halves]

    seen = dataset.test["seen"]
    assert [users[items] for items in whole(dataset.test)] == dataset.test_users
    new = {user for user, history in zip(dataset.test_users, seen, strict=True) if not history}
    warm = set(dataset.test_users) - new
    validating = {users[items] for items in whole(dataset.validation)}
    learned = set(whole(dataset.train))
    trained = {user for user, items in items_by_user.items() if tuple(items) in learned}
    assert len(new) + len(warm) + len(validating) + len(trained) == len(items_by_user)
    assert not new & validating
    history = [tuple(items) for items in named(dataset, dataset.test["history"][seen])]
    assert len(history) == len(warm) > 10
    assert set(history) <= learned
    assert len(learned) == len(trained) + len(warm)
    assert dataset.train["seen"].all()
    assert not dataset.validation["seen"].any()


def test_a_fifth_of_each_list_is_held_out_and_every_item_has_enough_users(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        history, target = (ranking.lengths(split[name]) for name in ("history", "target"))
        total = history + target
        np.testing.assert_array_equal(target, np.maximum(1, np.round(total / 5)))
        assert history.min() >= 3
        for items in np.concatenate([split["history"], split["target"]], axis=1):
            items = items[items > 0]
            assert len(set(items.tolist())) == len(items)
    counts = np.array(dataset.contract.counts)
    for split in (dataset.validation, dataset.test):
        rows = linear.all_items(split)[~split["seen"]]
        counts += np.bincount(rows.ravel(), minlength=len(counts) + 1)[1:]
    hidden = dataset.test["target"][dataset.test["seen"]]
    counts += np.bincount(hidden.ravel(), minlength=len(counts) + 1)[1:]
    assert counts.min() >= 5
    assert len(dataset.test_users) == len(dataset.test["seen"])


def test_fingerprint_is_reproducible_and_changes_with_the_split(dataset: Dataset) -> None:
    assert data.load(quick_data()).fingerprint == dataset.fingerprint
    assert data.load(quick_data(test_fold=4)).fingerprint == dataset.fingerprint
    assert data.load(quick_data(test_fold=0)).fingerprint != dataset.fingerprint
    assert data.load(quick_data(core=6)).fingerprint != dataset.fingerprint


def test_user_keeps_split_and_held_out_items_when_others_are_added(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    items_by_user = write_csv(path)
    settings = DataSettings(source="csv", path=path, warm=0)
    before = data.load(settings)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"new{user},i{item},1,1\n" for user in range(30) for item in range(7))
    after = data.load(settings)
    old = dict(zip(before.test_users, named(before, before.test["target"]), strict=True))
    new = dict(zip(after.test_users, named(after, after.test["target"]), strict=True))
    assert old
    assert old == {user: items for user, items in new.items() if user in items_by_user}


def test_with_times_the_last_items_are_held_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    items_by_user = write_csv(path)
    dataset = data.load(DataSettings(source="csv", path=path, time="when", warm=0))
    targets, histories = (
        named(dataset, dataset.test["target"]),
        named(dataset, dataset.test["history"]),
    )
    for user, target, history in zip(dataset.test_users, targets, histories, strict=True):
        assert history + target == items_by_user[user]
    short = data.load(DataSettings(source="csv", path=path, time="when", warm=0, longest=10))
    for user, target in zip(short.test_users, named(short, short.test["target"]), strict=True):
        assert target == items_by_user[user][-len(target) :]
    assert short.test["history"].shape[1] <= 8


def test_iso_dates_and_seconds_are_equivalent(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    write_csv(path)
    text = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in text[1:]]
    dated = [f"{u},{i},2024-01-02T00:{int(w) - 1000:02}:00+01:00,{s}" for u, i, w, s in rows]
    other.write_text("\n".join([text[0], *dated]), encoding="utf-8")
    seconds = data.load(DataSettings(source="csv", path=path, time="when"))
    dates = data.load(DataSettings(source="csv", path=other, time="when"))
    assert dates.fingerprint == seconds.fingerprint


def test_low_ratings_are_ignored_and_repeated_rows_count_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, users=200)
    settings = {"source": "csv", "path": path, "core": 3, "warm": 0}
    everything = data.load(DataSettings(**settings))
    liked = data.load(DataSettings(**settings, rating="stars", min_rating=3))
    before, after = (
        sum(
            (part["history"] > 0).sum()
            for part in (dataset.train, dataset.validation, dataset.test)
        )
        for dataset in (everything, liked)
    )
    assert after < 0.8 * before
    assert any("ratings below 3 are ignored (data.min_rating)" in note for note in liked.notes)
    with path.open("a", encoding="utf-8") as file:
        file.write(path.read_text(encoding="utf-8").split("\n", 1)[1])
    for rating in (None, "stars"):
        twice = data.load(DataSettings(**settings, rating=rating))
        assert twice.fingerprint == everything.fingerprint
        assert any("Rows that repeat a user and an item: " in note for note in twice.notes)


# --- files ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a.csv: row 1: is empty"),
        (b"user,item,when,stars\n", "a.csv: row 2: there are no rows below the header"),
        (b"user,thing,when,stars\nu,i,1,1\n", "no column 'item' (data.item): only 'user', 'thing'"),
        (b"user,item,item,when,stars\nu,i,i,1,1\n", "no column 'item' (data.item): there are 2"),
        (b"user,item,when,stars\nu,i,1\n", "row 2: has 3 cells, the header has 4"),
        (
            b"user,item,when,stars\nu,i,1,1\n,j,1,1\n",
            "row 3, column 'user': is empty; data.missing",
        ),
        (b"user,item,when,stars\nu, ,1,1\n", "row 2, column 'item': is empty; data.missing=skip"),
        (b"user,item,when,stars\nu,nan,1,1\n", "row 2, column 'item': is empty; data.missing=skip"),
        (b"user,item,when,stars\nu,i,soon,1\n", "row 2, column 'when': 'soon' is not an ISO 8601"),
        (
            b"user,item,when,stars\nu,i,1,1\nu,i,soon,1\n",
            "row 3, column 'when': 'soon' is not a fin",
        ),
        (b"user,item,when,stars\nu,i,nan,1\n", "row 2, column 'when': is empty; data.missing=skip"),
        (b"user,item,when,stars\nu,i,1,inf\n", "row 2, column 'stars': 'inf' is not a"),
        (b"user,item,when,stars\nu,i,1,\n", "row 2, column 'stars': is empty; data.missing=skip"),
        (
            b"user,item,when,stars\nu,i,1,\nv,i,1,\n",
            "row 2, column 'stars': is empty (as in 2 rows)",
        ),
        (b"user,item,when,stars\nu,\xff,1,1\n", "row 2: byte 23 (0xff) is not utf-8"),
        (b"user,item,when,stars\nu,\0,1,1\n", "row 2: a character NUL"),
        (b"user,item,when,stars\nu,i,1,1\n", "no user with 5 items that 5 users have is left"),
    ],
)
def test_bad_csv_is_refused_in_one_line_naming_row_and_column(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        data.load(DataSettings(source="csv", path=path, time="when", rating="stars"))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_in_any_script_survive_and_a_byte_order_mark_is_ignored(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    write_csv(path)
    text = path.read_text(encoding="utf-8").replace("i3,", '"קפה, 🍕",')
    path.write_text(text, encoding="utf-8-sig")
    assert "קפה, 🍕" in data.load(DataSettings(source="csv", path=path)).contract.items


def test_too_few_users_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"u,i{item}" for item in range(20)]
    path.write_text("\n".join(["user,item", *lines]), encoding="utf-8")
    with pytest.raises(UserError, match=r"no user with 5 items .* is left \(data\.core\)"):
        data.load(DataSettings(source="csv", path=path))
    lines = [f"u{user},i{item}" for user in range(5) for item in range(5)]
    path.write_text("\n".join(["user,item", *lines]), encoding="utf-8")
    with pytest.raises(UserError, match="too few users, none is left for"):
        data.load(DataSettings(source="csv", path=path))


def test_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.csv: cannot be read: No such file"):
        data.load(DataSettings(source="csv", path=tmp_path / "no.csv"))
    with pytest.raises(UserError, match=r"none: no such file or folder \(data\.path\)"):
        data.load(DataSettings(source="movielens", path=tmp_path / "none"))
    with pytest.raises(UserError, match=r"contains none of u\.data, ratings\.dat, ratings\.csv"):
        data.load(DataSettings(source="movielens", path=tmp_path))
    with pytest.raises(UserError, match="is a folder, expected a file"):
        data.load(DataSettings(source="csv", path=tmp_path))


@pytest.mark.parametrize(
    ("name", "separator", "films", "encoding"),
    [
        ("u.data", "\t", ("u.item", "|"), "latin-1"),
        ("ratings.dat", "::", ("movies.dat", "::"), "latin-1"),
        ("ratings.csv", ",", ("movies.csv", ","), "utf-8"),
    ],
)
def test_all_movielens_formats_are_read_with_titles(
    tmp_path: Path, name: str, separator: str, films: tuple[str, str], encoding: str
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        [str(user), str(item), "5" if item % 4 else "2", str(place)]
        for user in range(1, 61)
        for place, item in enumerate(rng.permutation(16)[:12].tolist())
    ]
    titles = [[str(item), f"Amélie {item // 2}", "Comedy"] for item in range(16)]
    if separator == ",":
        rows.insert(0, ["userId", "movieId", "rating", "timestamp"])
        titles.insert(0, ["movieId", "title", "genres"])
    (tmp_path / name).write_text("\n".join(map(separator.join, rows)), encoding="utf-8")
    (tmp_path / films[0]).write_text("\n".join(map(films[1].join, titles)), encoding=encoding)
    for path in (tmp_path, tmp_path / name):
        dataset = data.load(DataSettings(source="movielens", path=path, min_rating=4))
        assert {int(item) % 4 for item in dataset.contract.items} == {1, 2, 3}
        assert dataset.contract.titles is not None
        place = dataset.contract.items.index("5")
        assert dataset.contract.titles[place] == "Amélie 2"
        # 4 and 5 share a title, but 4 was rated too low: one item has it; 2 and 3 share one too
        assert dataset.contract.numbers["Amélie 2"] == dataset.contract.numbers["5"] == place + 1
        assert "Amélie 1" not in dataset.contract.numbers
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(f"{text}\n1\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"{name}: row {len(rows) + 1}"):
        data.load(DataSettings(source="movielens", path=tmp_path))


def test_setting_one_training_option_keeps_the_tasks_other_defaults() -> None:
    settings = Settings.model_validate({"name": "x", "train": {"epochs": 3}})
    assert settings.train.epochs == 3
    assert settings.train.lr == Settings(name="x").train.lr == 3e-3
    assert settings.train.patience == 50


def test_contradictory_settings_are_refused() -> None:
    for overrides, expected in (
        ({"source": "csv"}, r"source=csv needs data\.path="),
        ({"source": "csv", "path": "a.csv", "min_rating": 4}, r"min_rating needs data\.rating"),
        ({"source": "csv", "path": "a.csv", "titles": "b.csv"}, r"titles needs data\.title"),
        ({"split": "time"}, "split=time needs times, which source=imports has not"),
        ({"source": "csv", "path": "a.csv", "split": "time"}, r"split=time needs data\.time="),
        ({"test_fold": 5}, "test_fold must be below folds=5"),
    ):
        with pytest.raises(ValidationError, match=expected):
            DataSettings(**overrides)  # pyright: ignore[reportArgumentType]
    assert DataSettings(folds=3).test_fold is None  # the last one
    with pytest.raises(ValidationError, match="keep_least must not exceed keep_most"):
        Settings(name="x", objective={"keep_least": 0.9})  # pyright: ignore[reportArgumentType]


# --- rankings ---


def test_rankings_and_metrics_match_a_plain_calculation() -> None:
    scores, split = random_split(40, 30)
    outputs, count = {"scores": scores}, 30
    lists = ranking.recommend(outputs, split, 10)
    recalls, gains = [], []
    for row in range(40):
        history = set(split["history"][row].tolist())
        target = set(split["target"][row].tolist()) - {0}
        order = (np.argsort(-scores[row]) + 1).tolist()
        first = [item for item in order if item not in history][:10]
        assert lists[row].tolist() == first
        recalls.append(len(target & set(first)) / len(target))
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(first) if item in target)
        gains.append(gain / sum(1 / math.log2(place + 2) for place in range(len(target))))
    contract_ = Contract(
        items=[str(i) for i in range(count)], titles=None, counts=[2] * count, users=9
    )
    metrics = objective.metrics(outputs, split, contract_)
    assert metrics["recall_at_10"] == pytest.approx(np.mean(recalls))
    assert metrics["ndcg_at_10"] == pytest.approx(np.mean(gains))
    assert metrics["coverage_at_10"] == len(set(lists.ravel().tolist())) / count
    assert metrics["popularity_lift"] == pytest.approx(1)  # all are equally popular
    assert objective.scores(outputs, split).tolist() == pytest.approx(recalls)


def test_metrics_with_more_relevant_items_than_places_are_those_of_the_textbook() -> None:
    # Relevant: 1 to 12 of 20 items; the recommended ten contain 1, 2 and 3, at places 1, 4 and 10.
    order = [1, 20, 19, 2, 18, 17, 16, 15, 14, 3, *range(4, 13)]
    scores = np.zeros((1, 20))
    scores[0, np.array(order) - 1] = np.arange(len(order), 0, -1)
    split = {"history": np.array([[13]]), "target": np.arange(1, 13)[None]}
    is_hit = ranking.hits(ranking.recommend({"scores": scores}, split, 10), split)
    count = ranking.lengths(split["target"])
    assert ranking.recall(is_hit, count, 10).tolist() == [3 / 12]  # not 3 / min(10, 12)
    gain = 1 + 1 / math.log2(5) + 1 / math.log2(11)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, 11))
    assert ranking.ndcg(is_hit, count, 10).tolist() == pytest.approx([gain / ideal])


def test_details_by_group_add_up_to_the_total() -> None:
    scores, split = random_split(40, 30)
    contract_ = Contract(items=[str(i) for i in range(30)], titles=None, counts=[2] * 30, users=9)
    tables = objective.details({"scores": scores}, split, contract_)
    assert list(tables["by_k"]) == ["1", "5", "10", "20", "50"]
    recalls = [row["recall"] for row in tables["by_k"].values()]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1  # 50 places for 30 items
    for name in ("by_user", "by_history"):
        rows = tables[name].values()
        assert sum(row["users"] for row in rows) == 40
        mean = sum(row["users"] * row["recall"] for row in rows) / 40
        assert mean == pytest.approx(tables["by_k"]["10"]["recall"])


def test_details_say_how_popular_and_rare_items_are_found() -> None:
    # Items 1; 2 and 3; 4 to 7 have a third of the interactions each.
    contract_ = Contract(
        items=[str(i) for i in range(7)], titles=None, counts=[4, 2, 2, 1, 1, 1, 1], users=9
    )
    lists = np.array([[1, 2], [1, 4]])
    split = {"target": np.array([[1, 4], [1, 3]], np.int32)}
    table = objective._by_popularity(lists, split, contract_)
    assert [row["items"] for row in table.values()] == [1, 2, 4]
    assert [row["recall"] for row in table.values()] == [1, 0, 0]
    assert [row["share_of_lists"] for row in table.values()] == [0.5, 0.25, 0.25]
    assert [row["share_of_held_out"] for row in table.values()] == [0.5, 0.25, 0.25]


def test_no_item_is_recommended_twice_or_from_the_history() -> None:
    scores, split = random_split(20, 6)
    lists = ranking.recommend({"scores": scores}, split, 50)
    assert lists.shape == (20, 6)
    for row, history in zip(lists.tolist(), split["history"].tolist(), strict=True):
        assert sorted(item for item in row if item) == sorted(set(range(1, 7)) - set(history))
        assert row[3:] == [0, 0, 0]
    ties = ranking.best(np.zeros((1, 9)), np.zeros((1, 9), bool), 4)
    assert ties.tolist() == [[1, 2, 3, 4]]


def test_popular_recommendations_have_a_lift_above_one() -> None:
    _, split = random_split(40, 30)
    counts = list(range(30, 0, -1))
    contract_ = Contract(items=[str(i) for i in range(30)], titles=None, counts=counts, users=40)
    popular = objective.metrics(
        {"scores": np.tile(np.array(counts, float), (40, 1))}, split, contract_
    )
    rare = objective.metrics(
        {"scores": np.tile(-np.array(counts, float), (40, 1))}, split, contract_
    )
    assert rare["popularity_lift"] < 1 < popular["popularity_lift"]


# --- baselines ---


def test_ease_is_the_ridge_regression_of_each_item_on_the_others() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.random((200, 12)) < 0.3).astype(float)
    lists = np.where(matrix > 0, np.arange(1, 13), 0).astype(np.int32)
    pairs = linear.pair_counts(lists, 12)
    np.testing.assert_allclose(pairs, matrix.T @ matrix)
    weights = linear.edlae(pairs, 7.0, 0.0)
    for item in range(12):
        others = np.delete(np.arange(12), item)
        columns = matrix[:, others]
        expected = np.linalg.solve(
            columns.T @ columns + 7 * np.eye(11), columns.T @ matrix[:, item]
        )
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-9)
        assert weights[item, item] == 0


def test_item_knn_weights_are_cosines_of_the_nearest_items(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.random((100, 8)) < 0.4).astype(float)
    lists = np.where(matrix > 0, np.arange(1, 9), 0).astype(np.int32)
    monkeypatch.setattr(linear, "CHUNK_USERS", 33)
    weights = linear.knn(linear.pair_counts(lists, 8), 3, 0.0, 0.5)
    unit = matrix / np.linalg.norm(matrix, axis=0)
    cosine = unit.T @ unit - np.eye(8)
    assert ((weights > 0).sum(axis=0) == 3).all()
    np.testing.assert_allclose(weights[weights > 0], cosine[weights > 0])
    least = np.sort(cosine, axis=0)[-3]
    assert (np.where(weights > 0, weights, np.inf).min(axis=0) >= least - 1e-9).all()
    np.testing.assert_allclose(linear.item_scores(lists, weights), matrix @ weights, atol=1e-5)


def test_baselines_beat_popularity_on_the_default_data(dataset: Dataset) -> None:
    values = {
        name: objective.scores(outputs, dataset.test).mean()
        for name, outputs in baseline.fit_and_predict(dataset)
    }
    assert list(values) == baseline.names()
    assert min(values[name] for name in baseline.names()[1:]) > values[baseline.POPULARITY] + 0.05


# --- network ---


def build(dataset: Dataset, **changes: Any) -> torch.nn.Module:
    settings = Settings(name="x", model={"width": 16, **changes})  # pyright: ignore[reportArgumentType]
    return model.build(settings, dataset.contract).eval()


def test_scores_ignore_order_padding_and_repetition(dataset: Dataset) -> None:
    network = build(dataset)
    one = network(torch.tensor([[3, 5, 9]]))
    for same in ([[9, 3, 5]], [[5, 0, 3, 9, 0, 0]], [[3, 3, 9, 5]]):
        torch.testing.assert_close(network(torch.tensor(same)), one)
    assert torch.isfinite(network(torch.tensor([[0, 0]]))).all()
    assert "parameters" in model.describe(network)


def test_a_users_own_items_rank_last_except_in_training(dataset: Dataset) -> None:
    network, history = build(dataset), torch.from_numpy(dataset.test["history"][:20])
    scores = network(history)
    has = torch.from_numpy(ranking.membership(dataset.test["history"][:20], scores.shape[1]))
    for row, mask in zip(scores, has, strict=True):
        assert row[mask].max() < row[~mask].min()
    network.train()
    assert (network(history)[has] > scores[has]).any()


def test_blend_adds_edlae_scores_to_the_networks(dataset: Dataset) -> None:
    network = build(dataset, blend=2.0)
    history = dataset.test["history"][:20]
    alone = network(torch.from_numpy(history)).detach().numpy()
    assert isinstance(network, model.Network)
    network.prepare(dataset.train, dataset.validation)
    blended = network(torch.from_numpy(history)).detach().numpy()
    extra = linear.item_scores(history, network.weights.numpy())
    free = ~ranking.membership(history, alone.shape[1])
    np.testing.assert_allclose(blended[free], (alone + 2 * extra)[free], atol=1e-4)
    assert np.abs(extra[free]).max() > 0.1
    assert "EDLAE" in model.describe(network)
    ((name, without),) = network.ablations().items()
    assert name == "Network without EDLAE"
    np.testing.assert_array_equal(without(torch.from_numpy(history)).detach().numpy(), alone)
    assert network.blend == 2.0
    plain = build(dataset, blend=0)
    assert isinstance(plain, model.Network)
    assert plain.ablations() == {}


def test_neighbours_add_what_users_with_the_same_rare_items_have() -> None:
    lists = np.array([[1, 2, 3], [1, 2, 4], [1, 5, 0], [1, 6, 0]], np.int32)
    network = Neighbours(users=4, count=6, sharpness=3.0)
    network.fit({"history": lists[:, :2], "target": lists[:, 2:]}, length_power=0.5)
    rarity = -np.log([0.999, 0.5, 0.25, 0.25, 0.25, 0.25])
    has = ranking.membership(lists, 6).astype(float)
    similar = (has[:, 1] * rarity[1]) / np.sqrt(has @ rarity)  # to a user with item 2
    weights = np.exp(3 * similar / similar.max())
    weights = (weights - weights.min()) / weights.sum()
    expected = weights @ has
    np.testing.assert_allclose(network.scores(np.array([[2]]))[0], expected, rtol=1e-5)
    assert expected[2] > expected[4]  # item 3, of a user with item 2, before item 5
    assert np.isfinite(network.scores(np.array([[0]]))).all()


def test_the_order_of_equally_similar_users_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "NEAREST", 3)
    lists = np.array([[1, 2], [1, 3], [1, 4], [1, 5], [6, 2], [6, 3], [6, 4], [6, 5]], np.int32)
    scores = []
    for order in (slice(None), slice(None, None, -1)):
        network = Neighbours(users=8, count=6)
        network.fit({"history": lists[order, :1], "target": lists[order, 1:]})
        scores.append(network.scores(np.array([[1, 0], [1, 2]])))
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_of_many_users_evenly_spaced_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST_USERS", 3)
    network = Neighbours(users=5, count=5)
    lists = np.arange(1, 6, dtype=np.int32)[:, None]
    network.fit({"history": lists, "target": np.zeros((5, 1), np.int32)})
    assert network.lists.argmax(dim=1).tolist() == [0, 2, 4]


def test_scores_are_the_mean_of_the_members_and_of_what_is_added(dataset: Dataset) -> None:
    network = build(dataset, members=3, blend=2.0, neighbours=4.0)
    assert isinstance(network, model.Network)
    network.prepare(dataset.train, dataset.validation)
    history = dataset.test["history"][:20]
    own = ranking.membership(history, len(dataset.contract.items))
    inputs, has = torch.from_numpy(history), torch.from_numpy(own).float()
    names = ["without EDLAE", "without neighbours", "alone"]
    reduced = network.ablations()
    assert list(reduced) == [f"Network {name}" for name in names]
    alone = reduced["Network alone"](inputs)[~own]
    members = torch.stack([member.score(has) for member in network.members])
    torch.testing.assert_close(alone, members.mean(dim=0)[~own])
    assert not torch.equal(members[0], members[1])
    near = 4 * torch.from_numpy(network.memory.scores(history))[~own]
    torch.testing.assert_close(reduced["Network without EDLAE"](inputs)[~own], alone + near)
    both = reduced["Network without neighbours"](inputs)[~own] + near
    torch.testing.assert_close(network(inputs)[~own], both)
    assert "mean of 3" in model.describe(network)


def test_each_member_learns_from_its_own_part_of_the_lists(dataset: Dataset) -> None:
    settings = Settings(name="x", model={"width": 16, "members": 2})  # pyright: ignore[reportArgumentType]
    network = model.build(settings, dataset.contract).train()
    assert isinstance(network, model.Network)
    batch = {name: torch.from_numpy(array[:7]) for name, array in dataset.train.items()}
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective.loss(settings, network, batch).backward()
    first, second = seen[0].chunk(2)
    assert len(first) == len(second) == 7
    assert not torch.equal(first, second)
    gradients = [member.table.grad for member in network.members]
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert not torch.equal(gradients[0], gradients[1])


def test_one_member_has_the_parameters_and_random_weights_of_versions_before(
    dataset: Dataset,
) -> None:
    torch.manual_seed(0)
    network = build(dataset, blend=2.0)
    torch.manual_seed(0)
    table = torch.randn(len(dataset.contract.items), 16) * model.INITIAL_STD
    layer = torch.nn.Linear(16, 16)
    expected = {"table": table, "layer.weight": layer.weight, "layer.bias": layer.bias}
    assert set(network.state_dict()) == {*expected, "bias", "weights"}
    for name, tensor in expected.items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=0, atol=0)


def test_files_of_a_library_are_one_cluster_and_users_of_requests_one_each(
    dataset: Dataset,
) -> None:
    (names,) = named(dataset, dataset.test["target"][:1])
    chosen = GroundTruth.model_validate({"items": names})
    labelled = (Item.model_validate(dataset.example()), chosen)
    more = dataset.with_examples({"test": [labelled, labelled]})
    clusters = more.test_clusters()
    assert clusters is not None
    assert len(clusters) == len(more.test["seen"])
    libraries = [user.split("/")[0] for user in dataset.test_users]
    assert len(set(clusters.tolist())) == len(set(libraries)) + 2
    for library in set(libraries):
        rows = [row for row, name in enumerate(libraries) if name == library]
        assert len(set(clusters[rows].tolist())) == 1
    assert dataclasses.replace(dataset, by_library=False).test_clusters() is None


def test_loss_hides_part_of_the_list_and_predicts_all_of_it(dataset: Dataset) -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, history: torch.Tensor) -> torch.Tensor:
            seen.append(history)
            return torch.zeros(len(history), len(dataset.contract.items))

    batch = {name: torch.from_numpy(array) for name, array in dataset.train.items()}
    value = objective.loss(Settings(name="x"), Spy(), batch)
    assert value.item() == pytest.approx(math.log(len(dataset.contract.items)), rel=1e-4)
    everything = torch.cat([batch["history"], batch["target"]], dim=1)
    assert set(torch.unique(seen[0] - everything, return_counts=False).tolist()) != {0}
    assert ((seen[0] == everything) | (seen[0] == 0)).all()
    assert 0.5 < (seen[0] > 0).sum() / (everything > 0).sum() < 0.7


# --- requests ---


@pytest.fixture
def small() -> Contract:
    return Contract(
        items=["1", "2", "3", "ä b", "5"],
        titles=["One", "Same", "Same", "Four", "5"],
        counts=[9, 7, 5, 3, 1],
        users=10,
    )


def predict(contract_: Contract, scores: list[float], **item: Any) -> Any:
    (prediction,) = contract_.decode({"scores": np.array([scores])}, [Item.model_validate(item)])
    return prediction


def test_items_are_found_by_id_title_and_number(small: Contract) -> None:
    item = Item(items=["One", 2, "Same", "ä b", "no", "1", 77, "🍕", "שלום"])
    assert small.encode([item])["history"].tolist() == [[1, 2, 4]]
    prediction = predict(small, [0.0] * 5, **item.model_dump())
    assert prediction.unknown == ["Same", "no", "77", "🍕", "שלום"]
    assert [row.item for row in prediction.items] == ["3", "5"]
    assert [row.title for row in prediction.items] == ["Same", "5"]
    assert not prediction.fallback


def test_known_and_excluded_items_are_not_recommended_and_scores_are_shares(
    small: Contract,
) -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    prediction = predict(small, scores, items=["1"], exclude=["Four", "who"], k=2)
    assert [row.item for row in prediction.items] == ["2", "3"]
    assert prediction.unknown == ["who"]
    odds = np.exp(scores[1:])
    assert [row.score for row in prediction.items] == pytest.approx(
        (odds / odds.sum())[:2].tolist()
    )
    assert predict(small, scores, items=["1", "2", "3"], exclude=["5", "ä b"]).items == []


@pytest.mark.parametrize("items", [[], ["no", "never"]])
def test_popular_items_are_the_fallback_for_unknown_users(
    small: Contract, items: list[str]
) -> None:
    prediction = predict(small, [0.0, 0, 0, 0, 9.0], items=items, exclude=["1"], k=3)
    assert prediction.fallback
    assert prediction.unknown == items
    assert [row.item for row in prediction.items] == ["2", "3", "ä b"]
    assert prediction.items[0].score == pytest.approx(7 / 25)


def test_request_may_be_longer_than_in_training(small: Contract) -> None:
    encoded = small.encode([Item(items=["1", "2", "3", "5"]), Item(items=[])])["history"]
    assert encoded.tolist() == [[1, 2, 3, 5], [0, 0, 0, 0]]
    assert encoded.dtype == np.int32


def test_thousands_of_unknown_items_cost_milliseconds(dataset: Dataset) -> None:
    body = json.dumps({"items": [f"unknown {n}" for n in range(10_000)]})
    started = time.process_time()
    with pytest.raises(ValidationError, match="at most 1000 items"):
        Item.model_validate_json(body)
    item = Item(items=[f"unknown {number}" for number in range(1000)])
    history = dataset.contract.encode([item])["history"]
    scores = np.zeros((1, len(dataset.contract.items)))
    (prediction,) = dataset.contract.decode({"scores": scores}, [item])
    assert time.process_time() - started < 0.2
    assert len(prediction.unknown) == 1000
    assert not history.any()


def test_drift_features_describe_the_known_items(small: Contract) -> None:
    features = small.features({"history": np.array([[1, 3, 0], [0, 0, 0], [5, 0, 0]], np.int32)})
    np.testing.assert_allclose(features["known_items"], [2, 0, 1])
    np.testing.assert_allclose(features["popularity"], [0.7, 0, 0.1])
    np.testing.assert_allclose(features["rarest"], [0.5, 0, 0.1])
    stats = small.prediction_stats({"scores": np.array([[0, 1, 0, 0, 0], [0, 0, 0, 2, 0]])})
    assert stats["item"].tolist() == ["2", "ä b"]
    assert stats["popularity"].tolist() == [0.7, 0.3]


def test_contract_survives_saving_and_loading(small: Contract, tmp_path: Path) -> None:
    small.save(tmp_path)
    assert small.numbers["One"] == 1
    assert Contract.load(tmp_path) == small


@pytest.mark.parametrize(
    ("name", "content", "items"),
    [
        ("a.json", b'{"items": ["numpy", 5], "k": 3}', ["numpy", 5]),
        ("a.txt", "numpy\n\n  🍕 \nos\r\n".encode(), ["numpy", "🍕", "os"]),
        ("a.py", b"import os\nfrom . import x\nimport ast", ["ast", "os"]),
    ],
)
def test_json_text_and_python_files_are_read_as_items(
    tmp_path: Path, name: str, content: bytes, items: list[str | int]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert Item.model_validate(contract.item_from_file(path)).items == items


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b"{", "cannot be read: Expecting"),
        ("a.json", b"[]", "the file: Input should be"),
        ("a.json", b'{"items": [""]}', r"items\.0\.\S+: String should have at least 1"),
        ("a.txt", b"\xff", "cannot be read: 'utf-8'"),
        ("a.txt", b"x\n" * 1001, "items: List should have at most 1000 items"),
        ("a.py", b"import", "cannot be read: "),
    ],
)
def test_unreadable_item_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        contract.item_from_file(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_all_figures_can_be_plotted_with_few_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, users=30)
    few = data.load(DataSettings(source="csv", path=path))
    scores = np.zeros((len(few.test["seen"]), len(few.contract.items)), np.float32)
    names = []
    for name, caption, figure in figures.plot_results(few, {"scores": scores}, {}):
        figure.savefig(tmp_path / name)
        assert caption.endswith(".")
        names.append(name)
    assert names == ["recall_by_k.png", "long_tail.png", "examples.png"]


# --- labelled items ---


def test_labelled_items_can_be_added_to_every_split(dataset: Dataset) -> None:
    whole, held_out = dataset.holdout(0.4)
    assert len(whole.test_users) == len(whole.test["seen"])
    pairs = labelled_items(dataset, {key: array[:40] for key, array in held_out.items()})
    names = dataset.contract.items
    long = (
        Item(items=[*names[:-9], "unheard.of"]),
        GroundTruth(items=[*names[-20:], "unheard.of"]),
    )
    new = {"train": [*pairs[:9], long], "validation": pairs[9:13], "test": [*pairs[13:], long]}
    more = whole.with_examples(new)
    for name, added in new.items():
        before, after = getattr(whole, name), getattr(more, name)
        assert set(after) == set(before)
        for key, array in after.items():
            assert len(array) == len(before[key]) + len(added)
            assert array.dtype == before[key].dtype
        assert not after["seen"][-len(added) :].any()
        assert (after["target"][:, 0] > 0).all()
    assert more.train["history"].shape[1] == len(names) - 9
    assert named(more, more.train["target"][-1:]) == [names[-9:]]
    rows = {key: array[:9] for key, array in held_out.items()}
    for key in ("history", "target"):
        assert named(more, more.train[key][-10:-1]) == named(more, rows[key])
    assert more.fingerprint != whole.fingerprint
    assert len(more.test_users) == len(more.test["seen"])
    outputs = {"scores": np.random.default_rng(0).normal(size=(len(more.test_users), len(names)))}
    assert 0 < objective.metrics(outputs, more.test, more.contract)["recall_at_10"] < 1
    details = objective.details(outputs, more.test, more.contract)
    assert len(list(figures.plot_results(more, outputs, details))) == 3


def test_labelled_items_without_new_known_items_are_refused(dataset: Dataset) -> None:
    first, second = dataset.contract.items[:2]
    for items, chosen, reason in (
        (["unheard.of"], [first], "example 1: the user has no item"),
        ([first], ["unheard.of"], "example 1: the user chose no new item"),
        ([first], [first], "example 1: the user chose no new item"),
    ):
        bad = (Item.model_validate({"items": items}), GroundTruth.model_validate({"items": chosen}))
        with pytest.raises(ValueError, match=reason):
            dataset.encode_labelled([(Item(items=[first]), GroundTruth(items=[second])), bad])


def test_contract_scores_average_to_the_recall(dataset: Dataset) -> None:
    contract_, test = dataset.contract, {key: array[:40] for key, array in dataset.test.items()}
    pairs = labelled_items(dataset, test)
    outputs = {"scores": np.random.default_rng(0).normal(size=(len(pairs), len(contract_.items)))}
    outputs["scores"] += 0.5 * ranking.membership(test["target"], len(contract_.items))
    predictions = contract_.decode(outputs, [item for item, _ in pairs])
    scores = [
        contract_.score(prediction, truth)
        for prediction, (_, truth) in zip(predictions, pairs, strict=True)
    ]
    np.testing.assert_allclose(scores, objective.scores(outputs, test))
    assert contract.SCORE.name in objective.metrics(outputs, test, contract_)


def test_ground_truth_counts_each_known_item_once(small: Contract) -> None:
    prediction = Prediction.model_validate(
        {
            "items": [{"item": name, "title": None, "score": 0.1} for name in small.items[:2]],
            "unknown": [],
            "fallback": False,
        }
    )
    first, last = small.items[0], small.items[-1]
    assert small.score(prediction, GroundTruth(items=[first, first, last, "unheard of"])) == 0.5
    with pytest.raises(ValueError, match="knows none of them"):
        small.score(prediction, GroundTruth(items=["unheard of"]))


def test_slices_are_large_enough_and_have_a_mask_per_user(dataset: Dataset) -> None:
    masks = objective.slices(dataset.test, dataset.contract)
    assert {"never seen", "seen in training", "5 to 9 items"} <= set(masks)
    assert all(mask.sum() >= 20 and len(mask) == len(dataset.test_users) for mask in masks.values())
