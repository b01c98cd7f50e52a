"""MLflow: a parent run per training with a child run per network, and the registry of bundles.

Stored in SQLite and local folders, or on the tracking server of MLFLOW_TRACKING_URI. MLflow takes
seconds to import, so only commands that need it import this module.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # both are read at import
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..config import WorkError, flatten
from ..task.settings import Settings
from ..training.documents import Evaluation
from ..training.fit import Interrupted, TrainingState
from ..training.runs import Run

CHAMPION, CHALLENGER = "champion", "challenger"

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs each migration of its tables


class Tracker:
    """Logs runs to the project's MLflow experiment and registers their bundles."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name
        self.client = _client(os.environ.get("MLFLOW_TRACKING_URI") or settings.paths.tracking)
        self.experiment = self._experiment()
        self._logged: dict[str, int] = {}  # epochs by MLflow run

    def parent(self, run: Run) -> str:
        """Return the id of the MLflow run of a whole training; created on first use."""
        return self._find(run.name) or self._create(run.name, run, {})

    def child(self, run: Run, job: str) -> str:
        """Return the id of the MLflow run of one network (`seed-0`); created on first use."""
        name = f"{run.name}-{job}"
        tags = {"mlflow.parentRunId": self.parent(run), "part": job}
        return self._find(name) or self._create(name, run, tags)

    def log_epochs(self, run_id: str, state: TrainingState) -> None:
        """Log the metrics of the epochs that MLflow does not have yet, one request per epoch."""
        done = self._logged.get(run_id)
        if done is None:
            done = len(self.client.get_metric_history(run_id, "loss"))
        for epoch in range(done + 1, state.epoch + 1):
            self.log_metrics(run_id, state.history[epoch - 1], epoch)
        self._logged[run_id] = state.epoch

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int = 0) -> None:
        """Log metrics of one step in one request."""
        now = time.time_ns() // 1_000_000
        self.client.log_batch(run_id, [Metric(k, v, now, step) for k, v in metrics.items()])

    def finish(self, run_id: str, status: str) -> None:
        """Close an MLflow run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)

    def log_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Log the test metrics of each seed, of their mean and of the baselines."""
        for seed, metrics in evaluation.network.seeds.items():
            by_name = {f"test_{name}": value for name, value in metrics.items()}
            self.log_metrics(self.child(run, f"seed-{seed}"), by_name)
        by_name = {f"test_{name}": value for name, value in evaluation.network.mean.items()}
        for name, baseline in evaluation.baselines.items():
            short = re.sub(r"\W+", "_", name.lower())  # MLflow refuses commas and the like
            by_name |= {f"baseline_{short}_{k}": value for k, value in baseline.metrics.items()}
        parent = self.parent(run)
        self.log_metrics(parent, by_name)
        self.client.log_artifact(parent, str(run.folder / "evaluation.json"))

    def log_gate(self, run: Run, gate: dict[str, Any]) -> None:
        """Log how the run, as a challenger, compared with the champion of its time."""
        parent = self.parent(run)
        numbers = {f"gate_{name}": float(gate[name]) for name in ("passed", "ahead", "low", "high")}
        self.log_metrics(parent, numbers)
        self.client.log_artifact(parent, str(run.folder / "gate.json"))

    def register(self, run: Run, bundle: Path, version: str) -> ModelVersion:
        """Return the registered model version of a bundle, uploaded if it is not there yet."""
        for registered in self.client.search_model_versions(f"name = '{self.name}'"):
            if registered.tags.get("bundle") == version:
                return registered
        parent = self.parent(run)
        self.client.log_artifacts(parent, str(bundle), "bundle")
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        artifacts = self.client.get_run(parent).info.artifact_uri
        return self.client.create_model_version(
            self.name, f"{artifacts}/bundle", parent, {"bundle": version}
        )

    def alias(self, alias: str, version: str | None) -> None:
        """Move the alias to this version, or remove it for None. Raises WorkError."""
        try:
            if version is not None:
                self.client.set_registered_model_alias(self.name, alias, version)
            elif alias in self.client.get_registered_model(self.name).aliases:
                self.client.delete_registered_model_alias(self.name, alias)
        except MlflowException as error:
            raise WorkError(f"{self.name}: the alias {alias} cannot be moved: {error}") from None

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Copy the bundle of a version to `folder` and return its path. Raises WorkError."""
        assert version.run_id is not None, "set by register"
        try:
            return Path(self.client.download_artifacts(version.run_id, "bundle", str(folder)))
        except (MlflowException, OSError) as error:
            raise WorkError(
                f"{self.name} version {version.version}: its bundle cannot be downloaded from "
                f"{version.source}: {error}"
            ) from None

    def _experiment(self) -> str:
        experiment = self.client.get_experiment_by_name(self.name)
        if experiment is not None:
            return experiment.experiment_id
        uri, artifacts = self.client.tracking_uri, None
        if uri.startswith("sqlite:"):  # files lie beside the database
            artifacts = _file(uri).resolve().with_name("mlartifacts").as_uri()
        return self.client.create_experiment(self.name, artifacts)

    def _find(self, name: str) -> str | None:
        runs = self.client.search_runs(
            [self.experiment], f"attributes.run_name = '{name}'", max_results=1
        )
        return runs[0].info.run_id if runs else None

    def _create(self, name: str, run: Run, tags: dict[str, str]) -> str:
        info = run.info
        origin = {
            "mlflow.source.git.commit": str(info.git.commit),
            "git_dirty": str(info.git.dirty),
            "data_fingerprint": info.data.fingerprint,
            "hardware": info.hardware,
            "command": info.command,
            "folder": str(run.folder),
        }
        created = self.client.create_run(self.experiment, run_name=name, tags=origin | tags)
        parameters = [Param(key, value[:6000]) for key, value in flatten(run.settings).items()]
        self.client.log_batch(created.info.run_id, params=parameters)
        return created.info.run_id


@contextmanager
def track(tracker: Tracker, run: Run) -> Iterator[None]:
    """Close the training's MLflow run when the block is left: finished, killed or failed."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        tracker.finish(tracker.parent(run), status)


def _file(uri: str) -> Path:
    """Return the database's file in a URI like `sqlite:///runs/mlflow.db`."""
    return Path(urlsplit(uri).path[1:])


def _client(uri: str) -> MlflowClient:
    """Return a client whose store exists: two processes must not create one database at once."""
    lock = nullcontext()
    try:
        if uri.startswith("sqlite:"):
            database = _file(uri)
            database.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(database.with_name(f".{database.name}.lock"))
        with lock:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        return client
    except Exception as error:  # each store and driver raises its own kinds
        raise WorkError(f"MLflow at {uri} does not answer: {error}") from None
