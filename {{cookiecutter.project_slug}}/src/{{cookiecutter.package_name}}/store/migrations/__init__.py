"""How the tables come to be and change. A new file in `versions/` also changes `HEAD`."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent
HEAD = "0001"  # known without Alembic: a database that is up to date needs no import of it
