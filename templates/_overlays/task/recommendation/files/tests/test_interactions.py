"""Interactions as people have them: rated twice, float ids, titles elsewhere, MovieLens."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.task import data
from {{ cookiecutter.package_name }}.task.contract import Contract, Item
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import DataSettings

from .test_task import named

Rows = list[tuple[Any, Any, Any, Any]]  # user, item, rating, time


def make_rows(users: int = 60, items: int = 16, seed: int = 0) -> Rows:
    """Make interactions of 12 items per user, at increasing times, none of them twice."""
    rng = np.random.default_rng(seed)
    return [
        (user, item, int(rng.integers(1, 6)), 1_600_000_000 + 1000 * place + user)
        for user in range(1, users + 1)
        for place, item in enumerate(rng.permutation(items)[:12].tolist())
    ]


def write(path: Path, rows: Rows, separator: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([("user", "item", "rating", "time"), *rows])
    return path


def load(path: Path, **settings: Any) -> Dataset:
    return data.load(DataSettings(source="csv", path=path, **settings))


def noted(dataset: Dataset, text: str) -> bool:
    return any(text in note for note in dataset.notes)


def pairs(dataset: Dataset) -> int:
    """Count the interactions in training and validation and, of new users, in the test."""
    new = {name: array[~dataset.test["seen"]] for name, array in dataset.test.items()}
    splits = (dataset.train, dataset.validation, new)
    return sum(int((part[key] > 0).sum()) for part in splits for key in ("history", "target"))


# --- repeated rows ---


@pytest.mark.parametrize(
    ("repeats", "timed", "remaining"),
    [
        ("last", True, 0),  # rated 5, later 2; the later row comes first in the file
        ("last", False, 60),
        ("first", True, 60),
        ("first", False, 0),
        ("max", True, 60),
        ("mean", True, 0),
    ],
)
def test_chosen_rating_of_a_repeated_pair_counts_and_is_told(
    tmp_path: Path, repeats: str, timed: bool, remaining: int
) -> None:
    once = [(user, item, 4, time) for user, item, _, time in make_rows()]
    again = [
        row for user in range(1, 61) for row in ((user, "x", 2, 1_900_000_000), (user, "x", 5, 1))
    ]
    path = write(tmp_path / "a.csv", once + again)
    settings = {"rating": "rating", "min_rating": 4, "warm": 0, "repeats": repeats}
    dataset = load(path, time="time" if timed else None, **settings)
    assert pairs(dataset) == len(once) + remaining
    assert noted(dataset, f"Rows that repeat a user and an item: 60; the {repeats} rating")
    assert noted(dataset, f"{60 - remaining} ratings below 4 are ignored (data.min_rating)")


def test_repeated_pair_without_a_rating_counts_once_and_is_told(tmp_path: Path) -> None:
    rows = make_rows()
    dataset = load(write(tmp_path / "a.csv", rows + rows[:7] + rows[:2]), warm=0)
    assert pairs(dataset) == len(rows)
    assert noted(dataset, "Rows that repeat a user and an item: 9; each pair counts once.")


def test_ratings_that_decide_nothing_are_told(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "a.csv", make_rows()), rating="rating")
    assert noted(dataset, "Ratings are not used: without data.min_rating")


# --- files ---


def write_parquet(path: Path, rows: Rows) -> Path:
    columns = dict(zip(("user", "item", "rating", "time"), zip(*rows, strict=True), strict=True))
    parquet.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), path)
    return path


def json_lines(path: Path, rows: Rows) -> Path:
    names = ("user", "item", "rating", "time")
    text = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("make", "table"),
    [
        (lambda folder, rows: write(folder / "a.csv", rows, ";"), {"separator": ";"}),
        (lambda folder, rows: write(folder / "a.csv", rows, ";"), {}),
        (lambda folder, rows: write(folder / "a.tsv", rows, "\t"), {}),
        (lambda folder, rows: write(folder / "a.csv", rows, encoding="utf-8-sig"), {}),
        (
            lambda folder, rows: write(folder / "a.csv", rows, encoding="cp1252"),
            {"encoding": "cp1252"},
        ),
        (lambda folder, rows: write_parquet(folder / "a.parquet", rows), {}),
        (lambda folder, rows: json_lines(folder / "a.jsonl", rows), {}),
    ],
)
def test_same_interactions_from_any_kind_of_table(
    tmp_path: Path, make: Callable[[Path, Rows], Path], table: dict[str, str]
) -> None:
    rows = [(f"ü{user}", f"é{item}", rating, time) for user, item, rating, time in make_rows()]
    settings = {"time": "time", "rating": "rating", "min_rating": 2}
    expected = load(write(tmp_path / "expected.csv", rows), **settings)
    dataset = load(make(tmp_path, rows), table=table, **settings)
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.contract == expected.contract


def test_ratings_with_a_decimal_comma_need_the_setting(tmp_path: Path) -> None:
    rows = [(u, i, f"{rating - 1},5", time) for u, i, rating, time in make_rows()]
    path = write(tmp_path / "a.csv", rows, ";")
    with pytest.raises(UserError, match=r"row 2, column 'rating': .*data\.table\.decimal=,"):
        load(path, rating="rating", min_rating=3.5)
    dataset = load(path, rating="rating", min_rating=3.5, core=3, table={"decimal": ","})
    assert noted(dataset, f"{sum(row[2] < '3,5' for row in rows)} ratings below 3.5 are ignored")


@pytest.mark.parametrize(
    ("form", "times"),
    [
        (lambda time: f"{np.datetime64(time, 's')}Z", "auto"),
        (lambda time: f"{np.datetime64(time, 's')}".replace("T", " "), "auto"),
        (lambda time: 1000 * time, "auto"),
        (lambda time: 1000 * time, "ms"),
        (lambda time: f"{time}.0", "auto"),
    ],
)
def test_times_in_any_form_give_the_same_split(
    tmp_path: Path, form: Callable[[int], Any], times: str
) -> None:
    rows = make_rows()
    settings: dict[str, Any] = {"time": "time", "split": "time", "core": 3}
    expected = load(write(tmp_path / "a.csv", rows), **settings)
    path = write(tmp_path / "b.csv", [(u, i, r, form(time)) for u, i, r, time in rows])
    dataset = load(path, table={"times": times}, **settings)
    assert dataset.fingerprint == expected.fingerprint
    assert dataset.about.replace("b.csv", "a.csv") == expected.about


def test_rows_with_empty_cells_are_refused_or_left_out_and_counted(tmp_path: Path) -> None:
    rows = make_rows()
    holes: Rows = [("", 3, 5, 1), ("nan", 3, 5, 1), (1, "", 5, 1), (1, 3, "", 1), (1, 3, 5, "")]
    path = write(tmp_path / "a.csv", rows + holes)
    settings: dict[str, Any] = {"rating": "rating", "min_rating": 1, "time": "time", "warm": 0}
    with pytest.raises(UserError, match=rf"row {len(rows) + 2}, column 'user': is empty \(as in 2"):
        load(path, **settings)
    dataset = load(path, missing="skip", **settings)
    assert pairs(dataset) == len(rows)
    assert noted(
        dataset, "Rows left out by data.missing=skip: 5 (2 no user, 1 no item, 1 no rating"
    )
    with pytest.raises(UserError, match="no row is left, all lack user"):
        load(write(path, [("", 1, 1, 1)]), missing="skip")


# --- ids ---


def test_float_ids_of_an_export_are_the_whole_numbers_they_were(tmp_path: Path) -> None:
    rows = make_rows()
    expected = load(write(tmp_path / "a.csv", rows))
    floats: Rows = [(f"{user}.0", f"{item}.0", r, t) for user, item, r, t in rows]
    for mixed in (floats, floats[:300] + rows[300:], [*floats, ("", "", 1, 1)]):
        dataset = load(write(tmp_path / "b.csv", mixed), missing="skip")
        assert dataset.fingerprint == expected.fingerprint
        assert dataset.contract == expected.contract
        assert noted(dataset, "Ids such as '12.0' in column 'item' of b.csv are read as '12'.")


@pytest.mark.parametrize("other", ["007", "1.5", "1.10", "a", "1e3", "+1.0"])
def test_ids_of_a_column_with_other_names_stay_as_they_are_written(
    tmp_path: Path, other: str
) -> None:
    rows = [(u, f"{i}.0", r, t) for u, i, r, t in make_rows()]
    rows += [(user, other, 1, 1) for user in range(1, 61)]
    dataset = load(write(tmp_path / "a.csv", rows))
    assert {other, "7.0"} <= set(dataset.contract.items)


@pytest.fixture
def numbered() -> Contract:
    """Ids that are whole numbers; one title is another item's id."""
    return Contract(
        items=["12", "7", "2012"], titles=["Up", "2012", "Seven"], counts=[3, 2, 1], users=3
    )


@pytest.mark.parametrize("name", [12, "12", 12.0, "12.0", " 12 ", "Up", "Up "])
def test_an_id_is_found_however_a_request_writes_it(numbered: Contract, name: Any) -> None:
    item = Item.model_validate({"items": [name]})
    assert numbered.encode([item])["history"].tolist() == [[1]]
    (prediction,) = numbered.decode({"scores": np.zeros((1, 3))}, [item])
    assert not prediction.unknown


@pytest.mark.parametrize("name", [13, "13", 13.0, "13.0", " 13 ", "012", "up", "12.5", "1 2", "u"])
def test_an_unknown_id_is_told_however_a_request_writes_it(numbered: Contract, name: Any) -> None:
    for field in ("items", "exclude"):
        item = Item.model_validate({"items": [12], field: [name]})
        (prediction,) = numbered.decode({"scores": np.zeros((1, 3))}, [item])
        assert prediction.unknown == [str(int(name) if isinstance(name, float) else name)]


def test_text_ids_keep_decimals_and_leading_zeros() -> None:
    contract = Contract(items=["7", "007", "7.0"], titles=None, counts=[1, 1, 1], users=1)
    item = Item.model_validate({"items": ["7.0", "007"]})
    assert contract.encode([item])["history"].tolist() == [[3, 2]]


# --- titles ---


def test_the_example_names_items_by_titles_that_requests_may_use() -> None:
    titles = ["Up", "Same", "Same", "1", "x" * 201, ""]
    items = [str(number) for number in range(1, 7)]
    contract = Contract(items=items, titles=titles, counts=[1] * 6, users=1)
    names = contract.item(np.array([1, 2, 3, 4, 5, 6, 0]))["items"]
    assert names == ["Up", "2", "3", "4", "5", "6"]
    assert contract.numbers_of(names) == [1, 2, 3, 4, 5, 6]


def test_titles_come_from_a_column_or_another_file(tmp_path: Path) -> None:
    rows = make_rows()
    lines = ["user,item,name", *(f"{user},{item},Film {item}" for user, item, *_ in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    films = ["item,name,year", *(f'{item}.0,"Film {item}",1999' for item in range(40))]
    (tmp_path / "films.csv").write_text("\n".join(films))
    inside = load(tmp_path / "a.csv", title="name")
    beside = load(tmp_path / "a.csv", title="name", titles=tmp_path / "films.csv")
    assert inside.contract == beside.contract
    assert inside.contract.titles == [f"Film {item}" for item in inside.contract.items]
    assert inside.contract.numbers["Film 3"] == inside.contract.numbers["3"]
    with pytest.raises(UserError, match=r"films\.csv: no column 'title' \(data\.title\)"):
        load(tmp_path / "a.csv", title="title", titles=tmp_path / "films.csv")


def test_missing_shared_and_clashing_titles_are_told_and_ids_win(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", make_rows())
    titles = {0: "Same", 1: "Same", 2: "5", 3: "", 4: "4"}
    films = [f"{item},{titles.get(item, f'Film {item}')}" for item in range(15)]
    (tmp_path / "films.csv").write_text("\n".join(["item,title", *films, "6,Other"]))
    dataset = load(path, title="title", titles=tmp_path / "films.csv")
    contract = dataset.contract
    assert contract.items[contract.numbers["5"] - 1] == "5"
    assert "Same" not in contract.numbers
    assert noted(dataset, "Items without a title: 2; their id stands for it.")
    assert noted(dataset, "Items that share a title: 2; requests find them by id only.")
    assert noted(dataset, "Titles that are another item's id: 1; in requests the id counts.")
    assert noted(dataset, "Items with several titles in films.csv: 1; the first counts.")


# --- splits by time ---


def test_split_by_time_trains_on_nothing_from_after_the_cut(tmp_path: Path) -> None:
    rows = [(u, i, r, 1000 * place) for place, (u, i, r, _) in enumerate(make_rows(items=20))]
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = [(rows[place][0], rows[place][1], 1, int(time)) for time, place in enumerate(order)]
    dataset = load(write(tmp_path / "a.csv", mixed), split="time", time="time", newest=0.2, core=3)
    cuts = round(0.6 * len(mixed)), round(0.8 * len(mixed))

    def names(low: int, high: int) -> dict[str, set[str]]:
        items: dict[str, set[str]] = {}
        for user, item, _, time in mixed:
            if low <= time < high:
                items.setdefault(str(user), set()).add(str(item))
        return items

    before, after = names(0, cuts[1]), names(cuts[1], len(mixed))
    histories, targets = (named(dataset, dataset.test[key]) for key in ("history", "target"))
    assert dataset.test_users == list(dict.fromkeys(dataset.test_users))
    for user, history, target in zip(dataset.test_users, histories, targets, strict=True):
        assert set(history) == before[user]
        assert set(target) == after[user]
    middle = names(cuts[0], cuts[1])
    validated = {frozenset(row) for row in named(dataset, dataset.validation["target"])}
    assert validated == {frozenset(items) for items in middle.values()}
    early = {frozenset(items) for items in names(0, cuts[0]).values()}
    halves = zip(
        *(named(dataset, dataset.train[key]) for key in ("history", "target")), strict=True
    )
    assert {frozenset(history + target) for history, target in halves} <= early
    assert "The split is by time" in dataset.about


def test_users_and_items_from_after_the_cut_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [(u, item, 1, 1 + (3 * u + item) % 20) for u in range(40) for item in range(20)]
    late = [("new", item, 1, 50) for item in range(6)] + [(0, "new", 1, 50)]
    dataset = load(write(tmp_path / "a.csv", rows + late), split="time", time="time")
    assert "new" not in dataset.test_users
    assert "new" not in dataset.contract.items
    # By default a fifth comes after training: times from 17 on, and the seven late rows.
    assert noted(
        dataset, f"1 of {4 * 40 + 7} interactions after the cut are of items that training"
    )
    assert noted(dataset, "and 1 in the test have no item from before")


def test_times_that_cannot_be_split_are_refused_with_a_way_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(u, i, r, 5) for u, i, r, _ in make_rows()])
    with pytest.raises(UserError, match=r"too few different times for data\.newest=0\.1; .*users"):
        load(path, split="time", time="time")


def test_lists_cut_to_their_last_items_are_told(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "a.csv", make_rows()), time="time", longest=10)
    assert noted(dataset, "Users with more than 10 items: 60, the longest list has 12; of each")


# --- MovieLens ---


FILMS = {
    0: 'American President, The (1995) "uncut"',
    1: "Star Wars: Episode IV - A New Hope (1977)",
    2: "Été, l' (1996)",
    3: "Confessions (1998)",
    4: "Confessions (1998)",
}


def write_movielens(folder: Path, layout: str, encoding: str = "utf-8") -> None:
    """Write ratings and films as MovieLens does; film 15 is rated but has no title."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (user, item, rating + (layout != "u.data") / 2, t) for user, item, rating, t in make_rows()
    ]
    rows = [(u, i, f"{rating:g}", time) for u, i, rating, time in rows]
    films = [(item, FILMS.get(item, f"Film {item}"), "Drama") for item in range(15)]
    if layout == "ratings.csv":
        for name, header, lines in (
            (layout, ("userId", "movieId", "rating", "timestamp"), rows),
            ("movies.csv", ("movieId", "title", "genres"), films),
        ):
            with (folder / name).open("w", encoding=encoding, newline="") as file:
                csv.writer(file).writerows([header, *lines])
        return
    other, mark, between = (
        ("u.item", "|", "\t") if layout == "u.data" else ("movies.dat", "::", "::")
    )
    for name, separator, lines in ((layout, between, rows), (other, mark, films)):
        text = "".join(separator.join(map(str, line)) + "\n" for line in lines)
        (folder / name).write_text(text, encoding=encoding)


@pytest.mark.parametrize(
    ("layout", "encoding"),
    [
        ("u.data", "latin-1"),
        ("ratings.dat", "latin-1"),
        ("ratings.dat", "utf-8"),
        ("ratings.csv", "utf-8"),
    ],
)
def test_films_of_every_movielens_layout_keep_their_titles(
    tmp_path: Path, layout: str, encoding: str
) -> None:
    write_movielens(tmp_path / "ml" / "ml-x", layout, encoding)
    for path in (tmp_path / "ml", tmp_path / "ml" / "ml-x", tmp_path / "ml" / "ml-x" / layout):
        settings = DataSettings(source="movielens", path=path, min_rating=2)
        dataset = data.load(settings)
        titles = dict(zip(dataset.contract.items, dataset.contract.titles or [], strict=True))
        assert {int(item): titles[item] for item in map(str, FILMS)} == FILMS
        assert titles["15"] == "15"
        assert noted(dataset, "Items without a title: 1; their id stands for it.")
        assert noted(dataset, "Items that share a title: 2;")
        assert dataset.contract.numbers["Film 7"] == dataset.contract.numbers["7"]
        by_time = data.load(settings.model_copy(update={"split": "time", "core": 3}))
        assert "training has what came from 2020-09-13 12:" in by_time.about


def test_folder_with_two_movielens_layouts_is_refused_by_name(tmp_path: Path) -> None:
    for layout in ("u.data", "ratings.csv"):
        write_movielens(tmp_path / layout[0], layout)
    with pytest.raises(UserError, match=r"contains r/ratings\.csv and u/u\.data; set data\.path"):
        data.load(DataSettings(source="movielens", path=tmp_path))


def test_films_without_titles_are_told(tmp_path: Path) -> None:
    write_movielens(tmp_path, "u.data")
    (tmp_path / "u.item").unlink()
    dataset = data.load(DataSettings(source="movielens", path=tmp_path))
    assert dataset.contract.titles is None
    assert noted(dataset, "There is no u.item beside u.data, so films have no titles.")
