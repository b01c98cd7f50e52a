"""A run's folder: settings, origin, a folder per network, the evaluation.

runs/20261123-201500/
    run.json                     settings, data, code, hardware
    seed-0/last.safetensors      the checkpoint to resume from
    seed-0/best.safetensors      the weights of the best epoch
    seed-0/history.json          loss and metrics of each epoch
    pretraining/…                the same, if the network asks for a pre-training
    evaluation.json outputs.npz scores.npz  written by `evaluate`
    bundle/                      written by `deploy`
"""

import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ..arrays import row_count
from ..bundle.manifest import GitState
from ..config import UserError, differences, validate
from ..files import read_document, write_json, write_text
from ..interfaces import Pretrains, Stage
from ..progress import ProgressLines
from ..task import model
from ..task.data import Dataset
from ..task.settings import Settings
from . import processes
from .dataset import load_data
from .documents import DataInfo, RowCounts, RunInfo
from .fit import TrainingState, fit, training_stage


@dataclass(frozen=True)
class Run:
    """A run's folder and its `run.json`."""

    folder: Path
    settings: Settings
    info: RunInfo

    @property
    def name(self) -> str:
        return self.folder.name

    def seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def history(self, seed: int) -> TrainingState:
        """Read the progress of one seed's training."""
        return read_document(self.seed_folder(seed) / "history.json", TrainingState)

    @property
    def finished(self) -> bool:
        """Whether every network was trained to its end."""
        train = self.settings.train
        for seed in train.seeds:
            files = ("best.safetensors", "history.json")
            if not all((self.seed_folder(seed) / name).exists() for name in files):
                return False
            state = self.history(seed)
            if state.epoch < train.epochs and state.epoch - state.best_epoch < train.patience:
                return False
        return True

    def seconds(self) -> float:
        """Sum the training time of all its networks, a pre-training included."""
        histories = self.folder.glob("*/history.json")
        return sum(read_document(path, TrainingState).seconds for path in histories)

    def dataset(self) -> Dataset:
        """Load the run's data. Raises UserError when it has changed since the run was started."""
        dataset = load_data(self.settings)
        if dataset.fingerprint != self.info.data.fingerprint:
            raise UserError(
                f"{self.folder}: the data has changed since this run was started; train a new run"
            )
        return dataset


def create_run(
    settings: Settings,
    dataset: Dataset,
    folder: Path | None = None,
    question: str = "",
    hypothesis: str = "",
) -> Run:
    """Write `run.json` of a new run, into a new folder or one that was reserved for it."""
    info = describe_run(settings, dataset, question, hypothesis)
    folder = folder or reserve_folder(settings)
    write_json(folder / "run.json", info.model_dump())
    return Run(folder, settings, info)


def describe_run(
    settings: Settings, dataset: Dataset, question: str = "", hypothesis: str = ""
) -> RunInfo:
    """Gather what `run.json` holds."""
    splits = (dataset.train, dataset.validation, dataset.test)
    train, validation, test = map(row_count, splits)
    rows = RowCounts(train=train, validation=validation, test=test)
    hardware = f"{os.cpu_count()} CPU cores ({platform.machine()}), {platform.system()}"
    if torch.cuda.is_available():
        hardware = torch.cuda.get_device_name()
    if processes.count() > 1:
        hardware += f", {processes.count()} processes"
    return RunInfo(
        settings=settings.model_dump(mode="json"),
        data=DataInfo(
            about=dataset.about,
            fingerprint=dataset.fingerprint,
            rows=rows,
            notes=dataset.notes,
            limits=dataset.limits,
        ),
        git=git_state(),
        hardware=hardware,
        versions={"python": platform.python_version(), "torch": torch.__version__},
        command=shlex.join([Path(sys.argv[0]).stem, *sys.argv[1:]]),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        question=question,
        hypothesis=hypothesis,
    )


def reserve_folder(settings: Settings) -> Path:
    """Make a folder under `paths.runs`, named after the time; without `run.json` it is no run."""
    parent, name = settings.paths.runs, datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        with suppress(FileExistsError):
            (parent / (name + suffix)).mkdir()
            return parent / (name + suffix)
    raise UserError(f"{parent}: a hundred runs were started in the same second; try again")


def open_run(
    settings: Settings,
    which: str | None = None,
    resume: bool = False,
    any_data: bool = False,
    echo: Callable[[str], None] = print,
) -> Run:
    """Open the run with this name or folder, by default the newest finished one of this
    configuration: with its `name` and, unless `any_data` will do, its `data`. To `resume` a run,
    which keeps its settings, the name is enough, and it need not be finished.

    Newer runs that do not fit, and other data, are reported. A run keeps its settings, but for the
    paths, which are today's. Raises UserError, which lists the runs, when none fits.
    """
    parent, skipped = settings.paths.runs, list[str]()
    keys = {"name"} if resume or any_data else {"name", "data"}
    if which is not None:
        folder = Path(which) if (Path(which) / "run.json").is_file() else parent / which
        if not (folder / "run.json").is_file():
            raise UserError(f"{which}: no such run ({folder / 'run.json'} does not exist)")
        return read_run(folder, settings)
    for path in sorted(parent.glob("*/run.json"), reverse=True):
        try:
            run = read_run(path.parent, settings)
            reason = _differences(run, settings, keys)
            if not (reason or resume or run.finished):
                reason = f"not finished; go on with: train --resume {run.name}"
        except UserError as error:
            reason = str(error).splitlines()[0]
        else:
            if not reason:
                other = _differences(run, settings, {"data"}) if any_data else ""
                if skipped or other:
                    told = f" ({other})" if other else ""
                    for line in [*_shortened(skipped), f"run {run.name}{told}"]:
                        echo(line)
                return run
        skipped.append(f"skipped run {path.parent.name}: {reason}")
    if not skipped:
        raise UserError(f"{parent}: no run here yet; start one with the command train")
    goal = "no run of this name" if resume else "no finished run of this configuration"
    way = "--resume RUN" if resume else "--run RUN or --config FILE"
    summary = f"{parent}: {goal} ({settings.name}); train one, or name another with {way}"
    raise UserError("\n".join([summary, *_shortened(skipped)]))


def read_run(folder: Path, settings: Settings) -> Run:
    """Read a run, whose settings count but for the paths. Raises UserError for an invalid one."""
    info = read_document(folder / "run.json", RunInfo)
    values = {(key,): (value, str(folder)) for key, value in info.settings.items()}
    validated = validate(Settings, values)  # again: the code may have changed since
    return Run(folder, validated.model_copy(update={"paths": settings.paths}), info)


def _differences(run: Run, settings: Settings, keys: set[str]) -> str:
    """Return how these sections of a run's settings differ from the configuration's, else ""."""
    dumps = (each.model_dump(mode="json", include=keys) for each in (run.settings, settings))
    return ", ".join(_shortened(differences(*dumps)))


def _shortened(lines: list[str], most: int = 5) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


class RunLocked(UserError):
    """Another process is training the run."""


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keep other processes from training the run; a lock ends with its process, however it ends.

    Of several processes the first one holds it. Raises RunLocked, which names the other process.
    """
    held, holder = FileLock(run.folder / ".lock", blocking=False), run.folder / ".process"

    def acquire() -> None:
        try:
            held.acquire()
        except Timeout:
            who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            raise RunLocked(f"run {run.name}: {who} is training it; nothing was done") from None
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")

    processes.on_first(acquire)
    try:
        yield
    finally:
        held.release()


@dataclass(frozen=True)
class TrainingJob:
    """One of the networks that a run trains."""

    name: str  # of its folder
    stage: Stage
    seed: int
    start: Path | None = None  # weights to begin with


def training_jobs(run: Run, dataset: Dataset) -> list[TrainingJob]:
    """List what the run trains: a pre-training if the network has one, then a network per seed."""
    settings, seeds = run.settings, run.settings.train.seeds
    network = model.build(settings, dataset.contract)
    jobs, start = [], None
    if isinstance(network, Pretrains) and (stage := network.pretraining(settings, dataset)):
        jobs.append(TrainingJob("pretraining", stage, seeds[0]))
        start = run.folder / "pretraining" / "best.safetensors"
    stage = training_stage(settings, dataset)
    return [*jobs, *(TrainingJob(f"seed-{seed}", stage, seed, start) for seed in seeds)]


def train_run(
    run: Run,
    dataset: Dataset,
    on_epoch: Callable[[TrainingJob, TrainingState], None] = lambda job, state: None,
) -> Iterator[tuple[TrainingJob, TrainingState]]:
    """Train the run's networks, yielding each job with its final state; finished ones are read.

    The caller holds the run's `lock`.
    """
    report = ProgressLines()
    with stop_on_signals() as stop:
        for job in training_jobs(run, dataset):

            def save_history(state: TrainingState, job: TrainingJob = job) -> None:
                if processes.rank():
                    return
                write_json(run.folder / job.name / "history.json", vars(state))
                on_epoch(job, state)
                report(_progress(job, state))

            state = fit(job.stage, job.seed, run.folder / job.name, save_history, stop, job.start)
            save_history(state)  # once more: a kill may have hit between checkpoint and history
            yield job, state


def _progress(job: TrainingJob, state: TrainingState) -> str:
    """Describe how far a training is."""
    metric, newest = job.stage.primary_metric, state.history[-1]
    return (
        f"{job.name}: epoch {state.epoch} of {job.stage.train.epochs}, loss {newest['loss']:.4g}, "
        f"{metric} {newest[metric]:.4f} on validation, {state.seconds:.0f} s"
    )


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns true after Ctrl-C or SIGTERM; a second one ends at once.

    Not so under `torchrun`, which passes on what the terminal has sent already, and kills later. If
    it is killed itself, its processes stop too, for nobody else would stop them.
    """
    received: list[int] = []
    torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        if processes.count() == 1:
            signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: bool(received) or torchrun not in (None, os.getppid())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def git_state() -> GitState:
    """Ask git for the commit and for uncommitted changes."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return GitState(commit=git("rev-parse", "HEAD"), dirty=None if status is None else bool(status))
