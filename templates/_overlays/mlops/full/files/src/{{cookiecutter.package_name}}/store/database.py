"""Connect to the prediction log: SQLite or PostgreSQL, by URL."""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from ..config import UserError, WorkError
from . import NO_DRIVER, has_driver
from .migrations import HEAD, MIGRATIONS, VERSION_TABLE
from .tables import metadata, predictions

DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
EXAMPLES = "sqlite:///predictions.db or postgresql://user:password@host/name"
CONNECT_SECONDS = 5  # to connect, or to get a lock of SQLite
STATEMENT_SECONDS = 20  # for one statement of PostgreSQL
FIRST = "0001"  # the first revision, and columns by which its table is recognised
COLUMNS_0001 = ("request_id", "model_version", "variant", "outcomes", "output")
MIGRATING = threading.Lock()  # Alembic keeps its state in globals
MIGRATION_LOCK = 7_305_102_481  # an arbitrary key, of PostgreSQL's advisory lock around migrations


class DatabaseError(WorkError):
    """The database failed; the message is one line without the password."""


class RowsRejected(DatabaseError):
    """The database works but rejects these values; retrying does not help."""


class Database:
    """A prediction log, shared by threads; it connects when it is first used."""

    def __init__(self, url: str) -> None:
        """Parse the URL; UserError for another kind of database, or without its driver."""
        try:
            self.url = make_url(url)
        except (ArgumentError, ValueError):  # not quoted in the message: it may hold a password
            raise UserError(f"the prediction log's address is not a URL; use {EXAMPLES}") from None
        driver = DRIVERS.get(self.dialect)
        if driver is None or self.url.drivername not in (self.dialect, driver):
            raise UserError(
                f"{self.name}: only SQLite and PostgreSQL are supported; use {EXAMPLES}"
            )
        if self.dialect == "sqlite" and self.url.database in (None, "", ":memory:"):
            raise UserError(f"{self.name}: names no file; use {EXAMPLES}")
        if not has_driver(self.dialect):
            raise UserError(f"{self.name}: {NO_DRIVER}")
        self.url = self.url.set(drivername=driver)

    @property
    def name(self) -> str:
        """The URL without the password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    @cached_property
    def engine(self) -> Engine:
        """SQLAlchemy's engine; prefer `reading` and `writing`, which translate its errors."""
        arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS}
        if self.dialect == "sqlite":
            Path(self.url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        else:
            arguments = {
                "connect_timeout": CONNECT_SECONDS,
                # so that a host that vanished silently is noticed
                "tcp_user_timeout": CONNECT_SECONDS * 1000,
                "keepalives_idle": CONNECT_SECONDS,
                "keepalives_interval": 1,
                "prepare_threshold": None,  # prepared statements outlive PgBouncer's transactions
            }
            arguments = {key: arguments[key] for key in arguments.keys() - self.url.query.keys()}
        engine = create_engine(
            self.url, connect_args=arguments, pool_pre_ping=True, pool_timeout=CONNECT_SECONDS
        )
        if self.dialect == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "begin", _limit_statements)
        return engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that only reads; DatabaseError when it fails."""
        with self._errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction and commit it at the end; DatabaseError when it fails."""
        with self._errors(), self.engine.connect() as connection:
            # SQLite refuses writes in a transaction that began with a read while others wrote.
            connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    def migrate(self) -> None:
        """Create or upgrade the tables; safe to run from several processes at once.

        Tables of a newer program stay as they are: DatabaseError if something is missing in them.
        """
        with self.reading() as connection:
            found = _revision(connection)
            if found is not None and found >= HEAD:
                self._check_tables(connection, found)
                return
        from alembic import command  # late, as the tables are usually up to date
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with MIGRATING, self.writing() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            attributes = {"metadata": metadata, "version_table": VERSION_TABLE}
            config.attributes.update(connection=connection, **attributes)
            tables = inspect(connection)
            if tables.has_table("predictions") and not tables.has_table(VERSION_TABLE):
                # From before the log had a version table of its own; or another program's
                self._check_tables(connection, FIRST, COLUMNS_0001)
                command.stamp(config, FIRST)
            command.upgrade(config, "head")

    def _check_tables(
        self,
        connection: Connection,
        revision: str,
        columns: Collection[str] = predictions.columns.keys(),
    ) -> None:
        """Raise DatabaseError if the table of predictions lacks one of these columns."""
        present = {column["name"] for column in inspect(connection).get_columns("predictions")}
        if missing := [name for name in columns if name not in present]:
            raise DatabaseError(
                f"{self.name}: the table predictions (revision {revision}) lacks "
                f"{', '.join(missing)}: it is another program's or too new for this one"
            )

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors, without the statement: its values are callers' data."""
        try:
            yield
        except (SQLAlchemyError, OSError, UnicodeEncodeError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, OSError) and cause.strerror:
                cause = f"{cause.filename}: {cause.strerror}"
            line = f"{self.name}: {' '.join(str(cause).split())}"
            if self.url.password:
                line = line.replace(str(self.url.password), "***")
            rejected = isinstance(error, (DataError, IntegrityError, UnicodeEncodeError))
            raise (RowsRejected if rejected else DatabaseError)(line) from None


@contextmanager
def open_log(url: str) -> Iterator[Database]:
    """Open a prediction log, bring its tables up to date, and close it at the end."""
    with closing(Database(url)) as database:
        database.migrate()
        yield database


def _configure_sqlite(connection: Any, _: Any) -> None:
    """Turn on write-ahead logging, with which readers and a writer do not block each other."""
    connection.isolation_level = None  # transactions begin below, not where sqlite3 would
    # SQLite's timeout does not cover the lock that this takes on a new file: retry.
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _limit_statements(connection: Connection) -> None:
    # In the transaction: PgBouncer refuses it as a parameter of the connection.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}")


def _revision(connection: Connection) -> str | None:
    """Return the revision of the tables, None without tables."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608  # nosec B608: a constant
    return connection.execute(text(query)).scalar()
