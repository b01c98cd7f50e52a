"""Labelled requests join the data: one split each, for ever, and no held-out row is trained on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }}.arrays import hash_rows, row_count
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.files import write_text
from {{ cookiecutter.package_name }}.interfaces import LabelledItem
from {{ cookiecutter.package_name }}.lifecycle import labels
from {{ cookiecutter.package_name }}.task import objective
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.training import feedback_data, runs

from .labelled import RULES, content, logged, original, pairs, settings, short_blocks, widened

__all__ = ["original", "pairs", "short_blocks"]  # fixtures


def test_new_labels_are_split_by_time_with_gaps_between_splits(
    pairs: list[LabelledItem],
) -> None:
    rows = labels.assign_splits(
        [labels.to_row(example) for example in logged(pairs)[::-1]], RULES, continued=False
    )
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    used = [row.split for row in rows if row.split != "unused"]
    sizes = {name: used.count(name) for name in feedback_data.SPLITS}
    assert used == [name for name in feedback_data.SPLITS for _ in range(sizes[name])]
    assert sizes["train"] > sizes["test"] > sizes["validation"] > 0
    splits = [row.split for row in rows]
    for name in ("validation", "test"):
        start = splits.index(name)
        assert splits[start - objective.BLOCK_LENGTH + 1 : start] == ["unused"] * (
            objective.BLOCK_LENGTH - 1
        )


def test_collected_rows_keep_their_split_and_new_ones_follow(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    half = len(pairs) // 2
    log = logged(pairs)
    first = labels.collect_rows(original, [], log[:half], RULES)
    second = labels.collect_rows(original, first, log, RULES)
    assert second[: len(first)] == first
    assert {row.request_id for row in second} == {one.request_id for one in log}
    assert labels.collect_rows(original, second, log, RULES) == second
    assert labels.uncollected(log, second) == []


def test_too_few_new_labels_to_split_wait_for_more(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    few = logged(pairs)[:2]
    assert labels.collect_rows(original, [], few, RULES) == []
    assert len(labels.uncollected(few, [])) == 2


def test_corrected_label_is_taken_over_in_its_split(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    log = logged(pairs)
    rows = labels.collect_rows(original, [], log, RULES)
    place = next(n for n, row in enumerate(rows) if row.split == "train")
    other = next(one.truth for one in log if one.truth != rows[place].truth)
    log[place] = replace(log[place], truth=other)
    again = labels.collect_rows(original, rows, log, RULES)
    assert again[place].truth == other
    if again[place].split != "unused":  # recommendation: the other's items may be this user's own
        assert again[place].split == "train"
    assert again[:place] + again[place + 1 :] == rows[:place] + rows[place + 1 :]


def test_rows_the_contract_cannot_use_stay_unused(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    log = logged(pairs)
    log[0] = replace(log[0], truth={})
    log[1] = replace(log[1], item={})
    rows = labels.collect_rows(original, [], log, RULES)
    unusable = [row for row in rows if row.request_id in ("r-0", "r-1")]
    assert [row.split for row in unusable] == ["unused", "unused"]
    assert labels.uncollected(log, rows) == []


def test_copies_of_held_out_examples_are_never_trained_on(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    """A request may be a copy of another one, or of an example that tested the champion."""
    again = logged(pairs, "again")
    copies = [replace(one, at=one.at - len(pairs)) for one in again[-10:]]  # the last ones, early
    rows = labels.collect_rows(original, [], [*logged(pairs), *copies], RULES)
    by_id = {row.request_id: row.split for row in rows}
    for one in copies:
        twin = by_id[one.request_id.replace("again", "r")]
        assert twin == by_id[one.request_id] or "unused" in (twin, by_id[one.request_id])
    tested = original.with_examples({"test": pairs})
    assert {row.split for row in labels.collect_rows(tested, [], logged(pairs), RULES)} == {
        "unused"
    }


def test_collected_rows_are_appended_to_their_splits(
    original: Dataset, pairs: list[LabelledItem], tmp_path: Path
) -> None:
    rows = labels.collect_rows(original, [], logged(pairs), RULES)
    path = tmp_path / "labels.jsonl"
    write_text(path, feedback_data.feedback_text(rows))
    assert feedback_data.read_feedback_rows(path) == rows
    joined = runs.load_data(settings(f"live.feedback={path}"))
    for name in feedback_data.SPLITS:
        before, after = getattr(original, name), getattr(joined, name)
        count = len(next(iter(before.values())))
        added = sum(row.split == name for row in rows)
        assert len(next(iter(after.values()))) == count + added
        assert content(after, count) == content(widened(before, after))
    assert joined.fingerprint != original.fingerprint


def test_old_requests_are_not_trained_on_and_recent_ones_get_their_share(
    original: Dataset, pairs: list[LabelledItem], tmp_path: Path
) -> None:
    """Held-out rows stay: only what the new model learns from is chosen."""
    path = tmp_path / "labels.jsonl"
    rows = labels.collect_rows(original, [], logged(pairs), RULES)
    write_text(path, feedback_data.feedback_text(rows))
    train = [row for row in rows if row.split == "train"]
    last = train[len(train) // 2 :]  # a row a second
    days = (last[-1].at - last[0].at) / 86400 + 1e-9
    feedback = f"live.feedback={path}"
    plain = runs.load_data(settings(feedback))
    assert plain.notes == original.notes
    for share in (0.8, 1.0):
        chosen = [f"retrain.production_share={share}", f"retrain.window_days={days}"]
        changed = runs.load_data(settings(feedback, *chosen))
        total = row_count(original.train) + len(last)
        kept = round((1 - share) * total)
        assert row_count(changed.train) == total
        hashes = list(hash_rows(widened(changed.train, plain.train)))
        recent = original.encode_labelled([row.pair() for row in last])
        assert set(hashes[:kept]) <= content(widened(original.train, plain.train))
        assert set(hashes[kept:]) == content(widened(recent, plain.train))
        assert 0 < row_count(changed.validation) < row_count(plain.validation)
        assert content(changed.test) == content(plain.test)
        assert f"{len(train) - len(last)} labelled requests are too old" in changed.notes[-2]
        assert f"{kept} of {row_count(original.train)} original" in changed.notes[-1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: "no JSON", "Invalid JSON"),
        (lambda text: "{}", "request_id: Field required"),
        (lambda text: text.replace('"train"', '"exam"'), "split: "),
        (lambda text: _with(text, "item", {}), ": "),
        (lambda text: _with(text, "truth", {}), "Field required"),
        (lambda text: _with(text, "request_id", "r-0"), "duplicate item 0 of request r-0"),
    ],
)
def test_unusable_line_is_named(
    pairs: list[LabelledItem], tmp_path: Path, change: Callable[[str], str], reason: str
) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [labels.to_row(one).model_copy(update={"split": "train"}) for one in logged(pairs[:3])]
    texts = feedback_data.feedback_text(rows).splitlines()
    texts[2] = change(texts[2])
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        runs.load_data(settings(f"live.feedback={path}"))
    assert str(caught.value).startswith(f"{path}: line 3: ")
    assert reason in str(caught.value)


def _with(text: str, key: str, value: Any) -> str:
    return json.dumps({**json.loads(text), key: value})


def from_callers(count: int, callers: int, start: int = 0) -> list[feedback_data.FeedbackRow]:
    """Rows of callers who ask in turns."""
    return [
        feedback_data.FeedbackRow(
            request_id=f"q-{n}",
            index=0,
            at=float(n),
            split="unused",
            item={},
            truth={},
            caller=f"c{n % callers}",
        )
        for n in range(start, start + count)
    ]


def splits_by_caller(rows: list[feedback_data.FeedbackRow]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = {}
    for row in rows:
        if row.split != "unused":
            places.setdefault(row.caller, set()).add(row.split)
    return places


def test_caller_who_repeats_itself_stays_in_one_split() -> None:
    first = labels.split_by_caller(from_callers(400, 20), RULES, [])
    second = labels.split_by_caller(from_callers(400, 25, start=400), RULES, first)
    assert all(len(places) == 1 for places in splits_by_caller([*first, *second]).values())
    for rows in (first, second):
        assert {row.split for row in rows} >= set(feedback_data.SPLITS)


def test_single_caller_is_split_by_time() -> None:
    rows = labels.split_by_caller(from_callers(200, 1), RULES, [])
    assert rows == labels.assign_splits(from_callers(200, 1), RULES, continued=False)
