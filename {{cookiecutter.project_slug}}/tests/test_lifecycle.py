"""From one model to the next: decided with reasons, learned, compared, tried, promoted, undone."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.base_settings import RetrainSettings
from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle import load as bundles
from {{ cookiecutter.package_name }}.bundle.deployment import Challenger, Deployment
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.experiments import tracked_runs
from {{ cookiecutter.package_name }}.interfaces import Arrays, LabelledItem
from {{ cookiecutter.package_name }}.lifecycle import gate, labels, plan, promote, release, retrain
from {{ cookiecutter.package_name }}.lifecycle.triggers import RetrainSignals, decide
from {{ cookiecutter.package_name }}.store.database import Database
from {{ cookiecutter.package_name }}.store.feedback import record_feedback
from {{ cookiecutter.package_name }}.store.feedback_schema import Feedback
from {{ cookiecutter.package_name }}.store.queries import LabelledExample
from {{ cookiecutter.package_name }}.store.row import PredictionRow
from {{ cookiecutter.package_name }}.store.write import insert_predictions
from {{ cookiecutter.package_name }}.task import data, objective, simulate
from {{ cookiecutter.package_name }}.task.data import Dataset
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import feedback_data, runs
from {{ cookiecutter.package_name }}.training.dataset import load_data, original_data

from .conftest import CONFIG
from .quick import QUICK

LOG = "sqlite:///predictions.db"  # the default, in the folder of the test
ASIDE = "live.set_aside=0.5"  # what plays the callers
OWN = [*QUICK, ASIDE, "retrain.least_labels=5"]
RULES = RetrainSettings(least_labels=5)


def run(verb: str, *arguments: str) -> int:
    return cli.main([verb, "--config", str(CONFIG), *arguments])


def settings(*overrides: str) -> Settings:
    return load_settings(Settings, CONFIG, [*OWN, *overrides], {})


def history(folder: Path, action: str) -> list[dict[str, Any]]:
    lines = deployment_folder.read_history(folder / "deployment")
    return [line for line in lines if line["action"] == action]


@pytest.fixture(scope="module", autouse=True)
def few_neighbours() -> Iterator[None]:
    """The tests have few examples: their blocks of neighbours must be small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "BLOCK_LENGTH", min(objective.BLOCK_LENGTH, 4))
        yield


@pytest.fixture(scope="module")
def original() -> Dataset:
    """The data without what was set aside."""
    return original_data(settings())


@pytest.fixture(scope="module")
def pairs() -> list[LabelledItem]:
    """What callers ask after the world has changed, and what turned out to be right."""
    wanted = settings()
    dataset, rest = data.load(wanted.data).holdout(wanted.live.set_aside)
    return simulate.shifted_requests(dataset, rest, wanted)


def answer(folder: Path, pairs: list[LabelledItem], name: str, start: float | None = None) -> None:
    """Log what the champion answers, a request a second, and the truths."""
    deployed = deployment_folder.read_deployment(folder / "deployment")
    bundle = bundles.load_bundle(*deployment_folder.champion_path(folder / "deployment"))
    contract, items = bundle.contract, [item for item, _ in pairs]
    inputs = contract.encode(items)
    outputs = bundle.run(inputs)
    features, outcomes = contract.features(inputs), contract.prediction_stats(outputs)
    predictions = contract.decode(outputs, items)
    start = time.time() - len(pairs) if start is None else start
    with closing(Database(f"sqlite:///{folder / 'predictions.db'}")) as database:
        database.migrate()
        rows = [
            PredictionRow(
                request_id=f"{name}-{place}",
                at=start + place,
                model_version=bundle.version,
                variant="champion",
                test=deployed.test,
                unit=f"{place % 50:x}",
                items=1,
                milliseconds=1.0,
                features=one(features, place),
                outcomes=one(outcomes, place),
                output=json.dumps([predictions[place].model_dump()]),
                input=json.dumps([item.model_dump(exclude_unset=True)]),
            )
            for place, item in enumerate(items)
        ]
        assert insert_predictions(database, rows) == len(rows)
        truths = [
            Feedback(request_id=f"{name}-{place}", truth=truth)
            for place, (_, truth) in enumerate(pairs)
        ]
        assert record_feedback(database, truths, contract.score).new == len(rows)


def one(arrays: Arrays, place: int) -> str:
    return json.dumps({name: [array[place].item()] for name, array in arrays.items()})


def lines(pairs: list[LabelledItem], name: str = "r") -> list[LabelledExample]:
    """The same as the log returns it."""
    return [
        LabelledExample(
            f"{name}-{place}", 0, float(place), "u", item.model_dump_json(), truth.model_dump_json()
        )
        for place, (item, truth) in enumerate(pairs)
    ]


def content(arrays: Arrays, count: int | None = None) -> set[bytes]:
    return set(list(labels._marks(arrays))[:count])


# Deciding

QUIET = RetrainSignals([], 5, "accuracy", 0.0, 500, 50, 3, 1.0, None)
ASKED = RetrainSettings(new_labels=1000, least_labels=100, quality_drop=0.1, max_days=90)


def test_nothing_new_is_no_reason() -> None:
    found = decide(QUIET, ASKED, if_needed=True)
    assert (found.outcome, found.reasons) == ("not needed", [])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"drifted": ["brightness", "contrast"], "fresh": 100}, "drift of brightness, contrast"),
        ({"drop": 0.11, "fresh": 100}, "accuracy is 11.0% worse than in training"),
        ({"fresh": 1000}, "1000 new labels"),
        ({"days": 91.0, "fresh": 0}, "the newest model is 91 days old"),
    ],
)
def test_each_reason_alone_is_enough_and_is_told(changed: dict[str, Any], reason: str) -> None:
    found = decide(replace(QUIET, **changed), ASKED, if_needed=True)
    assert (found.outcome, found.reasons) == ("retrain", [reason])
    assert [row[-1] for row in found.table()].count("yes") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"drop": 0.09},
        {"drop": 0.5, "labels": 99},
        {"drop": None, "labels": 0},
        {"fresh": 999},
        {"days": 89.0},
    ],
)
def test_what_is_below_its_limit_is_no_reason(changed: dict[str, Any]) -> None:
    assert decide(replace(QUIET, **changed), ASKED, if_needed=True).outcome == "not needed"


def test_without_labels_to_learn_from_the_others_wait_but_age_does_not() -> None:
    drifted = replace(QUIET, drifted=["contrast"], fresh=99)
    found = decide(drifted, ASKED, if_needed=True)
    assert found.outcome == "waits for labels"
    assert found.reasons == ["drift of contrast", "99 of 100 new labels are there"]
    assert decide(replace(drifted, days=100), ASKED, if_needed=True).outcome == "retrain"
    undivided = replace(drifted, fresh=100, fewest=101)
    assert decide(undivided, ASKED, if_needed=True).outcome == "waits for labels"


def test_a_running_test_is_not_disturbed_unless_forced() -> None:
    tested = replace(QUIET, fresh=5000, test="v2")
    for if_needed in (True, False):
        assert decide(tested, ASKED, if_needed).outcome == "a test is running"
        assert decide(tested, ASKED, if_needed, force=True).outcome == "retrain"


def test_a_wish_is_a_reason() -> None:
    found = decide(QUIET, ASKED, if_needed=False)
    assert (found.outcome, found.reasons) == ("retrain", ["by hand"])


# Labelled requests


def test_new_labels_are_divided_by_time_with_gaps_between_neighbours(
    pairs: list[LabelledItem],
) -> None:
    rows = labels.assign_splits(
        [labels._row(one) for one in lines(pairs)[::-1]], RULES, continued=False
    )
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    used = [row.split for row in rows if row.split != "unused"]
    parts = {name: used.count(name) for name in feedback_data.SPLITS}
    assert used == [name for name in feedback_data.SPLITS for _ in range(parts[name])]
    assert parts["train"] > parts["test"] > parts["validation"] > 0
    splits = [row.split for row in rows]
    for name in ("validation", "test"):
        start = splits.index(name)
        assert splits[start - objective.BLOCK_LENGTH + 1 : start] == ["unused"] * (
            objective.BLOCK_LENGTH - 1
        )


def test_a_label_keeps_its_split_for_ever_and_the_next_ones_follow(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    half = len(pairs) // 2
    log = lines(pairs)
    first = labels.collect_rows(original, [], log[:half], RULES)
    second = labels.collect_rows(original, first, log, RULES)
    assert second[: len(first)] == first
    assert {row.request_id for row in second} == {one.request_id for one in log}
    assert labels.collect_rows(original, second, log, RULES) == second
    assert labels.uncollected(log, second) == []


def test_too_few_new_labels_to_divide_wait_for_more(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    few = lines(pairs)[:2]
    assert labels.collect_rows(original, [], few, RULES) == []
    assert len(labels.uncollected(few, [])) == 2


def test_a_corrected_truth_is_taken_over_without_changing_its_split(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    log = lines(pairs)
    rows = labels.collect_rows(original, [], log, RULES)
    place = next(n for n, row in enumerate(rows) if row.split == "train")
    other = next(one.truth for one in log if json.loads(one.truth) != rows[place].truth)
    log[place] = log[place]._replace(truth=other)
    again = labels.collect_rows(original, rows, log, RULES)
    assert again[place].truth == json.loads(other)
    if again[place].split != "unused":  # recommendation: the other's items may be this user's own
        assert again[place].split == "train"
    assert again[:place] + again[place + 1 :] == rows[:place] + rows[place + 1 :]


def test_what_the_contract_cannot_use_is_left_out_for_good(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    log = lines(pairs)
    log[0] = log[0]._replace(truth="{}")
    log[1] = log[1]._replace(input="{}")
    rows = labels.collect_rows(original, [], log, RULES)
    useless = [row for row in rows if row.request_id in ("r-0", "r-1")]
    assert [row.split for row in useless] == ["unused", "unused"]
    assert labels.uncollected(log, rows) == []


def test_no_copy_of_a_held_out_example_is_trained_on(
    original: Dataset, pairs: list[LabelledItem]
) -> None:
    """A request may be a copy of another one, or of what tested the champion."""
    again = lines(pairs, "again")
    copies = [one._replace(at=one.at - len(pairs)) for one in again[-10:]]  # the last ones, early
    rows = labels.collect_rows(original, [], [*lines(pairs), *copies], RULES)
    by_id = {row.request_id: row.split for row in rows}
    for one in copies:
        twin = by_id[one.request_id.replace("again", "r")]
        assert twin == by_id[one.request_id] or "unused" in (twin, by_id[one.request_id])
    tested = original.with_examples({"test": pairs})
    assert {row.split for row in labels.collect_rows(tested, [], lines(pairs), RULES)} == {"unused"}


def test_labelled_requests_join_the_ends_of_their_splits(
    original: Dataset, pairs: list[LabelledItem], tmp_path: Path
) -> None:
    rows = labels.collect_rows(original, [], lines(pairs), RULES)
    path = tmp_path / "labels.jsonl"
    feedback_data.write_feedback_rows(path, rows)
    assert feedback_data.read_feedback_rows(path) == rows
    joined = load_data(settings(f"live.feedback={path}"))
    for name in feedback_data.SPLITS:
        before, after = getattr(original, name), getattr(joined, name)
        count = len(next(iter(before.values())))
        added = sum(row.split == name for row in rows)
        assert len(next(iter(after.values()))) == count + added
        assert content(after, count) == content(_as_wide(before, after))
    assert joined.fingerprint != original.fingerprint


def _as_wide(first: Arrays, second: Arrays) -> Arrays:
    """Rows filled up to the width of others."""
    widths = {name: array.shape[1:] for name, array in second.items()}
    return {
        name: np.pad(
            array,
            [(0, 0), *((0, n - m) for n, m in zip(widths[name], array.shape[1:], strict=True))],
        )
        for name, array in first.items()
    }


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
def test_a_line_that_cannot_be_used_is_named(
    pairs: list[LabelledItem], tmp_path: Path, change: Callable[[str], str], reason: str
) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [labels._into(labels._row(one), "train") for one in lines(pairs[:3])]
    texts = feedback_data.feedback_text(rows).splitlines()
    texts[2] = change(texts[2])
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_data(settings(f"live.feedback={path}"))
    assert str(caught.value).startswith(f"{path}: line 3: ")
    assert reason in str(caught.value)


def _with(text: str, key: str, value: Any) -> str:
    return json.dumps({**json.loads(text), key: value})


# The gate


def scores(mean: float, count: int = 400) -> np.ndarray:
    draw = np.random.default_rng(round(1000 * abs(mean)))
    return mean + 0.1 * draw.standard_normal(count)


def compared(**parts: float) -> gate.Gate:
    """A gate in which the challenger is ahead by so much on each part."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    champion = scores(0.5)
    pairs = {name: (champion, champion + sign * scores(ahead)) for name, ahead in parts.items()}
    everything = pairs.pop("everything")
    return gate.Gate(
        "a", "b", "metric", gate.compare_slices({gate.EVERYTHING: everything, **pairs})
    )


def test_a_better_challenger_passes() -> None:
    found = compared(everything=0.05, some=0.0, others=0.1)
    assert found.passed
    assert found.worse == []


@pytest.mark.parametrize("ahead", [-0.05, 0.0])
def test_a_challenger_that_is_worse_or_no_better_is_refused(ahead: float) -> None:
    found = compared(everything=ahead, some=0.1)
    assert not found.passed
    assert "not better by more than noise" in found.reason


def test_a_challenger_that_loses_on_a_part_is_refused_and_the_part_is_named() -> None:
    found = compared(everything=0.05, some=0.1, others=-0.1)
    assert not found.passed
    assert "worse on: others" in found.reason
    assert found.record()["parts"][2]["finding"] == "worse"


def test_looking_at_many_parts_does_not_refuse_by_chance() -> None:
    """What is called worse when it is looked at alone may be chance when it is one of twelve."""
    sign = 1 if objective.HIGHER_IS_BETTER else -1
    draw = np.random.default_rng(0).permutation(np.linspace(-1, 1, 400))
    error = draw.std() / np.sqrt(len(draw))
    unlucky = np.zeros(len(draw)), sign * (draw - 2.4 * error)
    whole = {gate.EVERYTHING: (np.zeros(40), np.ones(40))}
    others = {str(part): (np.zeros(40), np.zeros(40)) for part in range(11)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "BLOCK_LENGTH", 1)
        assert gate.compare_slices({**whole, "one": unlucky})[1].finding == "worse"
        assert gate.compare_slices({**whole, "one": unlucky, **others})[1].finding != "worse"


def test_parts_that_are_too_small_are_not_looked_at(trained: Path) -> None:
    dataset = data.load(settings().data)
    outputs = gate.read_outputs(next(trained.glob("runs/*")))
    count = len(next(iter(dataset.test.values())))
    pairs = gate.scores_by_slice(outputs, outputs, dataset, count - gate.MIN_EXAMPLES + 1)
    assert gate.PRODUCTION not in pairs
    assert gate.ORIGINAL in pairs
    assert all(part.ahead == 0 for part in gate.compare_slices(pairs))


# The whole way


class Killed(Exception):
    """What stands for the end of the process."""


def die(*_: Any, **__: Any) -> None:
    raise Killed


def asked(*arguments: str) -> int:
    flags = [one for one in arguments if one.startswith("--")]
    return run("retrain", *flags, *OWN, *(one for one in arguments if one not in flags))


def made(folder: Path) -> set[str]:
    """The names of the runs."""
    return {path.parent.name for path in folder.glob("runs/*/run.json")}


def own_registry(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """MLflow keeps a connection for each address: a folder's own must not be another's."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", address(folder))


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def challenged(
    trained: Path, pairs: list[LabelledItem], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder in which a retraining was killed at every step, and was always asked for again.

    In the middle of the training by a real SIGKILL. So that it ends alike for every
    task, the gate sees the challenger better than it is.
    """
    folder = tmp_path_factory.mktemp("challenged") / "work"
    shutil.copytree(trained, folder)
    answer(folder, pairs, "r")
    steps = [
        (tracked_runs, "evaluate"),
        (retrain, "run_gate"),
        (release, "stage_bundle"),
        (deployment_folder, "write_deployment"),
        (plan, "clear_pending"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        own_registry(patch, folder)
        with pytest.MonkeyPatch.context() as deadly:
            deadly.setattr(runs, "create_run", die)
            with pytest.raises(Killed):
                asked("--if-needed")
        killed_in_training(folder)
        real = gate.compare_slices
        patch.setattr(gate, "compare_slices", lambda pairs: favoured(real(pairs), 0.01))
        for module, name in steps:
            with pytest.MonkeyPatch.context() as deadly:
                deadly.setattr(module, name, die)
                with pytest.raises(Killed):
                    asked("--if-needed")
            assert (folder / "runs" / plan.MARKER).exists()
            found = deployment_folder.read_deployment(folder / "deployment")
            assert (found.challenger is not None) == (module is plan)
        assert asked("--if-needed") == 0
    return folder


def killed_in_training(folder: Path) -> None:
    """Start a retraining of its own process, and kill it after its second epoch."""
    command = [sys.executable, "-m", cli.__name__, "retrain", "--if-needed"]
    command += ["--config", str(CONFIG), *OWN, "train.seeds=[0]", "train.epochs=20"]
    path = os.pathsep.join(sys.path)
    pipe = subprocess.PIPE
    before = made(folder)
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=pipe, stderr=pipe
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            found = folder.glob("runs/*/seed-0/history.json")
            new = [path for path in found if path.parents[1].name not in before]
            if new and json.loads(new[0].read_text())["epoch"] >= 2:
                break
            time.sleep(0.01)
        else:
            raise AssertionError(f"no second epoch: {process.communicate()}")
        process.kill()
    assert json.loads(new[0].read_text())["epoch"] < 20, "killed too late"


def favoured(parts: list[gate.SliceComparison], low: float) -> list[gate.SliceComparison]:
    """The parts as they would be if nothing was worse and everything had this lower end."""
    whole, *others = (replace(part, high=max(part.high, 0.0)) for part in parts)
    return [replace(whole, low=low, high=max(whole.high, low)), *others]


@pytest.fixture
def tested(challenged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in."""
    folder = tmp_path / "work"
    shutil.copytree(challenged, folder)
    own_registry(monkeypatch, folder)
    return folder


@pytest.fixture
def idle(work: Path, pairs: list[LabelledItem], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with labels in which nothing was retrained yet."""
    own_registry(monkeypatch, work)
    answer(work, pairs, "r")
    return work


def deployed(folder: Path) -> Deployment:
    return deployment_folder.read_deployment(folder / "deployment")


def challenger_of(folder: Path) -> Challenger:
    found = deployed(folder).challenger
    assert found is not None
    return found


def aliases(folder: Path) -> dict[str, str]:
    """The run that each alias of the registry stands for."""
    client = MlflowClient(address(folder))
    model = client.search_registered_models()[0]
    versions = {
        str(one.version): one.tags["bundle"]
        for one in client.search_model_versions(f"name = '{model.name}'")
    }
    found = client.get_registered_model(model.name).aliases
    return {name: versions[str(version)] for name, version in found.items()}


def test_a_retraining_killed_anywhere_is_finished_by_asking_again(
    trained: Path, tested: Path
) -> None:
    """One decision, one file of labels, one run, one version: nothing was done twice or lost."""
    (new,) = made(tested) - made(trained)
    assert json.loads((tested / "runs" / new / "seed-0/history.json").read_text())["epoch"] > 2
    assert len(list(tested.glob("feedback/*"))) == 1
    assert [line["outcome"] for line in history(tested, "decide")] == ["retrain"]
    found = deployed(tested)
    assert found.champion == deployed(trained).champion
    assert challenger_of(tested).version == new
    assert (challenger_of(tested).mode, challenger_of(tested).share) == ("split", 0.1)
    assert aliases(tested) == {"champion": found.champion.version, "challenger": new}
    assert not (tested / "runs" / plan.MARKER).exists()
    bundle = deployment_folder.bundle_path(tested / "deployment", challenger_of(tested))
    bundles.load_bundle(bundle, challenger_of(tested).manifest_sha256)
    about = json.loads((tested / "runs" / new / "run.json").read_text())
    assert not Path(about["settings"]["live"]["feedback"]).is_absolute()


def test_the_history_says_who_did_what_when_and_why(tested: Path) -> None:
    for action in ("decide", "gate", "challenge"):
        line = history(tested, action)[-1]
        assert line["who"]
        assert datetime.fromisoformat(line["at"]).tzinfo is not None
        assert line["reason"]
    assert history(tested, "decide")[-1]["reason"].startswith("retrain: ")
    compared = history(tested, "gate")[-1]
    assert compared["passed"] is True
    assert compared["low"] == 0.01


def test_both_models_are_measured_on_the_same_data_that_neither_was_trained_on(
    tested: Path, original: Dataset
) -> None:
    wanted = settings()
    champion = runs.open_run(wanted, deployed(tested).champion.version)
    challenger = runs.open_run(wanted, challenger_of(tested).version)
    new = challenger.dataset()
    count = len(next(iter(original.test.values())))
    for name, array in _as_wide(original.test, new.test).items():
        np.testing.assert_array_equal(new.test[name][:count], array)
    learned = content(new.train)
    held_out = content(new.test)
    assert content(_as_wide(champion.dataset().train, new.train)) <= learned
    doubled = content(original.train) & content(original.test)  # in the data as it came
    assert len(learned & held_out) <= len(doubled)
    path = challenger.settings.live.feedback
    assert path is not None
    splits = [row.split for row in feedback_data.read_feedback_rows(path)]
    judged = json.loads((challenger.folder / "gate.json").read_text())
    assert {part["name"] for part in judged["parts"]} > {gate.EVERYTHING}
    assert len(next(iter(new.test.values()))) == count + splits.count("test")


def test_while_a_challenger_is_tested_nothing_is_retrained(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = made(tested)
    assert asked() == 0
    assert "a test is running: " in capsys.readouterr().out
    assert made(tested) == before


def test_of_two_at_once_the_second_leaves(idle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = made(idle)
    with FileLock(idle / "runs" / retrain.LOCK_FILE):
        assert asked() == 0
    assert "another retrain is at work" in capsys.readouterr().out
    assert made(idle) == before
    assert history(idle, "decide") == []


def test_when_nothing_is_due_nothing_happens_and_the_record_says_so(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = made(work)
    assert asked("--if-needed") == 0
    assert "not needed: no reason was found" in capsys.readouterr().out
    assert [line["outcome"] for line in history(work, "decide")] == ["not needed"]
    assert made(work) == before


def test_drift_waits_for_labels_to_learn_from(
    idle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked("--if-needed", "retrain.least_labels=5000", "retrain.new_labels=20") == 0
    assert "waits for labels" in capsys.readouterr().out


def test_a_refused_challenger_changes_nothing_and_its_labels_are_no_reason_again(
    idle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (idle / "deployment/deployment.json").read_bytes()
    real = gate.compare_slices
    monkeypatch.setattr(gate, "compare_slices", lambda pairs: favoured(real(pairs), -0.01))
    assert asked("--if-needed", "train.seeds=[0]", "train.epochs=1") == 0
    assert "refused, the champion stays: not better by more than noise" in capsys.readouterr().out
    assert (idle / "deployment/deployment.json").read_bytes() == before
    assert list(aliases(idle)) == ["champion"]
    assert history(idle, "gate")[-1]["passed"] is False
    runs_before = made(idle)
    assert asked("--if-needed") == 0
    assert history(idle, "decide")[-1]["outcome"] != "retrain"
    assert made(idle) == runs_before


def test_a_plan_whose_data_was_never_written_is_forgotten(work: Path) -> None:
    wanted = settings()
    plan.write_pending(
        wanted, plan.PendingRetrain(run="r", feedback=work / "none.jsonl", reason="drift")
    )
    assert plan.read_pending(wanted) is None
    path = work / "runs" / plan.MARKER
    path.write_text("{}")
    with pytest.raises(UserError, match="is no plan of a retraining, remove it"):
        plan.read_pending(wanted)


def test_a_run_that_cannot_go_on_since_its_data_changed_is_started_anew(work: Path) -> None:
    wanted, old = settings(), deployed(work).champion.version
    about = json.loads((work / "runs" / old / "run.json").read_text())
    about["data"]["fingerprint"] = "of other data"
    (work / "runs" / old / "run.json").write_text(json.dumps(about))
    unfinished = plan.PendingRetrain(run=old, feedback=None, reason="drift")
    told: list[str] = []
    new, _ = retrain._open(wanted, unfinished, told.append)
    assert made(work) == {old, new.name}
    assert "the data has changed" in told[0]
    found = plan.read_pending(wanted)
    assert found is not None
    assert (found.run, found.reason) == (new.name, "drift")


def test_a_model_of_another_name_or_contract_is_not_compared(
    idle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked("name=another") == 2
    assert "give its --config" in capsys.readouterr().err
    bundle = bundles.load_bundle(*deployment_folder.champion_path(idle / "deployment"))
    name = next(iter(type(bundle.contract).model_fields))
    changed = bundle.contract.model_copy(update={name: None})
    with pytest.raises(Exception, match=f"{name}: today's data and settings differ in this"):
        gate.check_comparable(replace(bundle, contract=changed), bundle.contract)


# Ends of a test


def test_nothing_is_promoted_without_a_verdict(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tested / "deployment/deployment.json").read_bytes()
    assert run("promote") == 1
    assert "not promoted, the test says keep going: at least" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before
    assert history(tested, "promote") == []
    assert aliases(tested)["champion"] == deployed(tested).champion.version


def test_a_promotion_moves_aliases_and_deployment_and_rollback_returns(tested: Path) -> None:
    old, new = deployed(tested).champion, challenger_of(tested).version
    assert run("promote", "--force", "--reason", "for the demo") == 0
    assert deployed(tested).champion.version == new
    assert deployed(tested).challenger is None
    assert deployed(tested).previous == [old]
    assert aliases(tested) == {"champion": new}
    line = history(tested, "promote")[-1]
    assert (line["reason"], line["forced"], line["before"]) == ("for the demo", True, old.version)
    assert line["verdict"]["decision"] == "keep going"
    assert run("promote", "--force") == 1  # nothing is left to promote

    assert run("rollback", "--reason", "errors") == 0
    assert deployed(tested).champion == old
    assert aliases(tested) == {"champion": old.version}
    line = history(tested, "rollback")[-1]
    assert (line["reason"], line["left"], line["version"]) == ("errors", new, old.version)


def test_a_verdict_that_says_promote_is_enough(
    tested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = promote.measure_ab_test

    def agreed(*arguments: Any) -> Any:
        arms, verdict = real(*arguments)
        return arms, replace(verdict, decision="promote", reason="the challenger is better")

    monkeypatch.setattr(promote, "measure_ab_test", agreed)
    new = challenger_of(tested).version
    assert run("promote") == 0
    assert deployed(tested).champion.version == new
    assert history(tested, "promote")[-1]["verdict"]["reason"] == "the challenger is better"


def test_a_promotion_that_was_interrupted_is_finished_by_asking_again(
    tested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = challenger_of(tested).version
    with monkeypatch.context() as deadly:
        deadly.setattr(deployment_folder, "write_deployment", die)
        with pytest.raises(Killed):
            run("promote", "--force")
    assert deployed(tested).champion.version != new
    assert run("promote", "--force") == 0
    assert deployed(tested).champion.version == new
    assert aliases(tested) == {"champion": new}


@pytest.mark.parametrize("verb", ["promote", "rollback"])
def test_a_damaged_bundle_is_never_put_in_force(
    tested: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb == "rollback":
        assert run("promote", "--force") == 0
        target = deployed(tested).previous[0]
    else:
        target = challenger_of(tested)
    model = deployment_folder.bundle_path(tested / "deployment", target) / "model.onnx"
    model.write_bytes(b"damaged")
    before = (tested / "deployment/deployment.json").read_bytes()
    assert run(verb, *(["--force"] if verb == "promote" else [])) == 1
    assert "model.onnx: its content has changed" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before


def test_rollback_takes_the_challenger_out_while_mlflow_is_down(
    tested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    champion = deployed(tested).champion
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    assert run("rollback") == 0
    assert time.monotonic() - started < 20
    assert (deployed(tested).champion, deployed(tested).challenger) == (champion, None)
    assert "warning: MLflow's aliases were not moved: " in capsys.readouterr().err
    assert history(tested, "rollback")[-1]["aliases"].startswith("not moved: ")
    assert "challenger" in aliases(tested)


def test_a_promotion_needs_mlflow_and_changes_nothing_without(
    tested: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (tested / "deployment/deployment.json").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run("promote", "--force") == 1
    assert "does not answer" in capsys.readouterr().err
    assert (tested / "deployment/deployment.json").read_bytes() == before


def test_there_may_be_nothing_to_return_to(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (work / "deployment/deployment.json").read_bytes()
    assert run("rollback") == 1
    assert "there is no champion before this one" in capsys.readouterr().err
    assert run("promote") == 1
    assert "there is no challenger to promote" in capsys.readouterr().err
    assert (work / "deployment/deployment.json").read_bytes() == before


def test_traffic_is_set_at_run_time_and_begins_a_new_test(tested: Path) -> None:
    folder = tested / "deployment"
    before = deployed(tested)
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    past = challenger_of(tested).model_copy(update={"since": earlier})
    deployment_folder.write_deployment(folder, before.model_copy(update={"challenger": past}))
    changed = promote.set_traffic(folder, "more of it", share=0.5, mode="shadow")
    assert challenger_of(tested) == changed
    assert (changed.share, changed.mode, changed.version) == (0.5, "shadow", past.version)
    assert changed.since > earlier
    assert history(tested, "traffic")[-1]["reason"] == "more of it"
