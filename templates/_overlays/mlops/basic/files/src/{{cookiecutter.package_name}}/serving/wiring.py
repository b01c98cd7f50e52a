"""What the server does beside predictions: it counts them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from .settings import CoreServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .metrics import ServerMetrics
    from .models import ModelManager
    from .predict import PredictionEvent


class ServerSettings(CoreServerSettings):
    """The server's settings."""


class CountingObserver:
    """Count requests, items and seconds."""

    def __init__(
        self, _settings: ServerSettings, _models: ModelManager, metrics: ServerMetrics
    ) -> None:
        from .models import SHADOW
        from .predict import PATH

        self._metrics, self._route, self._shadow = metrics, PATH, SHADOW

    def add(self, event: PredictionEvent) -> None:
        names = event.model.version, event.model.variant
        if event.model.variant != self._shadow:
            self._metrics.request(self._route, 200, *names, event.seconds, event.trace)
        self._metrics.predictions(*names).inc(event.result.stop - event.result.start)

    def add_routes(self, api: FastAPI) -> None:
        """Add none."""

    def start(self) -> None:
        """Start nothing."""

    def update_metrics(self) -> bytes:
        """Leave them: they are always up to date, and there are no others."""
        return b""

    @property
    def problem(self) -> str | None:
        return None

    async def stop(self, seconds: float) -> None:
        """Wait for nothing."""


create_observer = CountingObserver


def beside_server(_settings: ServerSettings) -> AbstractContextManager[object]:
    """Run nothing beside the server."""
    return nullcontext()
