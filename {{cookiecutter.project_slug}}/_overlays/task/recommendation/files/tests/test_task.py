"""Interactions: every source is read and checked, nobody is in two parts, rankings are right."""

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
from {{ cookiecutter.package_name }}.task import (
    baseline,
    contract,
    data,
    figures,
    imports,
    linear,
    model,
    objective,
    ranking,
    simulate,
)
from {{ cookiecutter.package_name }}.task.contract import Contract, GroundTruth, Item, Prediction
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import DataSettings, Settings

from .quick import CACHE


def quick_data(**changes: Any) -> DataSettings:
    return DataSettings(cache=CACHE, libraries=["numpy", "matplotlib", "sqlalchemy"], **changes)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return data.load(quick_data())


def write_csv(path: Path, users: int = 60, items: int = 12, seed: int = 0) -> dict[str, list[str]]:
    """Users with six or more of the items at growing times; what each has, in order of time."""
    draw = np.random.default_rng(seed)
    lines, taken = ["user,item,when,stars"], {}
    for user in range(users):
        own = draw.permutation(items)[: draw.integers(6, items)]
        taken[f"u{user}"] = [f"i{item}" for item in own]
        rows = [f"u{user},i{item},{1000 + place},{place % 5 + 1}" for place, item in enumerate(own)]
        lines += [rows[place] for place in draw.permutation(len(rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return taken


def named(dataset: Dataset, lists: np.ndarray) -> list[list[str]]:
    items = dataset.contract.items
    return [[items[number - 1] for number in row if number] for row in lists.tolist()]


def random_split(users: int, count: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores, and lists of 3 known and 1 or 2 held-back items per user."""
    draw = np.random.default_rng(seed)
    lists = np.stack([draw.permutation(count)[:5] + 1 for _ in range(users)]).astype(np.int32)
    lists[::3, 4] = 0
    split = {"history": lists[:, :3], "target": lists[:, 3:], "seen": np.arange(users) % 2 == 0}
    return draw.normal(size=(users, count)).astype(np.float32), split


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
def test_imports_are_found_wherever_they_stand(source: str, expected: set[str]) -> None:
    assert imports.modules(source.encode(), ("top", "inner")) == expected


def test_a_file_belongs_to_the_packages_above_it(tmp_path: Path) -> None:
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
    files, versions = imports.installed(["click"], tmp_path)
    assert set(versions) == {"python", "click"}
    own = {name: found for name, found in files.items() if name.startswith("python/")}
    expected = {"log": ["logging"], "base": ["asyncio", "asyncio.log"]}
    assert own == {f"python/asyncio/{name}.py": found for name, found in expected.items()}
    assert "click.formatting" in files["click/core.py"]
    assert "click/testing.py" not in files


def test_what_was_read_is_kept_by_version_and_read_again_when_damaged(
    standard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    files, _ = imports.installed(["click"], cache)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    for damaged in (content[:1000], b"[]", b"{}", b"\xff"):
        kept.write_bytes(damaged)
        assert imports.installed(["click"], cache)[0] == files
        assert kept.read_bytes() == content
    monkeypatch.setattr(imports, "_sources", lambda libraries: [])
    assert imports.installed(["click"], cache)[0] == files
    monkeypatch.setattr(imports.metadata, "version", lambda name: "0.0")
    assert imports.installed(["click"], cache)[0] == {}
    assert len(list(cache.iterdir())) == 2


def test_a_library_that_is_not_there_and_a_cache_that_cannot_be_written_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"data\.libraries: 'no-such' is not installed here"):
        imports.installed(["no-such"], tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(imports, "_sources", lambda libraries: [])
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match=r"cannot be written: .* \(data\.cache\)"):
        imports.installed([], blocked)


# --- splits ---


def test_nobody_is_in_two_parts_and_warm_users_are_trained_without_what_they_are_tested_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    taken = write_csv(path, users=300, items=30)
    found = data.load(DataSettings(source="csv", path=path, time="when", warm=0.3))
    users = {tuple(own): user for user, own in taken.items()}  # in order of time, all differ
    assert (
        len(users)
        == len(taken)
        == sum(
            len(part["seen"]) - part["seen"].sum() * (part is found.test)
            for part in (found.train, found.validation, found.test)
        )
    )

    def whole(split: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
        halves = zip(named(found, split["history"]), named(found, split["target"]), strict=True)
        return [tuple(history + target) for history, target in halves]

    seen = found.test["seen"]
    assert [users[own] for own in whole(found.test)] == found.test_users
    new = {user for user, known in zip(found.test_users, seen, strict=True) if not known}
    warm = set(found.test_users) - new
    validating = {users[own] for own in whole(found.validation)}
    learned = set(whole(found.train))
    trained = {user for user, own in taken.items() if tuple(own) in learned}
    assert len(new) + len(warm) + len(validating) + len(trained) == len(taken)
    assert not new & validating
    known = [tuple(own) for own in named(found, found.test["history"][seen])]
    assert len(known) == len(warm) > 10
    assert set(known) <= learned
    assert len(learned) == len(trained) + len(warm)
    assert found.train["seen"].all()
    assert not found.validation["seen"].any()


def test_each_user_keeps_four_fifths_and_every_item_has_enough_users(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        history, target = (ranking.lengths(split[name]) for name in ("history", "target"))
        total = history + target
        np.testing.assert_array_equal(target, np.maximum(1, np.round(total / 5)))
        assert history.min() >= 3
        for own in np.concatenate([split["history"], split["target"]], axis=1):
            own = own[own > 0]
            assert len(set(own.tolist())) == len(own)
    counts = np.array(dataset.contract.counts)
    for split in (dataset.validation, dataset.test):
        rows = linear.everything(split)[~split["seen"]]
        counts += np.bincount(rows.ravel(), minlength=len(counts) + 1)[1:]
    hidden = dataset.test["target"][dataset.test["seen"]]
    counts += np.bincount(hidden.ravel(), minlength=len(counts) + 1)[1:]
    assert counts.min() >= 5
    assert len(dataset.test_users) == len(dataset.test["seen"])


def test_the_fingerprint_repeats_and_changes_with_the_split(dataset: Dataset) -> None:
    assert data.load(quick_data()).fingerprint == dataset.fingerprint
    assert data.load(quick_data(test_fold=0)).fingerprint != dataset.fingerprint
    assert data.load(quick_data(core=6)).fingerprint != dataset.fingerprint


def test_a_user_keeps_the_part_and_what_is_held_back_when_others_are_added(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    taken = write_csv(path)
    wanted = DataSettings(source="csv", path=path, warm=0)
    before = data.load(wanted)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"new{user},i{item},1,1\n" for user in range(30) for item in range(7))
    after = data.load(wanted)
    old = dict(zip(before.test_users, named(before, before.test["target"]), strict=True))
    new = dict(zip(after.test_users, named(after, after.test["target"]), strict=True))
    assert old
    assert old == {user: own for user, own in new.items() if user in taken}


def test_with_times_the_last_items_are_held_back(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    taken = write_csv(path)
    dataset = data.load(DataSettings(source="csv", path=path, time="when", warm=0))
    targets, known = named(dataset, dataset.test["target"]), named(dataset, dataset.test["history"])
    for user, target, history in zip(dataset.test_users, targets, known, strict=True):
        assert history + target == taken[user]
    short = data.load(DataSettings(source="csv", path=path, time="when", warm=0, longest=10))
    for user, target in zip(short.test_users, named(short, short.test["target"]), strict=True):
        assert target == taken[user][-len(target) :]
    assert short.test["history"].shape[1] <= 8


def test_iso_dates_are_times_too(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    write_csv(path)
    text = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in text[1:]]
    dated = [f"{u},{i},2024-01-02T00:{int(w) - 1000:02}:00+01:00,{s}" for u, i, w, s in rows]
    other.write_text("\n".join([text[0], *dated]), encoding="utf-8")
    seconds = data.load(DataSettings(source="csv", path=path, time="when"))
    dates = data.load(DataSettings(source="csv", path=other, time="when"))
    assert dates.fingerprint == seconds.fingerprint


def test_low_ratings_do_not_count_and_repeated_rows_count_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, users=200)
    wanted = {"source": "csv", "path": path, "core": 3, "warm": 0}
    everything = data.load(DataSettings(**wanted))
    liked = data.load(DataSettings(**wanted, rating="stars", min_rating=3))
    before, after = (
        sum((part["history"] > 0).sum() for part in (found.train, found.validation, found.test))
        for found in (everything, liked)
    )
    assert after < 0.8 * before
    assert "ratings below 3 do not count" in liked.about
    with path.open("a", encoding="utf-8") as file:
        file.write(path.read_text(encoding="utf-8").split("\n", 1)[1])
    assert data.load(DataSettings(**wanted)).fingerprint == everything.fingerprint
    with pytest.raises(UserError, match=r"row \d+, column item: user '.+' has rated '.+' already"):
        data.load(DataSettings(**wanted, rating="stars"))


# --- files ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a.csv: is empty"),
        (b"user,item,when,stars\n", "a.csv: no row is left"),
        (b"user,thing,when,stars\nu,i,1,1\n", "row 1: no column 'item', there are user, thing"),
        (b"user,item,item,when,stars\n", "row 1: more than one column 'item'"),
        (b"user,item,when,stars\nu,i,1\n", "row 2 has 3 fields, expected 4"),
        (b"user,item,when,stars\nu,i,1,1\n,j,1,1\n", "row 3, column user: is empty"),
        (b"user,item,when,stars\nu, ,1,1\n", "row 2, column item: is empty"),
        (b"user,item,when,stars\nu,i,soon,1\n", "row 2, column when: 'soon' is neither seconds"),
        (b"user,item,when,stars\nu,i,nan,1\n", "row 2, column when: 'nan' is neither seconds"),
        (b"user,item,when,stars\nu,i,1,inf\n", "row 2, column stars: 'inf' is no finite number"),
        (b"user,item,when,stars\nu,i,1,\n", "row 2, column stars: '' is no finite number"),
        (b"user,item,when,stars\nu,\xff,1,1\n", "row 2 is not utf-8"),
        (b"user,item,when,stars\nu,\0,1,1\n", "row 2 holds a zero byte"),
        (b'user,item,when,stars\nu,"i"x,1,1\n', "row 2: "),
        (b"user,item,when,stars\nu,i,1,1\n", "no user with 5 items that 5 users have is left"),
    ],
)
def test_a_bad_csv_is_refused_in_one_line_with_row_and_column(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        data.load(DataSettings(source="csv", path=path, time="when", rating="stars"))
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_in_any_script_survive_and_a_byte_order_mark_is_no_part_of_a_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    write_csv(path)
    text = path.read_text(encoding="utf-8").replace("i3,", '"קפה, 🍕",')
    path.write_text(text, encoding="utf-8-sig")
    assert "קפה, 🍕" in data.load(DataSettings(source="csv", path=path)).contract.items


def test_one_user_or_too_few_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = [f"u,i{item}" for item in range(20)]
    path.write_text("\n".join(["user,item", *lines]), encoding="utf-8")
    with pytest.raises(UserError, match=r"no user with 5 items .* is left \(data\.core\)"):
        data.load(DataSettings(source="csv", path=path))
    lines = [f"u{user},i{item}" for user in range(5) for item in range(5)]
    path.write_text("\n".join(["user,item", *lines]), encoding="utf-8")
    with pytest.raises(UserError, match="too few users, none is left for"):
        data.load(DataSettings(source="csv", path=path))


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.csv: no such file \(data\.path\)"):
        data.load(DataSettings(source="csv", path=tmp_path / "no.csv"))
    with pytest.raises(UserError, match=r"none: no such file or folder \(data\.path\)"):
        data.load(DataSettings(source="movielens", path=tmp_path / "none"))
    with pytest.raises(UserError, match=r"holds none of u\.data, ratings\.dat, ratings\.csv"):
        data.load(DataSettings(source="movielens", path=tmp_path))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        data.load(DataSettings(source="csv", path=tmp_path))


@pytest.mark.parametrize(
    ("name", "separator", "films", "encoding"),
    [
        ("u.data", "\t", ("u.item", "|"), "latin-1"),
        ("ratings.dat", "::", ("movies.dat", "::"), "latin-1"),
        ("ratings.csv", ",", ("movies.csv", ","), "utf-8"),
    ],
)
def test_every_format_of_movielens_is_read_with_its_titles(
    tmp_path: Path, name: str, separator: str, films: tuple[str, str], encoding: str
) -> None:
    draw = np.random.default_rng(0)
    rows = [
        [str(user), str(item), "5" if item % 4 else "2", str(place)]
        for user in range(1, 61)
        for place, item in enumerate(draw.permutation(16)[:12].tolist())
    ]
    titles = [[str(item), f"Amélie {item // 2}", "Comedy"] for item in range(16)]
    if separator == ",":
        rows.insert(0, ["userId", "movieId", "rating", "timestamp"])
        titles.insert(0, ["movieId", "title", "genres"])
    (tmp_path / name).write_text("\n".join(map(separator.join, rows)), encoding="utf-8")
    (tmp_path / films[0]).write_text("\n".join(map(films[1].join, titles)), encoding=encoding)
    for path in (tmp_path, tmp_path / name):
        found = data.load(DataSettings(source="movielens", path=path, min_rating=4))
        assert {int(item) % 4 for item in found.contract.items} == {1, 2, 3}
        assert found.contract.titles is not None
        place = found.contract.items.index("5")
        assert found.contract.titles[place] == "Amélie 2"
        # 4 and 5 share a title, but 4 was rated too low: one item has it; 2 and 3 share one too
        assert found.contract.numbers["Amélie 2"] == found.contract.numbers["5"] == place + 1
        assert "Amélie 1" not in found.contract.numbers
    (tmp_path / name).write_text("1", encoding="utf-8")
    with pytest.raises(UserError, match=f"{name}: row 1"):
        data.load(DataSettings(source="movielens", path=tmp_path))


def test_a_file_that_sets_one_training_setting_keeps_the_other_defaults_of_the_task() -> None:
    settings = Settings.model_validate({"name": "x", "train": {"epochs": 3}})
    assert settings.train.epochs == 3
    assert settings.train.lr == Settings(name="x").train.lr == 3e-3
    assert settings.train.patience == 50


def test_settings_that_do_not_fit_each_other_are_refused() -> None:
    for wrong, expected in (
        ({"source": "csv"}, r"source=csv needs data\.path="),
        ({"source": "csv", "path": "a.csv", "min_rating": 4}, r"min_rating needs data\.rating"),
        ({"test_fold": 5}, "test_fold must be below folds=5"),
    ):
        with pytest.raises(ValidationError, match=expected):
            DataSettings(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValidationError, match="keep_least must not exceed keep_most"):
        Settings(name="x", objective={"keep_least": 0.9})  # pyright: ignore[reportArgumentType]


# --- rankings ---


def test_rankings_and_metrics_agree_with_a_plain_calculation() -> None:
    scores, split = random_split(40, 30)
    outputs, count = {"scores": scores}, 30
    lists = ranking.ranked(outputs, split, 10)
    recalls, gains = [], []
    for row in range(40):
        known = set(split["history"][row].tolist())
        target = set(split["target"][row].tolist()) - {0}
        order = (np.argsort(-scores[row]) + 1).tolist()
        first = [item for item in order if item not in known][:10]
        assert lists[row].tolist() == first
        recalls.append(len(target & set(first)) / len(target))
        gain = sum(1 / math.log2(place + 2) for place, item in enumerate(first) if item in target)
        gains.append(gain / sum(1 / math.log2(place + 2) for place in range(len(target))))
    own = Contract(items=[str(i) for i in range(count)], titles=None, counts=[2] * count, users=9)
    found = objective.metrics(outputs, split, own)
    assert found["recall_at_10"] == pytest.approx(np.mean(recalls))
    assert found["ndcg_at_10"] == pytest.approx(np.mean(gains))
    assert found["coverage_at_10"] == len(set(lists.ravel().tolist())) / count
    assert found["popularity_lift"] == pytest.approx(1)  # all are equally popular
    assert objective.scores(outputs, split).tolist() == pytest.approx(recalls)


def test_details_split_users_and_lists_into_groups_that_add_up() -> None:
    scores, split = random_split(40, 30)
    own = Contract(items=[str(i) for i in range(30)], titles=None, counts=[2] * 30, users=9)
    tables = objective.details({"scores": scores}, split, own)
    assert list(tables["by_k"]) == ["1", "5", "10", "20", "50"]
    recalls = [row["recall"] for row in tables["by_k"].values()]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1  # 50 places for 30 items
    for name in ("by_user", "by_history"):
        rows = tables[name].values()
        assert sum(row["users"] for row in rows) == 40
        mean = sum(row["users"] * row["recall"] for row in rows) / 40
        assert mean == pytest.approx(tables["by_k"]["10"]["recall"])


def test_nothing_is_recommended_twice_or_once_known_even_when_little_is_left() -> None:
    scores, split = random_split(20, 6)
    lists = ranking.ranked({"scores": scores}, split, 50)
    assert lists.shape == (20, 6)
    for row, known in zip(lists.tolist(), split["history"].tolist(), strict=True):
        assert sorted(item for item in row if item) == sorted(set(range(1, 7)) - set(known))
        assert row[3:] == [0, 0, 0]
    ties = ranking.best(np.zeros((1, 9)), np.zeros((1, 9), bool), 4)
    assert ties.tolist() == [[1, 2, 3, 4]]


def test_popular_recommendations_have_a_lift_above_one() -> None:
    _, split = random_split(40, 30)
    counts = list(range(30, 0, -1))
    own = Contract(items=[str(i) for i in range(30)], titles=None, counts=counts, users=40)
    popular = objective.metrics({"scores": np.tile(np.array(counts, float), (40, 1))}, split, own)
    rare = objective.metrics({"scores": np.tile(-np.array(counts, float), (40, 1))}, split, own)
    assert rare["popularity_lift"] < 1 < popular["popularity_lift"]


# --- baselines ---


def test_ease_is_the_ridge_regression_of_each_item_on_all_others() -> None:
    draw = np.random.default_rng(0)
    matrix = (draw.random((200, 12)) < 0.3).astype(float)
    lists = np.where(matrix > 0, np.arange(1, 13), 0).astype(np.int32)
    pairs = linear.together(lists, 12)
    np.testing.assert_allclose(pairs, matrix.T @ matrix)
    weights = linear.edlae(pairs, 7.0, 0.0)
    for item in range(12):
        others = np.delete(np.arange(12), item)
        some = matrix[:, others]
        expected = np.linalg.solve(some.T @ some + 7 * np.eye(11), some.T @ matrix[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-9)
        assert weights[item, item] == 0


def test_nearest_neighbours_are_cosines_of_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    matrix = (draw.random((100, 8)) < 0.4).astype(float)
    lists = np.where(matrix > 0, np.arange(1, 9), 0).astype(np.int32)
    monkeypatch.setattr(linear, "ROWS", 33)
    weights = linear.knn(linear.together(lists, 8), 3, 0.0, 0.5)
    unit = matrix / np.linalg.norm(matrix, axis=0)
    cosine = unit.T @ unit - np.eye(8)
    assert ((weights > 0).sum(axis=0) == 3).all()
    np.testing.assert_allclose(weights[weights > 0], cosine[weights > 0])
    least = np.sort(cosine, axis=0)[-3]
    assert (np.where(weights > 0, weights, np.inf).min(axis=0) >= least - 1e-9).all()
    np.testing.assert_allclose(linear.scores(lists, weights), matrix @ weights, atol=1e-5)


def test_baselines_beat_popularity_on_the_default_kind_of_data(dataset: Dataset) -> None:
    values = {
        name: objective.scores(outputs, dataset.test).mean()
        for name, outputs in baseline.predictions(dataset)
    }
    assert list(values) == baseline.names()
    assert min(values[name] for name in baseline.names()[1:]) > values[baseline.POPULARITY] + 0.05


# --- network ---


def build(dataset: Dataset, **changes: Any) -> torch.nn.Module:
    settings = Settings(name="x", model={"width": 16, **changes})  # pyright: ignore[reportArgumentType]
    return model.build(settings, dataset.contract).eval()


def test_order_padding_and_repetition_of_a_list_change_nothing(dataset: Dataset) -> None:
    network = build(dataset)
    one = network(torch.tensor([[3, 5, 9]]))
    for same in ([[9, 3, 5]], [[5, 0, 3, 9, 0, 0]], [[3, 3, 9, 5]]):
        torch.testing.assert_close(network(torch.tensor(same)), one)
    assert torch.isfinite(network(torch.tensor([[0, 0]]))).all()
    assert "parameters" in model.describe(network)


def test_what_a_user_has_ranks_below_all_else_except_while_training(dataset: Dataset) -> None:
    network, history = build(dataset), torch.from_numpy(dataset.test["history"][:20])
    scores = network(history)
    has = torch.from_numpy(ranking.marks(dataset.test["history"][:20], scores.shape[1]))
    for row, own in zip(scores, has, strict=True):
        assert row[own].max() < row[~own].min()
    network.train()
    assert (network(history)[has] > scores[has]).any()


def test_a_blend_adds_edlae_to_the_networks_scores(dataset: Dataset) -> None:
    network = build(dataset, blend=2.0)
    history = dataset.test["history"][:20]
    alone = network(torch.from_numpy(history)).detach().numpy()
    assert isinstance(network, model.Network)
    network.prepare(dataset.train, dataset.validation)
    blended = network(torch.from_numpy(history)).detach().numpy()
    extra = linear.scores(history, network.weights.numpy())
    free = ~ranking.marks(history, alone.shape[1])
    np.testing.assert_allclose(blended[free], (alone + 2 * extra)[free], atol=1e-4)
    assert np.abs(extra[free]).max() > 0.1
    assert "EDLAE" in model.describe(network)


def test_the_loss_hides_part_of_the_list_and_wants_all_of_it(dataset: Dataset) -> None:
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


def answer(own: Contract, scores: list[float], **item: Any) -> Any:
    (found,) = own.decode({"scores": np.array([scores])}, [Item.model_validate(item)])
    return found


def test_ids_titles_and_numbers_name_items(small: Contract) -> None:
    item = Item(items=["One", 2, "Same", "ä b", "no", "1", 77, "🍕", "שלום"])
    assert small.encode([item])["history"].tolist() == [[1, 2, 4]]
    found = answer(small, [0.0] * 5, **item.model_dump())
    assert found.unknown == ["Same", "no", "77", "🍕", "שלום"]
    assert [row.item for row in found.items] == ["3", "5"]
    assert [row.title for row in found.items] == ["Same", "5"]
    assert not found.fallback


def test_known_and_excluded_items_never_come_back_and_scores_are_shares(small: Contract) -> None:
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    found = answer(small, scores, items=["1"], exclude=["Four", "who"], k=2)
    assert [row.item for row in found.items] == ["2", "3"]
    assert found.unknown == ["who"]
    odds = np.exp(scores[1:])
    assert [row.score for row in found.items] == pytest.approx((odds / odds.sum())[:2].tolist())
    assert answer(small, scores, items=["1", "2", "3"], exclude=["5", "ä b"]).items == []


@pytest.mark.parametrize("items", [[], ["no", "never"]])
def test_who_is_not_known_gets_what_is_popular_and_is_told_so(
    small: Contract, items: list[str]
) -> None:
    found = answer(small, [0.0, 0, 0, 0, 9.0], items=items, exclude=["1"], k=3)
    assert found.fallback
    assert found.unknown == items
    assert [row.item for row in found.items] == ["2", "3", "ä b"]
    assert found.items[0].score == pytest.approx(7 / 25)


def test_a_request_may_be_longer_than_what_was_trained_on(small: Contract) -> None:
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
    (found,) = dataset.contract.decode({"scores": scores}, [item])
    assert time.process_time() - started < 0.2
    assert len(found.unknown) == 1000
    assert not history.any()


def test_drift_features_are_those_of_the_known_items(small: Contract) -> None:
    found = small.features({"history": np.array([[1, 3, 0], [0, 0, 0], [5, 0, 0]], np.int32)})
    np.testing.assert_allclose(found["known_items"], [2, 0, 1])
    np.testing.assert_allclose(found["popularity"], [0.7, 0, 0.1])
    np.testing.assert_allclose(found["rarest"], [0.5, 0, 0.1])
    outcome = small.prediction_stats({"scores": np.array([[0, 1, 0, 0, 0], [0, 0, 0, 2, 0]])})
    assert outcome["item"].tolist() == ["2", "ä b"]
    assert outcome["popularity"].tolist() == [0.7, 0.3]


def test_a_contract_survives_its_file(small: Contract, tmp_path: Path) -> None:
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
def test_a_file_is_an_item(
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
def test_a_file_that_is_no_item_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        contract.item_from_file(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_figure_can_be_drawn_of_few_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, users=30)
    few = data.load(DataSettings(source="csv", path=path))
    scores = np.zeros((len(few.test["seen"]), len(few.contract.items)), np.float32)
    names = []
    for name, caption, figure in figures.draw(few, {"scores": scores}, {}):
        figure.savefig(tmp_path / name)
        assert caption.endswith(".")
        names.append(name)
    assert names == ["recall_by_k.png", "long_tail.png", "examples.png"]


# --- what comes from outside ---


def test_labelled_requests_join_every_split_and_all_that_reads_it(dataset: Dataset) -> None:
    whole, rest = dataset.holdout(0.4)
    assert len(whole.test_users) == len(whole.test["seen"])
    pairs = simulate.usual(whole, rest, Settings(name="x"))
    names = dataset.contract.items
    long = (
        Item(items=[*names[:-9], "unheard.of"]),
        GroundTruth(items=[*names[-20:], "unheard.of"]),
    )
    fresh = {"train": [*pairs[:9], long], "validation": pairs[9:13], "test": [*pairs[13:], long]}
    more = whole.with_examples(fresh)
    for name, added in fresh.items():
        before, after = getattr(whole, name), getattr(more, name)
        assert set(after) == set(before)
        for key, array in after.items():
            assert len(array) == len(before[key]) + len(added)
            assert array.dtype == before[key].dtype
        assert not after["seen"][-len(added) :].any()
        assert (after["target"][:, 0] > 0).all()
    assert more.train["history"].shape[1] == len(names) - 9
    assert named(more, more.train["target"][-1:]) == [names[-9:]]
    rows = {key: array[:9] for key, array in rest.items()}
    for key in ("history", "target"):
        assert named(more, more.train[key][-10:-1]) == named(more, rows[key])
    assert more.fingerprint != whole.fingerprint
    assert len(more.test_users) == len(more.test["seen"])
    outputs = {"scores": np.random.default_rng(0).normal(size=(len(more.test_users), len(names)))}
    assert 0 < objective.metrics(outputs, more.test, more.contract)["recall_at_10"] < 1
    details = objective.details(outputs, more.test, more.contract)
    assert len(list(figures.draw(more, outputs, details))) == 3


def test_requests_that_tell_nothing_cannot_join(dataset: Dataset) -> None:
    own, other = dataset.contract.items[:2]
    for have, took, reason in (
        (["unheard.of"], [own], "example 1: the user has nothing"),
        ([own], ["unheard.of"], "example 1: the user took nothing"),
        ([own], [own], "example 1: the user took nothing"),
    ):
        bad = (Item.model_validate({"items": have}), GroundTruth.model_validate({"items": took}))
        with pytest.raises(ValueError, match=reason):
            dataset.encode_labelled([(Item(items=[own]), GroundTruth(items=[other])), bad])


def test_scores_of_answers_average_to_the_recall(dataset: Dataset) -> None:
    own, pairs = dataset.contract, simulate.usual(dataset, dataset.test, Settings(name="x"))
    test = {key: array[: len(pairs)] for key, array in dataset.test.items()}
    outputs = {"scores": np.random.default_rng(0).normal(size=(len(pairs), len(own.items)))}
    outputs["scores"] += 0.5 * ranking.marks(test["target"], len(own.items))
    found = own.decode(outputs, [item for item, _ in pairs])
    scores = [own.score(one, truth) for one, (_, truth) in zip(found, pairs, strict=True)]
    np.testing.assert_allclose(scores, objective.scores(outputs, test))
    assert contract.SCORE.name in objective.metrics(outputs, test, own)


def test_a_truth_counts_what_is_known_once(small: Contract) -> None:
    found = Prediction.model_validate(
        {
            "items": [{"item": name, "title": None, "score": 0.1} for name in small.items[:2]],
            "unknown": [],
            "fallback": False,
        }
    )
    first, last = small.items[0], small.items[-1]
    assert small.score(found, GroundTruth(items=[first, first, last, "unheard of"])) == 0.5
    with pytest.raises(ValueError, match="knows none of them"):
        small.score(found, GroundTruth(items=["unheard of"]))


def test_fashions_turn_popular_items_into_rare_ones_and_back(dataset: Dataset) -> None:
    counts = np.array(dataset.contract.counts)
    now = simulate.turned(dataset.contract.counts)
    assert sorted(now) == list(range(len(counts) + 1))
    np.testing.assert_array_equal(now[now], np.arange(len(counts) + 1))
    assert counts[now[1 + counts.argmax()] - 1] == counts.min()
    whole, rest = dataset.holdout(0.5)
    usual = simulate.usual(whole, rest, Settings(name="x"))
    shifted = simulate.shifted(whole, rest, Settings(name="x"))
    assert len(usual) + len(shifted) == len(rest["seen"])
    others = {key: array[len(usual) :] for key, array in rest.items()}
    found = whole.encode_labelled(shifted)
    for key in ("history", "target"):
        assert named(whole, now[found[key]]) == named(whole, others[key])


def test_slices_have_users_enough_and_cover_everybody(dataset: Dataset) -> None:
    masks = objective.slices(dataset.test, dataset.contract)
    assert {"never seen", "seen in training", "5 to 9 items"} <= set(masks)
    assert all(mask.sum() >= 20 and len(mask) == len(dataset.test_users) for mask in masks.values())
