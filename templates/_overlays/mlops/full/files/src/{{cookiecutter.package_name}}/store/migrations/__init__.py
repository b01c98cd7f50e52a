"""Migrations of the tables, by Alembic. A new file in `versions/` also changes `HEAD`."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent
VERSION_TABLE = "prediction_log_version"  # not Alembic's default: another program may use that
HEAD = "0003"  # here, so that an up-to-date database needs no import of Alembic
