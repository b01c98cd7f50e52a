"""The model that answers, and its replacement while requests go on."""

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..bundle.load import DEPLOYMENT, BadBundle, Bundle, deployed, load
from ..task.contract import Item, Prediction
from .logs import logger
from .metrics import NO_MODEL, Metrics

INLINE_SECONDS = 0.0015  # shorter work runs in the event loop: handing it to a thread costs more
RETRY_SECONDS = 10.0  # a deployment that was refused is tried again, its files may arrive late
TIMED_CALLS = 20


@dataclass(frozen=True)
class Served:
    """A bundle in use. A request keeps the one that it started with."""

    bundle: Bundle
    example: dict[str, Any]  # a request's body
    seconds_per_item: float
    loaded_at: str

    def answer(self, items: list[Item]) -> list[Prediction]:
        """Answers to items, in order. Raises InvalidItem."""
        contract = self.bundle.contract
        return contract.decode(self.bundle.run(contract.encode(items)), items)


class Engine:
    """Holds the served model and watches the deployment folder for its successor."""

    def __init__(self, deployment: Path, reload_seconds: float, metrics: Metrics) -> None:
        self.deployment, self.reload_seconds, self.metrics = deployment, reload_seconds, metrics
        self.served: Served | None = None
        self.problem: str | None = None  # why the newest deployment is not the one that answers
        self._lanes = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="model")
        self._seen: object = self  # equal to no stamp: the first look always counts
        self._tried = 0.0

    @property
    def version(self) -> str:
        """The version that answers now, `none` without a model."""
        return self.served.bundle.version if self.served else NO_MODEL

    async def predict(self, served: Served, items: list[Item]) -> list[Prediction]:
        """Answers to items, in order. Raises InvalidItem."""
        if served.seconds_per_item * len(items) <= INLINE_SECONDS:
            return served.answer(items)
        return await asyncio.get_running_loop().run_in_executor(self._lanes, served.answer, items)

    async def watch(self) -> None:
        """Look for a new deployment until cancelled."""
        while True:
            await asyncio.sleep(self.reload_seconds)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load what is deployed if it changed; on failure the old model goes on answering."""
        stamp = self._stamp()
        waited = time.monotonic() - self._tried
        if stamp == self._seen and (self.problem is None or waited < RETRY_SECONDS):
            return
        again, self._seen, self._tried = stamp == self._seen, stamp, time.monotonic()
        try:
            folder, digest = deployed(self.deployment)
            served = _warm(load(folder, digest), folder)
        except BadBundle as error:
            self.problem = str(error)
            if not again:
                self.metrics.refused.inc()
                fields = {"reason": self.problem, "model_version": self.version}
                logger.error("deployment refused", extra={"fields": fields})
            return
        self.served, self.problem = served, None
        self.metrics.serving(served.bundle.name, served.bundle.version)
        fields = {
            "model_version": served.bundle.version,
            "microseconds_per_item": round(served.seconds_per_item * 1e6),
        }
        logger.info("model loaded", extra={"fields": fields})

    def close(self) -> None:
        """Let running work end."""
        self._lanes.shutdown()

    def _stamp(self) -> object:
        try:
            found = (self.deployment / DEPLOYMENT).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _warm(bundle: Bundle, folder: Path) -> Served:
    """Let the bundle answer its own example: it must work, and it tells what an item costs."""
    path = folder / "example.json"
    try:
        example = json.loads(path.read_bytes())
        items = [Item.model_validate(item) for item in example["items"]]
        served = Served(bundle, example, 0.0, datetime.now(UTC).isoformat(timespec="seconds"))
        served.answer(items)  # the first call is slower than the rest
        started = time.perf_counter()
        for _ in range(TIMED_CALLS):
            served.answer(items)
        seconds = (time.perf_counter() - started) / TIMED_CALLS
    except Exception as error:  # whatever it is, this bundle does not answer
        raise BadBundle(f"{path}: the model does not answer its own example: {error}") from None
    return replace(served, seconds_per_item=seconds / len(items))
