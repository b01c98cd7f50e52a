"""MLflow: a parent run per training with a child run per network, and the registry of bundles.

MLflow takes seconds to import, so only commands that need it import this module. It stores absolute
locations: those of a project that was moved or copied are corrected when the project is opened.
"""

import logging
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # both are read at import
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.entities.model_registry import ModelVersion

from ..config import WorkError, flatten
from ..files import write_atomically
from ..task.settings import Settings
from ..training.documents import Evaluation
from ..training.fit import Interrupted, TrainingState
from ..training.runs import Run
from .mlflow_model import BUNDLE, write_mlflow_model

CHAMPION, CHALLENGER = "champion", "challenger"
ARTIFACTS = "mlartifacts"  # the folder beside an SQLite database
BUNDLE_IN_MODEL = f"model/{BUNDLE}"
LOCATIONS = (  # the columns of MLflow's tables that hold absolute addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs each migration of its tables


class Tracker:
    """Logs runs to the project's MLflow experiment and registers their bundles."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name
        uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.paths.tracking
        database = artifacts = None
        if uri.startswith("sqlite:///"):
            path, mark, options = uri.removeprefix("sqlite:///").partition("?")
            database = Path(path).resolve()
            # Absolute: MLflow keeps a connection for each address, whatever the working directory.
            uri = f"sqlite:///{database}{mark}{options}"
            artifacts = database.with_name(ARTIFACTS).as_uri()
        self.client = _client(uri, database)
        experiment = self.client.get_experiment_by_name(self.name)
        if experiment is None:
            self.experiment = self.client.create_experiment(self.name, artifacts)
        else:
            self.experiment = experiment.experiment_id
            if experiment.lifecycle_stage != "active":
                raise WorkError(
                    f"MLflow at {uri}: the experiment {self.name} was deleted there; restore it "
                    f"(MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id "
                    f"{self.experiment}) or give another name (name=…)"
                )
            if database and artifacts and experiment.artifact_location != artifacts:
                _follow_move(database, experiment.artifact_location, artifacts)
        self._logged: dict[str, int] = {}  # epochs by MLflow run

    def parent(self, run: Run) -> str:
        """Return the id of the MLflow run of a whole training; created on first use."""
        return self.mlflow_run(run.name, run, {})

    def child(self, run: Run, job: str) -> str:
        """Return the id of the MLflow run of one network (`seed-0`); created on first use."""
        tags = {"mlflow.parentRunId": self.parent(run), "part": job}
        return self.mlflow_run(f"{run.name}-{job}", run, tags)

    def log_epochs(self, run_id: str, state: TrainingState) -> None:
        """Log the metrics of the epochs that MLflow does not have yet."""
        if run_id not in self._logged:
            self._logged[run_id] = len(self.client.get_metric_history(run_id, "loss"))
        for epoch in range(self._logged[run_id] + 1, state.epoch + 1):
            self.log_metrics(run_id, state.history[epoch - 1], epoch)
        self._logged[run_id] = state.epoch

    def log_metrics(self, run_id: str, metrics: dict[str, float], step: int = 0) -> None:
        """Log metrics of one step in one request."""
        now = time.time_ns() // 1_000_000
        self.client.log_batch(run_id, [Metric(k, v, now, step) for k, v in metrics.items()])

    def log_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Log the test metrics of each seed, of their mean, of the baselines and ablations."""
        for seed, metrics in evaluation.network.seeds.items():
            self.log_metrics(
                self.child(run, f"seed-{seed}"), {f"test_{k}": v for k, v in metrics.items()}
            )
        metrics = {f"test_{k}": v for k, v in evaluation.network.mean.items()}
        for kind, results in (
            ("baseline", evaluation.baselines),
            ("ablation", evaluation.ablations),
        ):
            for name, result in results.items():
                short = re.sub(r"\W+", "_", name.lower())  # MLflow refuses commas and the like
                metrics |= {f"{kind}_{short}_{k}": v for k, v in result.metrics.items()}
        parent = self.parent(run)
        self.log_metrics(parent, metrics)
        self.client.log_artifact(parent, str(run.folder / "evaluation.json"))

    def log_gate(self, run: Run, gate: dict[str, Any]) -> None:
        """Log the comparison of the run, a challenger, with the champion."""
        parent, names = self.parent(run), ("passed", "ahead", "low", "high")
        self.log_metrics(parent, {f"gate_{name}": float(gate[name]) for name in names})
        self.client.log_artifact(parent, str(run.folder / "gate.json"))

    def register(self, run: Run, bundle: Path, version: str) -> ModelVersion:
        """Return the registered model version of a bundle, uploaded if it is not there yet."""
        for registered in self.client.search_model_versions(f"name = '{self.name}'"):
            if registered.tags.get("bundle") == version:
                if not self.client.list_artifacts(str(registered.run_id), _artifact(registered)):
                    # The database came here without its folder of artifacts.
                    self._upload(bundle, str(registered.run_id), _artifact(registered))
                return registered
        parent = self.parent(run)
        self._upload(bundle, parent, BUNDLE_IN_MODEL)
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        artifacts = self.client.get_run(parent).info.artifact_uri
        return self.client.create_model_version(
            self.name, f"{artifacts}/model", parent, {"bundle": version}
        )

    def _upload(self, bundle: Path, run_id: str, artifact: str) -> None:
        if artifact != BUNDLE_IN_MODEL:
            self.client.log_artifacts(run_id, str(bundle), artifact)
            return
        with TemporaryDirectory() as folder:
            write_mlflow_model(bundle, run_id, Path(folder))
            self.client.log_artifacts(run_id, folder, "model")

    def alias(self, alias: str, version: str | None) -> None:
        """Move the alias to this version, or remove it for None."""
        if version is not None:
            self.client.set_registered_model_alias(self.name, alias, version)
        elif alias in self.client.get_registered_model(self.name).aliases:
            self.client.delete_registered_model_alias(self.name, alias)

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Copy the bundle of a version to `folder` and return its path."""
        assert version.run_id is not None, "set by register"
        artifact = _artifact(version)
        return Path(self.client.download_artifacts(version.run_id, artifact, str(folder)))

    def mlflow_run(self, name: str, run: Run, tags: dict[str, str]) -> str:
        """Return the id of the MLflow run of this name; create it with the run's origin."""
        query = f"attributes.run_name = '{name}'"
        if existing := self.client.search_runs([self.experiment], query, max_results=1):
            return existing[0].info.run_id
        tags = tags | {
            "mlflow.source.git.commit": str(run.info.git.commit),
            "git_dirty": str(run.info.git.dirty),
            "data_fingerprint": run.info.data.fingerprint,
            "hardware": run.info.hardware,
            "command": run.info.command,
            "folder": str(run.folder),
        }
        run_id = self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        parameters = [Param(key, value[:6000]) for key, value in flatten(run.settings).items()]
        self.client.log_batch(run_id, params=parameters)
        return run_id


def _artifact(version: ModelVersion) -> str:
    """Return where the bundle is among a run's artifacts; before there was a model around it, the
    bundle itself was registered."""
    return "bundle" if str(version.source).endswith("/bundle") else BUNDLE_IN_MODEL


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
        # A block that failed has its own error, which says more than a second one of MLflow's.
        with nullcontext() if status == "FINISHED" else suppress(WorkError):
            tracker.client.set_terminated(tracker.parent(run), status)


class _Client:
    """MLflow's client; each error of its stores and drivers becomes a WorkError of one line."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with _as_work_error(uri):
            self._client = MlflowClient(uri)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        @wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            with _as_work_error(self._uri):
                return method(*arguments, **options)

        return call


@contextmanager
def _as_work_error(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each store and driver raises its own kinds
        reason = str(error).partition("\n")[0].partition("OperationalError) ")
        text = reason[2] or reason[0] or type(error).__name__
        if re.search(r"table \S+ already exists|duplicate column name", text):
            text += "; a migration of its tables was killed: move the file away, for a new one"
            text += " without its runs, or put a backup in its place"
        raise WorkError(f"MLflow at {uri} does not answer: {text}") from None


def _client(uri: str, database: Path | None) -> MlflowClient:
    """Return a client whose store exists: two processes must not create one `database` at once."""
    lock = nullcontext()
    with _as_work_error(uri):
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(database.with_name(f".{database.name}.lock"))
        with lock:
            if database and not (database.exists() and database.stat().st_size):
                _create(database)
            MlflowClient(uri).search_experiments(max_results=1)
    return cast(MlflowClient, _Client(uri))


def _create(database: Path) -> None:
    """Let MLflow make its tables elsewhere, and copy them into place when they are complete.

    Its migrations take seconds and are not transactional: a kill between two statements leaves a
    database that can never be opened again.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows: it is still open
        made = Path(folder, "mlflow.db")
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        write_atomically(database, lambda temporary: shutil.copyfile(made, temporary))


def _follow_move(database: Path, old: str, new: str) -> None:
    """Replace the address of a folder of artifacts in MLflow's tables.

    Leaves locations alone that this module did not choose, and artifacts that were left behind on
    purpose when only the database was moved.
    """
    old_folder, new_folder = (Path(url2pathname(urlsplit(uri).path)) for uri in (old, new))
    chosen = old.startswith("file:") and old_folder.name == ARTIFACTS
    if not chosen or (old_folder.exists() and not new_folder.exists()):
        return
    opened = closing(sqlite3.connect(database))
    with _as_work_error(f"sqlite:///{database}"), opened as connection, connection:
        for table, column in LOCATIONS:
            update = f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608  # nosec
            update += f" WHERE substr({column} || '/', 1, ?) = ?"
            connection.execute(update, (new, len(old) + 1, len(old) + 1, f"{old}/"))
