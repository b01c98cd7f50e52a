"""What the server does beside predictions: the prediction log, feedback, drift and quality.

Imports what is heavy when a server is created: `serve --help` reads the settings here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import ValidationInfo, field_validator

from ..settings import DEFAULT_DATABASE, setting
from .settings import CoreServerSettings, refuse_known_secrets

if TYPE_CHECKING:
    from .metrics import ServerMetrics
    from .models import ModelManager
    from .predict import PredictionObserver


class ServerSettings(CoreServerSettings):
    """Settings of the server, with those of the prediction log and monitoring."""

    database_url: str = setting(
        DEFAULT_DATABASE, "prediction log: sqlite:///FILE or postgresql://…; none: no log"
    )
    feedback: bool = setting(True, "take ground truth over HTTP, at /v1/feedback")
    log_inputs: Literal["all", "sampled", "none"] = setting(
        "all", "which inputs to log; retraining needs them"
    )
    log_sample: float = setting(0.1, "share of inputs that log_inputs=sampled keeps", gt=0, le=1)
    log_seconds: float = setting(
        0.25, "seconds between writes: the most that kill -9 loses", gt=0, le=60
    )
    log_rows: int = setting(100_000, "rows held in memory while the database is down", ge=1)
    log_megabytes: int = setting(128, "MiB of memory for these rows", ge=1)
    log_days: float = setting(365, "days until log rows are deleted", gt=0)
    input_days: float = setting(90, "days until inputs without feedback are deleted", gt=0)
    monitor_seconds: float = setting(60, "seconds between measurements of drift and quality", gt=0)

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, url: str, info: ValidationInfo) -> str:
        if not re.match(r"none$|sqlite:///.|postgresql(\+psycopg)?://", url):
            raise ValueError("use sqlite:///FILE, postgresql://user:password@host/name, or none")
        if (password := urlsplit(url).password) is not None:
            refuse_known_secrets([password], info)
        return url


def create_observer(
    settings: ServerSettings, models: ModelManager, metrics: ServerMetrics
) -> PredictionObserver:
    """Create what logs predictions, takes feedback about them and measures drift and quality."""
    from .prediction_events import PredictionEvents

    return PredictionEvents(settings, models, metrics)
