"""The prediction log on both databases: rows are written once, whole, and never lost silently."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from sqlalchemy import event, func, select, text

from {{ cookiecutter.package_name }}.bundle import deployment as deployment_folder
from {{ cookiecutter.package_name }}.bundle.load import Bundle, load_bundle
from {{ cookiecutter.package_name }}.config import UserError, load_settings
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings
from {{ cookiecutter.package_name }}.store import database as databases
from {{ cookiecutter.package_name }}.store import queries, tables
from {{ cookiecutter.package_name }}.store.database import Database, DatabaseError, RowsRejected
from {{ cookiecutter.package_name }}.store.feedback import (
    InvalidGroundTruth,
    UnknownRequest,
    record_feedback,
)
from {{ cookiecutter.package_name }}.store.feedback_schema import Feedback
from {{ cookiecutter.package_name }}.store.migrations import HEAD, MIGRATIONS, VERSION_TABLE
from {{ cookiecutter.package_name }}.store.write import (
    INSERT_ROWS,
    PredictionRow,
    Pruned,
    insert_predictions,
    prune_log,
)
from {{ cookiecutter.package_name }}.task.contract import GroundTruth, Item

from .quick import BAD_GROUND_TRUTHS, ground_truths
from .test_operations import services

RACERS = 4
RACE = """
import sys, time
from pathlib import Path
import alembic.command
from {{ cookiecutter.package_name }}.store.database import Database
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
Database(sys.argv[1]).migrate()
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server; without one its tests are skipped and say how to get it."""
    try:
        server = services.Postgres()
    except services.Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def fresh(postgres: Any) -> str:
    """The URL of an empty database of that server."""
    name = f"test_{time.monotonic_ns()}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return postgres.url.removesuffix("postgres") + name


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("fresh")
    return f"sqlite:///{tmp_path / 'log' / 'predictions.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    database.migrate()
    yield database
    database.close()


class Answers(NamedTuple):
    """The deployed bundle's prediction for its example, and a worse one for the same item."""

    bundle: Bundle
    item: dict[str, Any]
    features: dict[str, Any]
    outcomes: dict[str, Any]
    good: dict[str, Any]
    bad: dict[str, Any]

    @property
    def truth(self) -> GroundTruth:
        """The ground truth by which the good answer is right."""
        return GroundTruth.model_validate(ground_truths(self.good)[0])

    def row(
        self, request_id: str, items: int = 1, good: bool = True, **changes: Any
    ) -> PredictionRow:
        """A row of the log as the server writes it."""
        names = ("features", "outcomes")
        values = {name: {k: v * items for k, v in getattr(self, name).items()} for name in names}
        row = PredictionRow(
            request_id=request_id,
            at=1000.0,
            model_version=self.bundle.version,
            variant="champion",
            test=None,
            unit="00000000000000ff",
            items=items,
            milliseconds=1.5,
            output=json.dumps([self.good if good else self.bad] * items),
            input=json.dumps([self.item] * items),
            **{name: json.dumps(columns) for name, columns in values.items()},
        )
        return row._replace(**changes)


@pytest.fixture
def answers(deployment: Path) -> Answers:
    folder, digest = deployment_folder.champion_path(deployment)
    bundle = load_bundle(folder, digest)
    item = json.loads((folder / "example.json").read_text(encoding="utf-8"))["items"][0]
    items = [Item.model_validate(item)]
    inputs = bundle.contract.encode(items)
    outputs = bundle.run(inputs)
    opposite = {name: -values for name, values in outputs.items()}
    good, bad = (bundle.contract.decode(some, items)[0] for some in (outputs, opposite))
    features, outcomes = bundle.contract.features(inputs), bundle.contract.prediction_stats(outputs)
    return Answers(
        bundle,
        item,
        {name: values.tolist() for name, values in features.items()},
        {name: values.tolist() for name, values in outcomes.items()},
        good.model_dump(),
        bad.model_dump(),
    )


def plain(number: int, **changes: Any) -> PredictionRow:
    """A row whose contents do not matter."""
    texts = {"features": "{}", "outcomes": "{}", "output": "[]", "input": "[]"}
    name, at = f"r{number}", float(number)
    return PredictionRow(name, at, "v1", "champion", None, "ff", 1, 1.0, **texts)._replace(
        **changes
    )


def count(database: Database, table: Any) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_migrations_create_exactly_the_tables(database: Database) -> None:
    with database.reading() as connection:
        options = {"version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == HEAD
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_several_processes_may_migrate_a_new_database_at_once(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = [sys.executable, "-c", RACE, url, str(gate)]
    racers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(RACERS)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    gate.touch()
    for racer in racers:
        assert racer.communicate(timeout=600)[1] == ""
        assert racer.returncode == 0
    with closing(Database(url)) as database:
        assert insert_predictions(database, [plain(1)]) == 1


def test_up_to_date_database_needs_no_import_of_alembic(database: Database, url: str) -> None:
    script = (
        f"import sys; from {databases.__name__} import Database; "
        "Database(sys.argv[1]).migrate(); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", script, url]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False\n"


def test_program_goes_on_writing_beside_a_newer_schema(database: Database) -> None:
    """Newer migrations only add: expand now, contract when no old program is left."""
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE predictions ADD COLUMN weight FLOAT"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    database.migrate()
    assert insert_predictions(database, [plain(1)]) == 1


def test_newer_schema_that_lacks_a_column_is_refused(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("ALTER TABLE predictions RENAME COLUMN unit TO group_"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"revision 9999.*lacks unit"):
        database.migrate()


def test_log_from_before_callers_were_kept_is_upgraded(url: str) -> None:
    with closing(Database(url)) as old:
        upgrade_to(old, "0001", "alembic_version")
        columns = ", ".join(name for name in PredictionRow._fields[:12])
        values = ", ".join(f":{name}" for name in PredictionRow._fields[:12])
        with old.writing() as connection:
            statement = text(f"INSERT INTO predictions ({columns}) VALUES ({values})")
            connection.execute(statement, plain(1)._asdict())
    with closing(Database(url)) as new:
        new.migrate()
        assert insert_predictions(new, [plain(2)]) == 1
        assert count(new, tables.predictions) == 2


def test_database_of_another_program_with_alembic_can_be_shared(url: str) -> None:
    with closing(Database(url)) as database:
        with database.writing() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('0001')"))
        database.migrate()
        assert insert_predictions(database, [plain(1)]) == 1
        with database.reading() as connection:
            query = text("SELECT version_num FROM alembic_version")
            assert connection.execute(query).scalars().all() == ["0001"]


def test_table_of_another_program_is_refused(url: str) -> None:
    with closing(Database(url)) as database:
        with database.writing() as connection:
            connection.execute(text("CREATE TABLE predictions (id INTEGER, request_id TEXT)"))
        with pytest.raises(DatabaseError, match="another program's"):
            database.migrate()


def upgrade_to(database: Database, revision: str, version_table: str) -> None:
    """Create the tables of an earlier revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with database.writing() as connection:
        config.attributes.update(
            connection=connection, metadata=tables.metadata, version_table=version_table
        )
        command.upgrade(config, revision)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "none",
        "predictions.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://me:hush@host/log",
        "postgresql+psycopg2://me:hush@host/log",
        "postgresql://me:hush@host:port/log",
    ],
)
def test_unsupported_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(UserError) as raised:
        Database(url)
    assert "sqlite:///" in str(raised.value)
    assert "hush" not in str(raised.value)


def test_without_its_driver_postgresql_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    url = "postgresql://me:hush@host/log"
    with pytest.raises(UserError, match=r'^postgresql://me:\*+@host/log: .*extra "postgresql"'):
        Database(url)
    with pytest.raises(UserError, match=r'database_url: .*extra "postgresql"') as raised:
        load_settings(ServerSettings, None, [f"database_url={url}"])
    assert "hush" not in str(raised.value)
    Database("sqlite:///log.db")


def test_unusable_database_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, but long enough to be looked at" * 100)
    for place in ("file", "file/predictions.db"):
        database = Database(f"sqlite:///{tmp_path / place}")
        with pytest.raises(DatabaseError) as raised, closing(database):
            database.migrate()
        assert str(tmp_path / "file") in str(raised.value)
        assert "\n" not in str(raised.value)


def test_same_rows_are_written_once(database: Database) -> None:
    rows = [plain(number) for number in range(5)]
    assert insert_predictions(database, []) == 0
    assert insert_predictions(database, rows) == 5
    assert insert_predictions(database, [*rows, plain(5)]) == 1
    assert insert_predictions(database, [plain(0, variant="shadow"), plain(0, output="other")]) == 1
    assert count(database, tables.predictions) == 7
    with database.reading() as connection:
        first = connection.execute(
            select(tables.predictions).order_by(tables.predictions.c.id)
        ).first()
    assert first is not None
    assert first[1:] == rows[0]


def test_more_rows_than_one_statement_holds_are_written_and_counted(database: Database) -> None:
    rows = [plain(number) for number in range(2 * INSERT_ROWS + 1)]
    assert insert_predictions(database, [*rows[:INSERT_ROWS], rows[0]]) == INSERT_ROWS
    assert insert_predictions(database, [*rows, *rows]) == INSERT_ROWS + 1
    assert count(database, tables.predictions) == len(rows)


def test_rows_are_written_together_or_not_at_all(database: Database) -> None:
    with pytest.raises(RowsRejected):
        insert_predictions(database, [plain(1), plain(2, unit=None)])
    with pytest.raises(RowsRejected):
        insert_predictions(database, [plain(1), plain(2, output="half a sign: \ud83d")])
    assert count(database, tables.predictions) == 0


def test_database_that_comes_back_is_written_to_again(postgres: Any, fresh: str) -> None:
    database = Database(fresh)
    database.migrate()
    insert_predictions(database, [plain(1)])
    postgres.stop()
    try:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(DatabaseError) as raised:
                insert_predictions(database, [plain(2)])
            assert time.monotonic() - started < 60, "waited for a database that is stopped"
            assert str(postgres.port) in str(raised.value)
            assert services.PASSWORD not in str(raised.value)
            assert "\n" not in str(raised.value)
    finally:
        postgres.start()
    assert insert_predictions(database, [plain(1), plain(2)]) == 1
    database.close()


def test_log_works_behind_pgbouncer_in_transaction_mode(fresh: str, answers: Answers) -> None:
    try:
        services.need("pgbouncer")
    except services.Missing as missing:
        pytest.skip(str(missing))
    with services.pgbouncer(fresh) as pooled, closing(Database(pooled)) as database:
        database.migrate()
        for number in range(12):  # psycopg would prepare a statement that comes five times
            assert insert_predictions(database, [answers.row(f"r{number}")]) == 1
            some = feedbacks(answers, (f"r{number}", 0))
            assert record_feedback(database, some, score(answers)).new == 1
        assert sum(step.rows for step in prune_log(database, 2000.0, 2000.0)) == 12


def test_locked_file_blocks_writers_and_not_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "CONNECT_SECONDS", 0.2)
    first, second = (Database(f"sqlite:///{tmp_path / 'log.db'}") for _ in range(2))
    first.migrate()
    insert_predictions(second, [plain(1)])
    with first.writing():
        assert count(second, tables.predictions) == 1  # readers do not wait
        with pytest.raises(DatabaseError, match="locked"):
            insert_predictions(second, [plain(2)])
    assert insert_predictions(second, [plain(2)]) == 1
    first.close()
    second.close()


def test_pruning_deletes_old_rows_and_keeps_labelled_inputs(
    database: Database, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[insert_predictions.__module__], "PRUNE_ROWS", (3, 3))
    rows = [answers.row(f"r{number}", at=float(number)) for number in range(20)]
    insert_predictions(database, [*rows, answers.row("r0", variant="shadow", at=15.0)])
    record_feedback(database, feedbacks(answers, ("r0", 0), ("r1", 0), ("r12", 0)), score(answers))

    assert pruned(database, 10.0, 15.0) == Pruned(rows=10, inputs=4)

    with database.reading() as connection:
        columns = tables.predictions.c
        left = connection.execute(
            select(columns.request_id, columns.input.is_not(None)).order_by(columns.at, columns.id)
        ).all()
        truths_left = connection.scalars(
            select(tables.feedback.c.request_id).order_by(tables.feedback.c.request_id)
        ).all()
    kept = {"r12", "r15", "r16", "r17", "r18", "r19", "r0"}
    assert [tuple(row) for row in left if row[0] != "r0"] == [
        (f"r{number}", f"r{number}" in kept) for number in range(10, 20)
    ]
    assert truths_left == ["r0", "r12"]  # of r0 the shadow's row is still there
    assert pruned(database, 10.0, 15.0) == Pruned(0, 0)


def test_pruning_takes_fewer_rows_at_a_time_where_they_take_long_and_looks_at_none_twice(
    database: Database, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[insert_predictions.__module__]
    monkeypatch.setattr(module, "PRUNE_ROWS", (1, 8))
    monkeypatch.setattr(module, "PRUNE_SECONDS", 1e-9)
    insert_predictions(database, [answers.row(f"r{n}", at=float(n)) for n in range(30)])
    steps = list(prune_log(database, 20.0, 30.0, inputs_after=25.0))
    assert [step.rows for step in steps if step.rows] == [8, 4, 2, *[1] * 6]
    assert sum(step.inputs for step in steps) == 5
    monkeypatch.setattr(module, "PRUNE_SECONDS", 60.0)
    steps = list(prune_log(database, 30.0, 30.0))
    assert [step.rows for step in steps] == [8, 2]


def pruned(database: Database, before: float, inputs_before: float) -> Pruned:
    """Prune to the end; no step touches more rows than it may."""
    steps = list(prune_log(database, before, inputs_before))
    assert all(max(step) <= 3 for step in steps)
    return Pruned(sum(step.rows for step in steps), sum(step.inputs for step in steps))


def score(answers: Answers) -> Callable[[Any, Any], float]:
    return answers.bundle.contract.score_json


def feedbacks(answers: Answers, *keys: tuple[str, int]) -> list[Feedback]:
    return [Feedback(request_id=name, item=item, truth=answers.truth) for name, item in keys]


def test_repeated_feedback_changes_nothing(database: Database, answers: Answers) -> None:
    shadow = answers.row("b", variant="shadow", model_version="v2")
    insert_predictions(database, [answers.row("a", items=3), answers.row("b"), shadow])
    some = feedbacks(answers, ("a", 0), ("a", 2), ("b", 0))
    first = record_feedback(database, some, score(answers))
    assert first[:3] == (3, 0, 0)
    assert first.by_model == {(answers.bundle.version, "champion"): 3, ("v2", "shadow"): 1}
    assert record_feedback(database, some, score(answers)) == (0, 0, 3, {})
    other = GroundTruth.model_validate(ground_truths(answers.good)[1])
    more = [*some[:2], Feedback(request_id="b", truth=other), *feedbacks(answers, ("a", 1))]
    assert record_feedback(database, more, score(answers))[:3] == (1, 1, 2)
    assert record_feedback(database, [more[2], some[2]], score(answers))[:3] == (0, 1, 1)
    examples = {row.key: row.truth for row in queries.read_labelled(database)}
    last_word = answers.truth.model_dump(mode="json")
    assert examples == dict.fromkeys([("a", 0), ("a", 1), ("a", 2), ("b", 0)], last_word)


def test_unknown_requests_and_items_are_named_and_nothing_is_written(
    database: Database, answers: Answers
) -> None:
    insert_predictions(database, [answers.row("a", items=2)])
    some = feedbacks(answers, ("a", 0), ("a", 2), ("nobody", 0), *((f"x{n}", 0) for n in range(6)))
    with pytest.raises(UnknownRequest) as raised:
        record_feedback(database, some, score(answers))
    message = str(raised.value)
    assert "'a' had 2 items, there is no item 2" in message
    assert "'nobody'" in message
    assert message.endswith("and 3 more")
    assert raised.value.index == 1
    assert count(database, tables.feedback) == 0


def test_one_invalid_ground_truth_refuses_all(database: Database, answers: Answers) -> None:
    insert_predictions(database, [answers.row("a"), answers.row("b")])

    def refuse(_prediction: object, truth: GroundTruth) -> float:
        raise ValueError(f"never\nthat {type(truth).__name__}")

    def only_second(prediction: Any, truth: Any) -> float:
        return score(answers)(prediction, truth) if truth is some[0].truth else refuse(0, truth)

    some = feedbacks(answers, ("a", 0), ("b", 0))
    with pytest.raises(InvalidGroundTruth, match="never that GroundTruth") as raised:
        record_feedback(database, some, only_second)
    assert raised.value.index == 1
    assert count(database, tables.feedback) == 0


def record_one(database: Database, content: dict[str, Any], answers: Answers) -> None:
    record_feedback(database, [Feedback[GroundTruth].model_validate(content)], score(answers))


@pytest.mark.parametrize(("truth", "word"), BAD_GROUND_TRUTHS)
def test_invalid_ground_truths_of_this_task_are_named(
    answers: Answers, tmp_path: Path, truth: dict[str, Any], word: str
) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'log.db'}")) as database:
        database.migrate()
        insert_predictions(database, [answers.row("a")])
        with pytest.raises((ValidationError, InvalidGroundTruth), match=re.escape(word)):
            record_one(database, {"request_id": "a", "truth": truth}, answers)


def test_number_of_statements_does_not_grow_with_the_feedback(
    database: Database, answers: Answers
) -> None:
    insert_predictions(database, [answers.row(f"r{number}") for number in range(300)])
    statements = []

    def seen(*details: Any) -> None:
        statements.append(details[2])

    event.listen(database.engine, "before_cursor_execute", seen)
    for first, last in ((0, 1), (1, 300)):
        statements.clear()
        keys = [(f"r{number}", 0) for number in range(first, last)]
        assert (
            record_feedback(database, feedbacks(answers, *keys), score(answers)).new == last - first
        )
        assert len([one for one in statements if not one.startswith(("BEGIN", "SET LOCAL"))]) == 3


def numbered(number: int, items: int = 1, **changes: Any) -> PredictionRow:
    """A row whose feature and prediction statistic tell which it is."""
    features = {"size": [number + item / 10 for item in range(items)]}
    outcomes = {"label": [f"{number}.{item}" for item in range(items)]}
    return plain(number, items=items)._replace(
        features=json.dumps(features), outcomes=json.dumps(outcomes), **changes
    )


def test_windows_hold_the_newest_items_in_the_order_of_time(database: Database) -> None:
    rows = [numbered(number, items=2) for number in range(5)]
    insert_predictions(database, rows[::-1])
    assert queries.read_window(database, 10)[2] == 10
    window = queries.read_window(database, 5)
    assert window.rows == 5
    assert window.features["size"].tolist() == [2.1, 3.0, 3.1, 4.0, 4.1]
    assert window.prediction_stats["label"].tolist() == ["2.1", "3.0", "3.1", "4.0", "4.1"]
    challenger = numbered(8, variant="challenger")
    insert_predictions(
        database, [numbered(7, variant="shadow"), challenger, numbered(9, model_version="v2")]
    )

    def sizes(rows: int = 9, **choice: Any) -> Sequence[float]:
        return queries.read_window(database, rows, **choice).features["size"].tolist()

    assert sizes(3) == [4.1, 8, 9]
    assert sizes(variants=["shadow"]) == [7]
    assert sizes(version="v2") == [9]
    empty = queries.read_window(database, 9, version="v3")
    assert empty == ({}, {}, 0)


def test_labelled_items_are_read_in_the_order_of_time(database: Database, answers: Answers) -> None:
    insert_predictions(
        database,
        [
            answers.row("late", items=2, at=30.0, unit="a"),
            answers.row("early", at=10.0, unit="b", good=False),
            answers.row("early", at=11.0, variant="shadow"),
            answers.row("bare", at=20.0, input=None),
            answers.row("unlabelled", at=5.0),
        ],
    )
    record_feedback(database, feedbacks(answers, ("late", 1), ("early", 0)), score(answers))
    record_feedback(database, feedbacks(answers, ("bare", 0), ("late", 0)), score(answers))

    known = queries.read_labelled(database)
    order = [("early", 0, 10.0), ("late", 0, 30.0), ("late", 1, 30.0)]
    assert [(*row.key, row.at) for row in known] == order
    for row in known:
        assert row.item == answers.item
        assert GroundTruth.model_validate(row.truth) == answers.truth

    contract = answers.bundle.contract
    scored = sorted(queries.read_scored(database, contract), key=lambda row: (row.at, row.item))
    assert [(row.request_id, row.item, row.variant) for row in scored] == [
        ("early", 0, "champion"),
        ("early", 0, "shadow"),
        ("bare", 0, "champion"),
        ("late", 0, "champion"),
        ("late", 1, "champion"),
    ]
    best = scored[1].score
    assert scored[0].score != best
    assert {row.score for row in scored[1:]} == {best}
    newest = queries.read_scored(database, contract, rows=2)
    assert {row.request_id for row in newest} == {"bare", "late"}


def test_traffic_is_summed_by_variant(database: Database) -> None:
    rows = [
        plain(number, test="t", milliseconds=float(number), unit=f"{number % 7}", items=2)
        for number in range(1, 101)
    ]
    alone = plain(200, test="t", variant="challenger", milliseconds=5.0)
    insert_predictions(database, [*rows, alone, plain(300), plain(400, test="u")])
    assert queries.read_traffic(database, "t") == [
        ("challenger", 1, 1, 1, 5.0, 5.0),
        ("champion", 100, 200, 7, 51.0, 99.0),
    ]
    assert queries.read_traffic(database, "v") == []
