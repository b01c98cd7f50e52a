"""Pull deployments from a store into the local deployment folder, where servers notice them.

One thread for all workers, in the process that starts them. Nothing waits for it: whatever is wrong
with the store or with what it holds, the local deployment stays and is served.
"""

import json
import math
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..bundle import deployment
from ..bundle.deployment import DEPLOYMENT, BundleRef, Deployment
from ..bundle.load import BadBundle, verify_bundle
from ..bundle.remote import RemoteFolder, as_line, checked_bundle, fetch_bundle, require_library
from ..config import UserError, WorkError
from ..files import write_atomically, write_json
from .logs import logger
from .settings import CoreServerSettings

STATUS = ".pull.json"  # in the deployment folder, for the workers
INCOMING = ".pull-"  # begin of the names of folders for downloads
MAX_WAIT_SECONDS = 60  # between two looks at a store that fails
STATUS_SECONDS = 30  # between two writes of a status in which only the time has changed


@contextmanager
def pulling(settings: CoreServerSettings) -> Iterator[None]:
    """Pull from `deployment_url`, if it is set, while the server runs. Raises UserError when the
    folder cannot be written or the store's library is not installed."""
    if settings.deployment_url is None:
        yield
        return
    stop = threading.Event()
    puller = Puller(settings)
    threading.Thread(target=puller.run, args=(stop,), name="pull", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


class Puller:
    """Follows the `deployment.json` of a store."""

    def __init__(self, settings: CoreServerSettings) -> None:
        assert settings.deployment_url is not None
        self.settings, self.folder = settings, settings.deployment_dir
        self.remote: RemoteFolder | None = None
        self._verified = b""  # a deployment.json whose bundles are complete here
        self._status: dict[str, Any] = {"problem": None, "failures": 0, "succeeded": 0.0}
        self._written = -math.inf  # when the status was written
        require_library(settings.deployment_url)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f"{INCOMING}*"):  # by a server that was killed
                shutil.rmtree(left)
            write_json(self.folder / STATUS, self._status)
        except OSError as error:
            reason = f"cannot be written, and deployment_url needs that: {error.strerror}"
            raise UserError(f"{self.folder}: {reason}") from None

    def run(self, stop: threading.Event) -> None:
        """Look at the store until `stop` is set, at growing intervals while that fails."""
        failures = 0
        while True:
            failures = 0 if self.look() else failures + 1
            wait = self.settings.pull_seconds
            if failures:  # not all servers at once
                longest = max(wait, MAX_WAIT_SECONDS)
                wait = min(longest, wait * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1)
            if stop.wait(wait):
                return

    def look(self) -> bool:
        """Pull if there is something new; report failures, and return whether there was none."""
        before = self._status["problem"]
        try:
            self.pull()
        except Exception as error:  # whatever it is: the next deployment must be noticed
            expected = isinstance(error, (UserError, WorkError, OSError))
            place = f"{self.folder}: " if isinstance(error, OSError) else ""  # else it is named
            problem = f"not pulled: {place}{as_line(error)}"
            self.remote = None  # connect again
            self._status["failures"] += 1
            if problem != before:
                fields = {"reason": problem}
                logger.error(
                    "deployment not pulled", exc_info=not expected, extra={"fields": fields}
                )
        else:
            problem = None
            self._status["succeeded"] = time.time()
            if before:
                logger.info("deployment store is well again")
        self._status["problem"] = problem
        if problem or before or time.monotonic() - self._written >= STATUS_SECONDS:
            self._written = time.monotonic()
            try:
                write_json(self.folder / STATUS, self._status)
            except OSError as error:
                fields = {"reason": as_line(error)}
                logger.error("status of pulling cannot be written", extra={"fields": fields})
        return problem is None

    def pull(self) -> None:
        """Make the local deployment that of the store. Raises WorkError, and changes nothing."""
        if self.remote is None:
            assert self.settings.deployment_url is not None
            self.remote = RemoteFolder(self.settings.deployment_url)
        # 1. Is there something new?
        source = self.remote.at(DEPLOYMENT)
        content = self.remote.read(DEPLOYMENT)
        if content is None:
            raise BadBundle(f"{source}: nothing is published yet; run the command publish")
        path = self.folder / DEPLOYMENT
        here = path.read_bytes() if path.exists() else None
        if content == self._verified == here:
            return
        # 2. Its bundles come first, each moved into place when it is complete.
        started = time.monotonic()
        deployed = deployment.parse_deployment(content, source)
        fetched = [self._fetch(ref, self.remote) for ref in deployed.active]
        # 3. The file that servers watch comes last.
        if content != here:
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
            self._report(deployed, sum(fetched), time.monotonic() - started)
        self._verified = content
        deployment.prune_bundles(self.folder, self.settings.keep_bundles)

    def _fetch(self, ref: BundleRef, remote: RemoteFolder) -> int:
        """Download a bundle unless it is here; return the downloaded bytes."""
        place = self.folder / checked_bundle(ref, remote.at(DEPLOYMENT))
        if place.exists():
            try:
                verify_bundle(place, ref.manifest_sha256)
                return 0
            except BadBundle as error:
                logger.warning("bundle fetched again", extra={"fields": {"reason": str(error)}})
        with tempfile.TemporaryDirectory(prefix=INCOMING, dir=self.folder) as incoming:
            size = fetch_bundle(remote, ref, Path(incoming, "bundle"))
            place.parent.mkdir(exist_ok=True)
            if place.exists():
                deployment.set_aside(place)
            Path(incoming, "bundle").rename(place)
        return size

    def _report(self, deployed: Deployment, size: int, seconds: float) -> None:
        fields = {
            "model_version": deployed.champion.version,
            "challenger": deployed.challenger and deployed.challenger.version,
            "megabytes": round(size / 1e6, 1),
            "seconds": round(seconds, 2),
        }
        logger.info("deployment pulled", extra={"fields": fields})


class PullStatus(Collector):
    """What the puller says of itself, for any worker."""

    def __init__(self, settings: CoreServerSettings) -> None:
        self._path = settings.deployment_dir / STATUS
        self._on = settings.deployment_url is not None

    @property
    def problem(self) -> str | None:
        """Why the local deployment may be older than that of the store."""
        return self._read().get("problem")  # a file of a few bytes, which the system keeps cached

    def collect(self) -> Iterator[Metric]:
        success = GaugeMetricFamily(
            "deployment_pull_timestamp_seconds",
            "Time of the last successful look at deployment_url; 0 before the first",
        )
        failures = CounterMetricFamily(
            "deployment_pull_failures",
            "Looks at deployment_url that failed, or found an invalid deployment",
        )
        if status := self._read():
            success.add_metric([], status["succeeded"])
            failures.add_metric([], status["failures"])
        yield from (success, failures)

    def _read(self) -> dict[str, Any]:
        if not self._on:
            return {}
        try:
            return json.loads(self._path.read_bytes())
        except (OSError, ValueError):  # written at the start; the folder may be gone since
            return {}
