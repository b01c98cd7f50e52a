"""The connection to the prediction log: SQLite or PostgreSQL, by one URL."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from ..config import UserError, WorkError
from .migrations import HEAD, MIGRATIONS
from .tables import metadata

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
EXAMPLES = "sqlite:///predictions.db or postgresql://user:password@host/name"
TIMEOUT_SECONDS = 5  # seconds that a connection, or a lock of SQLite, is waited for
STATEMENT_SECONDS = 20  # seconds that PostgreSQL may work on one statement
MIGRATING = threading.Lock()  # Alembic keeps what it works on in globals
MIGRATION_LOCK = 7_305_102_481  # any number, of the advisory lock that PostgreSQL's migrations take


class DatabaseError(WorkError):
    """The database does not do it now: one line, without the password."""


class RowsRejected(DatabaseError):
    """The database works but does not take these values; asking again changes nothing."""


class Database:
    """A prediction log. Nothing is opened before it is needed; threads may share it."""

    def __init__(self, url: str) -> None:
        """Take the URL apart; UserError when it is none or of another database."""
        self.url = _parse(url)

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
        """SQLAlchemy's engine; use `reading` and `writing`, which tell what goes wrong."""
        return _sqlite(self.url) if self.dialect == "sqlite" else _postgresql(self.url)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads; DatabaseError when it cannot be done."""
        with self._errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end; DatabaseError when it cannot be done."""
        with self._errors(), self.engine.connect() as connection:
            # SQLite refuses to write in a transaction that began by reading while others wrote.
            connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    def migrate(self) -> None:
        """Bring the tables to what this program knows; several may do this at once."""
        with self.reading() as connection:
            if _revision(connection) == HEAD:
                return
        from alembic import command  # here, as most starts find the tables in order
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with MIGRATING, self.writing() as connection:
            if self.dialect == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
                )
            config.attributes.update(connection=connection, metadata=metadata)
            try:
                command.upgrade(config, "head")
            except CommandError:
                found = _revision(connection)
                raise DatabaseError(
                    f"{self.name}: its tables are of revision {found}, this program knows them up "
                    f"to {HEAD}: a newer program has changed them, use that one"
                ) from None

    def close(self) -> None:
        """Close the connections; using it again opens new ones."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError, UnicodeEncodeError) as error:
            raise RowsRejected(self._line(error)) from None
        except (SQLAlchemyError, OSError) as error:
            raise DatabaseError(self._line(error)) from None

    def _line(self, error: Exception) -> str:
        """What went wrong, without the statement and its values, which are the callers' data."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, OSError) and cause.strerror:
            cause = f"{cause.filename}: {cause.strerror}"
        line = f"{self.name}: {' '.join(str(cause).split())}"
        password = str(self.url.password or "")
        return line.replace(password, "***") if password else line


def _parse(url: str) -> URL:
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # the text may hold a password: it is not shown
        raise UserError(f"the prediction log's address is no URL; use {EXAMPLES}") from None
    shown = found.render_as_string(hide_password=True)
    if found.drivername not in DRIVERS:
        raise UserError(f"{shown}: only SQLite and PostgreSQL will do; use {EXAMPLES}")
    if found.get_backend_name() == "sqlite" and found.database in (None, "", ":memory:"):
        raise UserError(f"{shown}: names no file; use {EXAMPLES}")
    return found.set(drivername=DRIVERS[found.drivername])


def _postgresql(url: URL) -> Engine:
    arguments = {
        "connect_timeout": TIMEOUT_SECONDS,
        # of a machine that went away without a word
        "tcp_user_timeout": TIMEOUT_SECONDS * 1000,
        "keepalives_idle": TIMEOUT_SECONDS,
        "keepalives_interval": 1,
        "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000}",
    }
    given = {name: value for name, value in arguments.items() if name not in url.query}
    return create_engine(url, connect_args=given, pool_pre_ping=True, pool_timeout=TIMEOUT_SECONDS)


def _sqlite(url: URL) -> Engine:
    Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
    arguments = {"timeout": TIMEOUT_SECONDS}
    engine = create_engine(
        url, connect_args=arguments, pool_pre_ping=True, pool_timeout=TIMEOUT_SECONDS
    )

    def on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not where sqlite3 thinks
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=NORMAL")

    def on_begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _write_ahead(connection: Any) -> None:
    """Readers and a writer do not wait for each other. SQLite does not wait by itself for the lock
    that this change takes on a fresh file."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _revision(connection: Connection) -> str | None:
    """Of the tables that are there, None when there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
