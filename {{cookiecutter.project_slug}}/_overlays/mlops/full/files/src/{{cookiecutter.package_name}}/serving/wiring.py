"""What the server does beside predictions: the prediction log, feedback, drift and quality.

The server's core knows only `PredictionObserver` (predict.py). Everything heavy is imported when
a server is created: `serve --help` reads the settings here.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from ..settings import DEFAULT_DATABASE
from .settings import CoreServerSettings, refuse_known_secrets

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .metrics import ServerMetrics
    from .models import ModelManager


class ServerSettings(CoreServerSettings):
    """Settings of the server, with those of the prediction log and monitoring."""

    database_url: str = Field(
        default=DEFAULT_DATABASE,
        description="prediction log: sqlite:///FILE or postgresql://…; none: no log",
    )
    log_inputs: Literal["all", "sampled", "none"] = Field(
        default="all", description="which inputs to log; retraining needs them"
    )
    log_sample: float = Field(
        default=0.1, gt=0, le=1, description="share of inputs that log_inputs=sampled keeps"
    )
    log_seconds: float = Field(
        default=0.25, gt=0, le=60, description="seconds between writes: the most that kill -9 loses"
    )
    log_rows: int = Field(
        default=100_000, ge=1, description="rows held in memory while the database is down"
    )
    log_megabytes: int = Field(default=128, ge=1, description="MiB of memory for these rows")
    log_days: float = Field(default=365, gt=0, description="days until log rows are deleted")
    input_days: float = Field(
        default=90, gt=0, description="days until inputs without feedback are deleted"
    )
    monitor_seconds: float = Field(
        default=60, gt=0, description="seconds between measurements of drift and quality"
    )

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, url: str, info: ValidationInfo) -> str:
        if not re.match(r"none$|sqlite:///.|postgresql(\+psycopg)?://", url):
            raise ValueError("use sqlite:///FILE, postgresql://user:password@host/name, or none")
        password = urlsplit(url).password
        refuse_known_secrets([] if password is None else [password], info)
        return url


class LoggingObserver:
    """Log predictions, take feedback about them, measure drift and quality from both."""

    def __init__(
        self, settings: ServerSettings, models: ModelManager, metrics: ServerMetrics
    ) -> None:
        from .log_metrics import LogMetrics
        from .prediction_events import PredictionEvents

        self.models, self.interval = models, settings.monitor_seconds
        self.metrics = LogMetrics(metrics)
        self.events = PredictionEvents(settings, metrics, self.metrics)
        self.add, self.update_metrics = self.events.add, self.events.aggregate

    def add_routes(self, api: FastAPI) -> None:
        from .feedback import add_feedback_route

        add_feedback_route(api, self.models, self.events, self.metrics)

    def start(self) -> None:
        from .monitor import monitor_models

        self.events.start()
        self._monitor = asyncio.create_task(
            monitor_models(self.models, self.events.log, self.metrics, self.interval)
        )

    async def stop(self, seconds: float) -> None:
        self._monitor.cancel()
        await asyncio.to_thread(self.events.stop, seconds)


create_observer = LoggingObserver
