"""The prediction log: requests, predictions and the ground truth of their feedback."""

from importlib.util import find_spec

NO_DRIVER = (
    'PostgreSQL needs the extra "postgresql": pip install "psycopg[binary]"; '
    "an image is built with --build-arg EXTRAS=postgresql"
)


def has_driver(url: str) -> bool:
    """Return whether what this URL needs is installed: psycopg for PostgreSQL."""
    return not url.startswith("postgresql") or find_spec("psycopg") is not None
