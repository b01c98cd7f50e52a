"""MLflow: one parent run per training, one child per network; and the registry of bundles.

SQLite and local folders by default, a tracking server by MLFLOW_TRACKING_URI. MLflow takes seconds
to import, so this module is imported only by the verbs that need it.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; no calls home

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ..base_settings import BaseSettings
from ..config import WorkError, flatten
from ..training.fit import Interrupted, TrainingState
from ..training.runs import Run

CHAMPION, CHALLENGER = "champion", "challenger"

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each migration of its tables


class Tracker:
    """The client, and the MLflow runs of one training."""

    def __init__(self, settings: BaseSettings) -> None:
        self.name = settings.name
        self.client = _client(os.environ.get("MLFLOW_TRACKING_URI") or settings.paths.tracking)
        self.experiment = self._experiment()
        self._logged: dict[str, int] = {}  # epochs by MLflow run

    def parent(self, run: Run) -> str:
        """The MLflow run that stands for the whole training; made on first use."""
        return self._find(run.name) or self._create(run.name, run, {})

    def child(self, run: Run, part: str) -> str:
        """The MLflow run of one of its networks (`seed-0`); made on first use."""
        name = f"{run.name}-{part}"
        tags = {"mlflow.parentRunId": self.parent(run), "part": part}
        return self._find(name) or self._create(name, run, tags)

    def log_epochs(self, run_id: str, state: TrainingState) -> None:
        """The metrics of all epochs that are not there yet, a request each."""
        done = self._logged.get(run_id)
        if done is None:
            done = len(self.client.get_metric_history(run_id, "loss"))
        for epoch in range(done + 1, state.epoch + 1):
            self.log_metrics(run_id, state.history[epoch - 1], epoch)
        self._logged[run_id] = state.epoch

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int = 0) -> None:
        """Metrics of one moment, in one request."""
        now = time.time_ns() // 1_000_000
        self.client.log_batch(run_id, [Metric(k, v, now, step) for k, v in metrics.items()])

    def finish(self, run_id: str, status: str) -> None:
        """Close an MLflow run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)

    def log_evaluation(self, run: Run, evaluation: dict[str, Any]) -> None:
        """Test metrics of each seed, of their mean and of the baselines."""
        for seed, metrics in evaluation["network"]["seeds"].items():
            named = {f"test_{name}": value for name, value in metrics.items()}
            self.log_metrics(self.child(run, f"seed-{seed}"), named)
        flat = {f"test_{name}": value for name, value in evaluation["network"]["mean"].items()}
        for name, row in evaluation["baselines"].items():
            short = re.sub(r"\W+", "_", name.lower())  # MLflow refuses commas and the like
            flat |= {f"baseline_{short}_{k}": value for k, value in row["metrics"].items()}
        parent = self.parent(run)
        self.log_metrics(parent, flat)
        self.client.log_artifact(parent, str(run.folder / "evaluation.json"))

    def log_gate(self, run: Run, gate: dict[str, Any]) -> None:
        """How a challenger compares with the champion of its time."""
        parent = self.parent(run)
        numbers = {f"gate_{name}": float(gate[name]) for name in ("passed", "ahead", "low", "high")}
        self.log_metrics(parent, numbers)
        self.client.log_artifact(parent, str(run.folder / "gate.json"))

    def register(self, run: Run, bundle: Path, version: str) -> ModelVersion:
        """The registered model version of a bundle, uploaded unless it is there already."""
        for known in self._versions():
            if known.tags.get("bundle") == version:
                return known
        parent = self.parent(run)
        self.client.log_artifacts(parent, str(bundle), "bundle")
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        artifacts = self.client.get_run(parent).info.artifact_uri
        return self.client.create_model_version(
            self.name, f"{artifacts}/bundle", parent, {"bundle": version}
        )

    def alias(self, alias: str, version: str | None) -> None:
        """Give the alias to this version, taking it from the one that had it; None: to none."""
        try:
            if version is not None:
                self.client.set_registered_model_alias(self.name, alias, version)
            elif alias in self.client.get_registered_model(self.name).aliases:
                self.client.delete_registered_model_alias(self.name, alias)
        except MlflowException as error:
            raise WorkError(f"{self.name}: alias {alias} cannot be moved: {error}") from None

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """The bundle of a version, copied below `folder`."""
        assert version.run_id is not None, "set by register"
        try:
            return Path(self.client.download_artifacts(version.run_id, "bundle", str(folder)))
        except (MlflowException, OSError) as error:
            raise WorkError(
                f"{self.name} version {version.version}: its bundle cannot be fetched from "
                f"{version.source}: {error}"
            ) from None

    def _versions(self) -> list[ModelVersion]:
        return list(self.client.search_model_versions(f"name = '{self.name}'"))

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.name)
        if found is not None:
            return found.experiment_id
        address, artifacts = self.client.tracking_uri, None
        if address.startswith("sqlite:"):  # files lie beside the database
            artifacts = _file(address).resolve().with_name("mlartifacts").as_uri()
        return self.client.create_experiment(self.name, artifacts)

    def _find(self, name: str) -> str | None:
        runs = self.client.search_runs(
            [self.experiment], f"attributes.run_name = '{name}'", max_results=1
        )
        return runs[0].info.run_id if runs else None

    def _create(self, name: str, run: Run, tags: dict[str, str]) -> str:
        about = run.about
        origin = {
            "mlflow.source.git.commit": str(about["git"]["commit"]),
            "git_dirty": str(about["git"]["dirty"]),
            "data_fingerprint": about["data"]["fingerprint"],
            "hardware": about["hardware"],
            "command": about["command"],
            "folder": str(run.folder),
        }
        created = self.client.create_run(self.experiment, run_name=name, tags=origin | tags)
        parameters = [Param(key, value[:6000]) for key, value in flatten(run.settings).items()]
        self.client.log_batch(created.info.run_id, params=parameters)
        return created.info.run_id


@contextmanager
def track(tracker: Tracker, run: Run) -> Iterator[None]:
    """Close the training's MLflow run as what it was when the block is left."""
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
    """The database's file in `sqlite:///runs/mlflow.db`."""
    return Path(urlsplit(uri).path[1:])


def _client(uri: str) -> MlflowClient:
    """A client whose store is ready: two processes that create one database would collide."""
    try:
        if not uri.startswith("sqlite:"):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            return client
        database = _file(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(database.with_name(f".{database.name}.lock")):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        return client
    except Exception as error:  # each store and driver raises its own kinds
        raise WorkError(f"MLflow at {uri} does not answer: {error}") from None
