"""What the server does beside predictions: the prediction log, feedback, drift and quality.

Imports what is heavy when a server is created: `serve --help` reads the settings here.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import ValidationInfo, field_validator

from ..settings import DEFAULT_DATABASE, setting
from ..store import NO_DRIVER, has_driver
from .logs import logger
from .settings import CoreServerSettings, Keys, refuse_known_secrets

if TYPE_CHECKING:
    from .metrics import ServerMetrics
    from .models import ModelManager
    from .predict import PredictionObserver

# Files that the collector leaves in the spool's folder
COLLECTOR_METRICS = "collector.prom"
COLLECTOR_STATUS = "collector.json"
ON_WINDOWS = "the prediction log needs Linux or macOS: run the server in WSL or a container"


class ServerSettings(CoreServerSettings):
    """Settings of the server, with those of the prediction log and monitoring."""

    database_url: str = setting(
        "none" if sys.platform == "win32" else DEFAULT_DATABASE,
        "prediction log: sqlite:///FILE or postgresql://…; none: no log",
    )
    spool_dir: Path | None = setting(
        None, "where predictions wait for the database; default: beside SQLite's file, or ./spool"
    )
    feedback: bool = setting(True, "take ground truth over HTTP, at /v1/feedback")
    log_inputs: Literal["all", "sampled", "none"] = setting(
        "all", "which inputs to log; retraining needs them"
    )
    log_sample: float = setting(0.1, "share of inputs that log_inputs=sampled keeps", gt=0, le=1)
    log_seconds: float = setting(
        0.25, "seconds between writes: the most that kill -9 loses", gt=0, le=60
    )
    log_megabytes: int = setting(1024, "MiB on disk that may wait for the database", ge=1)
    log_days: float = setting(365, "days until log rows are deleted", gt=0)
    input_days: float = setting(90, "days until inputs without feedback are deleted", gt=0)
    monitor_seconds: float = setting(60, "seconds between measurements of drift and quality", gt=0)
    feedback_keys: Keys = setting(
        [], "API keys that may send feedback for requests of other keys too"
    )
    feedback_per_minute: int = setting(60_000, "labels a minute from one API key or address", ge=1)

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, url: str, info: ValidationInfo) -> str:
        if not re.match(r"none$|sqlite:///.|postgresql(\+psycopg)?://", url):
            raise ValueError("use sqlite:///FILE, postgresql://user:password@host/name, or none")
        if sys.platform == "win32" and url != "none":
            raise ValueError(f"{ON_WINDOWS}; here use none")
        if not has_driver(url):
            raise ValueError(NO_DRIVER)
        if (password := urlsplit(url).password) is not None:
            refuse_known_secrets([password], info.data.get("environment", ""))
        return url


def spool_folder(settings: ServerSettings) -> Path:
    """Return the folder of the spool, by default another one for each database."""
    if settings.spool_dir is not None:
        return settings.spool_dir
    if settings.database_url.startswith("sqlite:///"):
        return Path(settings.database_url.removeprefix("sqlite:///").partition("?")[0] + ".spool")
    address = urlsplit(settings.database_url)
    name = re.sub(r"[^\w.-]+", "-", f"{address.hostname}{address.path}")
    return Path("spool") / name


def collector_problem(folder: Path) -> str | None:
    """Return why the collector cannot write the log, as it says itself."""
    try:
        return json.loads((folder / COLLECTOR_STATUS).read_bytes())["problem"]
    except (OSError, ValueError, KeyError):  # it has not started yet
        return None


def create_observer(
    settings: ServerSettings, models: ModelManager, metrics: ServerMetrics
) -> PredictionObserver:
    """Create what logs predictions and takes feedback about them."""
    from .prediction_log import PredictionLog

    return PredictionLog(settings, models, metrics)


def beside_server(settings: ServerSettings) -> AbstractContextManager[object]:
    """Run what the server needs beside it, the collector, while it serves."""
    if settings.database_url == "none":
        if sys.platform == "win32":
            logger.warning("predictions are not logged", extra={"fields": {"reason": ON_WINDOWS}})
        return nullcontext()
    from .collector_process import running_collector

    return running_collector(settings)
