"""Load models, choose the one that answers a caller, replace them without a restart."""

import asyncio
import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from typing import Any

from ..bundle import deployment as folder
from ..bundle.deployment import BundleRef, Deployment, utc_now
from ..bundle.load import BadBundle, Bundle, load_bundle
from ..task.contract import Item
from .logs import logger
from .metrics import ServerMetrics
from .scheduler import INLINE_SECONDS, LatencyProfile, ModelQueue, PendingRequest, WorkerPool
from .settings import CoreServerSettings

REFUSED_RETRY_SECONDS = 10.0  # then a refused deployment is tried again: files may arrive late
MAX_TIMED_CALLS = 10  # per batch size, and
TIMED_SECONDS = 0.1  # no further ones after this time: slow models vary little from call to call
TIMED_BATCH = 16
CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"


@dataclass(frozen=True)
class ServedModel:
    """A bundle in use. A request keeps the one that it started with."""

    variant: str
    bundle: Bundle
    example: dict[str, Any]  # the body of a request
    reference: dict[str, Any]
    queue: ModelQueue
    loaded_at: str

    @cached_property
    def response_head(self) -> bytes:
        """Name and version as members of a JSON object, for every response."""
        return json.dumps({"model": self.bundle.name, "model_version": self.version})[1:-1].encode()

    @cached_property
    def version(self) -> str:
        return self.bundle.version

    @property
    def engine(self) -> str:
        """Where it runs: `inline` in the event loop or in `lanes`, the worker threads."""
        return "inline" if self.queue.max_inline > 0 else "lanes"

    @property
    def microseconds(self) -> int:
        return round(self.queue.latency.alone * 1e6)


@dataclass(frozen=True)
class ActiveModels:
    """The models of one deployment; replaced as a whole."""

    deployment: Deployment
    champion: ServedModel
    challenger: ServedModel | None
    salt: bytes  # a test of other versions assigns the callers anew

    def choose(self, caller: str, request_id: str) -> tuple[ServedModel, str]:
        """Choose the model that answers, always the same for a caller, and return it with the unit
        that a test randomises, hashed: the caller, or the request if `caller` is empty."""
        test = self.deployment.challenger
        if test is None and not caller:  # nothing to choose, nobody to recognise
            return self.champion, request_id[:16]
        key = (caller or request_id).encode()
        unit = blake2b(key, digest_size=8, key=self.salt).hexdigest()
        if self.challenger is None or test is None or test.mode == "shadow":
            return self.champion, unit
        return (self.challenger if self._within(unit, test.share) else self.champion), unit

    def shadow(self, unit: str) -> ServedModel | None:
        """Return the shadow if the unit is within its share."""
        test = self.deployment.challenger
        if test is None or test.mode != "shadow" or not self._within(unit, test.share):
            return None
        return self.challenger

    @staticmethod
    def _within(unit: str, share: float) -> bool:
        # A larger share keeps the units that are in already.
        return int(unit, 16) < share * 2**64


class ModelManager:
    """Load what is deployed and watch the deployment folder for changes."""

    def __init__(self, settings: CoreServerSettings, metrics: ServerMetrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.active: ActiveModels | None = None
        self.problem: str | None = None  # why the newest deployment is not active
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.pool = WorkerPool(settings.lanes or max(1, (cores or 1) // settings.workers))
        self._seen: object = self  # unlike any file stamp: the first look counts as a change
        self._tried = 0.0

    @property
    def version(self) -> str:
        return self.active.champion.version if self.active else "none"

    def loaded(self) -> list[ServedModel]:
        """List the models in use, the champion first."""
        active = self.active
        models = (active.champion, active.challenger) if active else ()
        return [model for model in models if model is not None]

    async def watch(self) -> None:
        """Check for a new deployment every `reload_seconds` until cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            waited = time.monotonic() - self._tried
            retry = self.problem is not None and waited >= REFUSED_RETRY_SECONDS
            if retry or self._stamp() != self._seen:
                await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load what is deployed; on failure the active models stay and `problem` says why."""
        stamp = self._stamp()
        again, self._seen, self._tried = stamp == self._seen, stamp, time.monotonic()
        try:
            active = self._load()
        except BadBundle as error:
            self.problem = str(error)
            if not self._seen:  # nothing is deployed, so nothing is refused
                logger.info("waiting for a deployment", extra={"fields": {"reason": self.problem}})
            elif not again:
                self.metrics.refused.inc()
                fields = {"reason": self.problem, "model_version": self.version}
                logger.error("deployment refused", extra={"fields": fields})
            return
        self.active, self.problem = active, None
        info, created = {}, {}
        for model in self.loaded():
            manifest, labels = model.bundle.manifest, (model.version, model.variant)
            info[manifest.name, *labels] = 1
            created[labels] = datetime.fromisoformat(manifest.created_at).timestamp()
        self.metrics.model_info.replace(info)
        self.metrics.model_created.replace(created)
        self.metrics.model_loaded.set(1)

    def _load(self) -> ActiveModels:
        deployment = folder.read_deployment(self.settings.deployment_dir)
        challenger = None
        if (test := deployment.challenger) is not None:
            challenger = self._load_model(test, SHADOW if test.mode == "shadow" else CHALLENGER)
        champion = self._load_model(deployment.champion, CHAMPION)
        versions = [champion.version, challenger.version if challenger else ""]
        salt = blake2b("~".join(versions).encode(), digest_size=16).digest()
        return ActiveModels(deployment, champion, challenger, salt)

    def _load_model(self, ref: BundleRef, variant: str) -> ServedModel:
        """Load, check and time a bundle, unless it is in use already. Raises BadBundle."""
        # 1. Is it in use already?
        for model in self.loaded():
            if model.bundle.digest == ref.manifest_sha256 and model.variant == variant:
                return model
        # 2. Load and verify it.
        path = folder.bundle_path(self.settings.deployment_dir, ref)
        bundle = load_bundle(path, ref.manifest_sha256)
        if bundle.version != ref.version:
            raise BadBundle(f"{path}: holds version {bundle.version}, not {ref.version}")
        # 3. Predict its own example: this proves that it works and measures its latency.
        try:
            reference = json.loads((path / "reference.json").read_bytes())
            example = json.loads((path / "example.json").read_bytes())
            items = [Item.model_validate(item) for item in example["items"]]
            probe = ModelQueue(bundle, LatencyProfile(1, 1), self.pool)
            alone = _seconds_per_item(probe, items)
            latency = LatencyProfile(alone, _seconds_per_item(probe, items * TIMED_BATCH))
        except Exception as error:  # whatever it is, this bundle cannot be used
            message = f"{path / 'example.json'}: the model cannot predict its own example: {error}"
            raise BadBundle(message) from None
        # 4. Put it behind a queue.
        auto = INLINE_SECONDS if latency.alone <= INLINE_SECONDS else -1
        queue = ModelQueue(
            bundle,
            latency,
            self.pool,
            max_inline={"auto": auto, "inline": math.inf, "lanes": -1}[self.settings.engine],
            max_queued=self.settings.queue_seconds,
            low_priority=variant == SHADOW,
            on_batch=self.metrics.batch_items(bundle.version, variant).observe,
        )
        model = ServedModel(variant, bundle, example, reference, queue, loaded_at=utc_now())
        fields = {
            "variant": variant,
            "model_version": bundle.version,
            "engine": model.engine,
            "microseconds_per_item": model.microseconds,
        }
        logger.info("model loaded", extra={"fields": fields})
        return model

    def _stamp(self) -> object:
        """Return what changes whenever deployment.json is replaced; None without the file."""
        try:
            status = (self.settings.deployment_dir / folder.DEPLOYMENT).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


def _seconds_per_item(queue: ModelQueue, items: list[Item]) -> float:
    """Measure the median, without the first call, which is slower."""
    times: list[float] = []
    while len(times) < 2 or (len(times) <= MAX_TIMED_CALLS and sum(times) < TIMED_SECONDS):
        started = time.perf_counter()
        (result,) = queue.run([PendingRequest(items)])
        if isinstance(result, Exception):
            raise result
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / len(items)
