"""Load models, choose the one that answers a caller, replace them without a restart."""

import json
import math
import os
import statistics
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

from ..bundle import deployment as folder
from ..bundle.deployment import BundleRef, Deployment, utc_now
from ..bundle.load import MANIFEST, BadBundle, Bundle, load_bundle
from ..task.contract import Item
from .logs import logger
from .metrics import ServerMetrics
from .scheduler import INLINE_SECONDS, LatencyProfile, ModelQueue, PendingRequest, WorkerPool
from .settings import CoreServerSettings

# A deployment that cannot be loaded is tried again: its files may arrive after deployment.json.
# The second failure is reported as a refusal.
RETRY_SECONDS, REFUSED_RETRY_SECONDS = 2.0, 10.0
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
    queue: ModelQueue
    loaded_at: str
    created: float  # seconds since the epoch

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

    @property
    def models(self) -> list[ServedModel]:
        """The champion first."""
        return [self.champion, self.challenger] if self.challenger else [self.champion]

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
        lanes = settings.lanes or max(1, (cores or 1) // settings.workers)
        # Half as many for requests that are slow to encode: each may need much memory.
        self.pool, self.slow_pool = WorkerPool(lanes), WorkerPool(max(1, lanes // 2))
        self._seen: object = self  # unlike any file stamp: the first look counts as a change
        self._tried, self._failures = 0.0, 0  # when, and how often in a row, with this stamp
        self._stopping = threading.Event()

    @property
    def version(self) -> str:
        return self.active.champion.version if self.active else "none"

    def loaded(self) -> list[ServedModel]:
        """List the models in use, the champion first."""
        return self.active.models if self.active else []

    def start(self) -> None:
        """Check for a new deployment every `reload_seconds`, in a thread: a slow file system or a
        large model must not delay requests, nor the end of the process."""
        threading.Thread(target=self._watch, name="reload", daemon=True).start()

    def stop(self) -> None:
        """Stop checking; wait for running batches."""
        self._stopping.set()
        self.pool.close()
        self.slow_pool.close()

    def _watch(self) -> None:
        while not self._stopping.wait(self.settings.reload_seconds):
            pause = RETRY_SECONDS if self._failures < 2 else REFUSED_RETRY_SECONDS
            retry = self._failures and time.monotonic() - self._tried >= pause
            if retry or self._stamp() != self._seen:
                self.refresh()

    def refresh(self) -> None:
        """Load what is deployed; on failure the active models stay and `problem` says why."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen, self._failures = stamp, 0
        self._tried = time.monotonic()
        try:
            active = self._load()
            info = {(m.bundle.name, m.version, m.variant): 1 for m in active.models}
            self.metrics.model_info.replace(info)
            created = {(model.version, model.variant): model.created for model in active.models}
            self.metrics.model_created.replace(created)
        except Exception as error:  # whatever it is: the next deployment must be noticed
            self._failures += 1
            self._report(error)
            return
        self.active, self.problem, self._failures = active, None, 0
        self.metrics.model_loaded.set(1)

    def _report(self, error: Exception) -> None:
        unexpected = None if isinstance(error, BadBundle) else error
        self.problem = f"cannot be loaded: {unexpected!r}" if unexpected else str(error)
        fields = {"reason": self.problem, "model_version": self.version}
        if self._failures == 1:
            message = (
                "deployment cannot be loaded yet" if self._seen else "waiting for a deployment"
            )
            logger.info(message, extra={"fields": fields})
        elif self._failures == 2 and self._seen:  # without the file nothing is refused
            logger.error("deployment refused", exc_info=unexpected, extra={"fields": fields})
            self.metrics.refused.inc()

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
            created = datetime.fromisoformat(bundle.manifest.created_at).timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise BadBundle(f"{path / MANIFEST}: created_at: {error}") from None
        try:
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
        new_queue = partial(
            ModelQueue,
            bundle,
            latency,
            max_queued=self.settings.queue_seconds,
            low_priority=variant == SHADOW,
            on_batch=self.metrics.batch_items(bundle.version, variant).observe,
        )
        inline = {"auto": auto, "inline": math.inf, "lanes": -1}[self.settings.engine]
        slow = new_queue(self.slow_pool, max_items=1)  # memory for one request at a time
        queue = new_queue(self.pool, max_inline=inline, slow=slow)
        model = ServedModel(variant, bundle, example, queue, utc_now(), created)
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
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return str(error)
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
