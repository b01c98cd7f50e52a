"""The models that answer, who gets which, and their replacement while requests go on."""

import asyncio
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..bundle import deployment as folder
from ..bundle.deployment import BundleRef, Deployment
from ..bundle.load import BadBundle, Bundle, load_bundle
from ..task.contract import Item
from .logs import logger
from .metrics import NO_MODEL, ServerMetrics
from .scheduler import INLINE_SECONDS, LatencyProfile, ModelQueue, PendingRequest, WorkerPool
from .settings import ServerSettings

RETRY_SECONDS = 10.0  # a deployment that was refused is tried again, its files may arrive late
MAX_TIMED_CALLS = 10  # at most, and
TIMED_SECONDS = 0.1  # no further ones after that time: slow models differ little from call to call
TIMED_BATCH = 16
CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"


@dataclass(frozen=True)
class ServedModel:
    """A bundle in use. A request keeps the one that it started with."""

    variant: str
    bundle: Bundle
    example: dict[str, Any]  # a request's body
    reference: dict[str, Any]
    queue: ModelQueue
    loaded_at: str

    @cached_property
    def head(self) -> bytes:
        """What every answer says of the model, as members of a JSON object."""
        names = {"model": self.bundle.name, "model_version": self.version}
        return json.dumps(names)[1:-1].encode()

    @cached_property
    def version(self) -> str:
        return self.bundle.version

    @property
    def engine(self) -> str:
        """Where it runs: inline, in the event loop, or in lanes."""
        return "inline" if self.queue.inline > 0 else "lanes"

    @property
    def microseconds(self) -> int:
        """What an item alone costs."""
        return round(self.queue.pace.alone * 1e6)

    @cached_property
    def created(self) -> float:
        """When it was made, in seconds since the epoch."""
        return datetime.fromisoformat(self.bundle.manifest.created_at).timestamp()


@dataclass(frozen=True)
class ActiveModels:
    """All that answers at a moment; replaced as a whole."""

    deployment: Deployment
    champion: ServedModel
    challenger: ServedModel | None
    salt: bytes  # tests of other versions divide the callers anew

    def choose(self, caller: str, request_id: str) -> tuple[ServedModel, str]:
        """The model that answers, always the same one for a caller, and the caller's unit."""
        test = self.deployment.challenger
        if test is None and not caller:  # nobody asks who it was
            return self.champion, request_id[:16]
        key = (caller or request_id).encode()
        unit = blake2b(key, digest_size=8, key=self.salt).hexdigest()
        if self.challenger is None or test is None or test.mode == "shadow":
            return self.champion, unit
        return (self.challenger if self._within(unit, test.share) else self.champion), unit

    def shadow(self, unit: str) -> ServedModel | None:
        """The model that answers this request too, unseen, if any."""
        test = self.deployment.challenger
        if test is None or test.mode != "shadow" or not self._within(unit, test.share):
            return None
        return self.challenger

    @staticmethod
    def _within(unit: str, share: float) -> bool:
        # A larger share keeps those who are in already.
        return int(unit, 16) < share * 2**64


class ModelManager:
    """Loads what is deployed and watches the deployment folder for changes."""

    def __init__(self, settings: ServerSettings, metrics: ServerMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.live: ActiveModels | None = None
        self.problem: str | None = None  # why the newest deployment is not the one that answers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.lanes = WorkerPool(settings.lanes or max(1, (cores or 1) // settings.workers))
        self._seen: object = self  # equal to no stamp: the first look always counts
        self._tried = 0.0

    @property
    def version(self) -> str:
        """The champion's version, `none` without a model."""
        return self.live.champion.version if self.live else NO_MODEL

    async def watch(self) -> None:
        """Look for a new deployment until cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            if self.changed():
                await asyncio.to_thread(self.refresh)

    def changed(self) -> bool:
        """Whether there is something to load, or to try again."""
        if self._stamp() != self._seen:
            return True
        return self.problem is not None and time.monotonic() - self._tried >= RETRY_SECONDS

    def refresh(self) -> None:
        """Load what is deployed if it changed; on failure the old models go on answering."""
        stamp = self._stamp()
        again, self._seen, self._tried = stamp == self._seen, stamp, time.monotonic()
        try:
            live = self._load()
        except BadBundle as error:
            self.problem = str(error)
            if not self._seen:  # nothing is there to be refused
                logger.info("waiting for a deployment", extra={"fields": {"reason": self.problem}})
            elif not again:
                self.metrics.refused.inc()
                fields = {"reason": self.problem, "model_version": self.version}
                logger.error("deployment refused", extra={"fields": fields})
            return
        self.live, self.problem = live, None
        self.metrics.serving([one for one in (live.champion, live.challenger) if one])

    def models(self) -> list[ServedModel]:
        """Those that are loaded."""
        live = self.live
        return [one for one in (live.champion, live.challenger) if one] if live else []

    def close(self) -> None:
        """Let running work end."""
        self.lanes.close()

    def _load(self) -> ActiveModels:
        found = folder.read_deployment(self.settings.deployment_dir)
        challenger = None
        if (test := found.challenger) is not None:
            variant = SHADOW if test.mode == "shadow" else CHALLENGER
            challenger = self._model(test, variant)
        champion = self._model(found.champion, CHAMPION)
        versions = [champion.version, challenger.version if challenger else ""]
        salt = blake2b("~".join(versions).encode(), digest_size=16).digest()
        return ActiveModels(found, champion, challenger, salt)

    def _model(self, installed: BundleRef, variant: str) -> ServedModel:
        """The bundle, loaded and warmed; the one in use if it is the same."""
        for model in self.models():
            same = model.bundle.digest == installed.manifest_sha256
            if same and model.variant == variant:
                return model
        place = folder.bundle_path(self.settings.deployment_dir, installed)
        bundle = load_bundle(place, installed.manifest_sha256)
        if bundle.version != installed.version:
            raise BadBundle(f"{place}: holds version {bundle.version}, not {installed.version}")
        model = self._warm(bundle, variant, place)
        fields = {
            "variant": variant,
            "model_version": bundle.version,
            "engine": model.engine,
            "microseconds_per_item": model.microseconds,
        }
        logger.info("model loaded", extra={"fields": fields})
        return model

    def _warm(self, bundle: Bundle, variant: str, place: Path) -> ServedModel:
        """Let the bundle answer its own example: it must work, and it tells what an item costs."""
        path = place / "example.json"
        try:
            reference = json.loads((place / "reference.json").read_bytes())
            example = json.loads(path.read_bytes())
            items = [Item.model_validate(item) for item in example["items"]]
            probe = self._queue(bundle, LatencyProfile(1, 1), variant, on_batch=lambda items: None)
            pace = LatencyProfile(_seconds(probe, items), _seconds(probe, items * TIMED_BATCH))
        except Exception as error:  # whatever it is, this bundle does not answer
            message = f"{path}: the model does not answer its own example: {error}"
            raise BadBundle(message) from None
        observe = self.metrics.batch_items(bundle.version, variant).observe
        queue = self._queue(bundle, pace, variant, observe)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return ServedModel(variant, bundle, example, reference, queue, now)

    def _queue(
        self, bundle: Bundle, pace: LatencyProfile, variant: str, on_batch: Callable[[int], None]
    ) -> ModelQueue:
        fits = pace.alone <= INLINE_SECONDS
        inline = {"auto": INLINE_SECONDS if fits else -1, "inline": math.inf, "lanes": -1}
        return ModelQueue(
            bundle,
            pace,
            self.lanes,
            inline[self.settings.engine],
            self.settings.queue_seconds,
            patient=variant == SHADOW,
            on_batch=on_batch,
        )

    def _stamp(self) -> object:
        try:
            found = (self.settings.deployment_dir / folder.DEPLOYMENT).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _seconds(queue: ModelQueue, items: list[Item]) -> float:
    """The median time of an item, without the first call, which is slower."""
    times: list[float] = []
    while len(times) < 2 or (len(times) <= MAX_TIMED_CALLS and sum(times) < TIMED_SECONDS):
        started = time.perf_counter()
        (answer,) = queue.run([PendingRequest(items)])
        if isinstance(answer, Exception):
            raise answer
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / len(items)
