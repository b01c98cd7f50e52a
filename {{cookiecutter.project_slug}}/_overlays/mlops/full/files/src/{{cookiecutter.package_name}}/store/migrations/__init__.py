"""Migrations of the tables, by Alembic. A new file in `versions/` also changes `HEAD`."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent
HEAD = "0001"  # here, so that an up-to-date database needs no import of Alembic
