"""A run's folder: settings, origin, one sub-folder per seed, the evaluation.

runs/20261123-201500/
    run.json                     settings, data, code, hardware: what made it
    seed-0/last.safetensors      where to go on
    seed-0/best.safetensors      the weights of the best epoch
    seed-0/history.json          loss and metrics of each epoch
    pretraining/…                the same, of a stage that the network asked for before its own
    evaluation.json outputs.npz  written by `evaluate`
    bundle/                      written by `deploy`
"""

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..config import UserError, validate
from ..files import read_json, write_json
from ..interfaces import Pretrains, Stage
from ..task import data, model
from ..task.data import Dataset
from ..task.settings import Settings
from . import feedback_data
from .fit import TrainingState, fit, training_stage


@dataclass(frozen=True)
class Run:
    """A run's folder with what its `run.json` says."""

    folder: Path
    settings: Settings
    about: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    def seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def history(self, seed: int) -> dict[str, Any]:
        return read_json(self.seed_folder(seed) / "history.json")

    def seconds(self) -> float:
        """How long all its networks were trained, a pre-training included."""
        return sum(read_json(path)["seconds"] for path in self.folder.glob("*/history.json"))

    def dataset(self) -> Dataset:
        """The run's data; UserError when it is no longer what the run was trained on."""
        dataset = load_data(self.settings)
        if dataset.fingerprint != self.about["data"]["fingerprint"]:
            raise UserError(
                f"{self.folder}: the data has changed since this run was started; "
                "train a new run on it"
            )
        return dataset


def load_data(settings: Settings) -> Dataset:
    """The data of settings: what they name, less what is set aside, plus labelled requests."""
    dataset = original_data(settings)
    return (
        feedback_data.with_feedback(dataset, settings.live.feedback)
        if settings.live.feedback
        else dataset
    )


def original_data(settings: Settings) -> Dataset:
    """The same without labelled requests."""
    dataset = data.load(settings.data)
    return dataset.holdout(settings.live.set_aside)[0] if settings.live.set_aside else dataset


def create_run(settings: Settings, dataset: Dataset, folder: Path | None = None) -> Run:
    """A new run; without a folder that was reserved for it, in a new one."""
    started = datetime.now(UTC)
    about = {
        "settings": settings.model_dump(mode="json"),
        "data": {
            "about": dataset.about,
            "fingerprint": dataset.fingerprint,
            "rows": {
                name: len(next(iter(getattr(dataset, name).values())))
                for name in ("train", "validation", "test")
            },
        },
        "git": git_state(),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]]),
        "started": started.isoformat(timespec="seconds"),
    }
    folder = folder or reserve_folder(settings)
    write_json(folder / "run.json", about)
    return Run(folder, settings, about)


def open_run(settings: Settings, which: str | None = None) -> Run:
    """The run of that name or folder, or else the newest one."""
    runs = settings.paths.runs
    if which is not None:
        named = [path for path in (Path(which), runs / which) if (path / "run.json").is_file()]
        if not named:
            raise UserError(f"{which}: no such run (looked for {runs / which}/run.json)")
        return _read_run(named[0], settings)
    found = sorted(path.parent for path in runs.glob("*/run.json"))
    if not found:
        raise UserError(f"{runs}: no run there yet, start one with the verb train")
    return _read_run(found[-1], settings)


def _read_run(folder: Path, now: Settings) -> Run:
    """A run with the settings it was made with, but for the paths: those are today's."""
    about = read_json(folder / "run.json")
    given = {(key,): (value, str(folder)) for key, value in about["settings"].items()}
    settings = validate(Settings, given)  # again, for the code may have changed since
    return Run(folder, settings.model_copy(update={"paths": now.paths}), about)


@dataclass(frozen=True)
class TrainingJob:
    """One of the networks that a run trains."""

    name: str  # of its folder
    stage: Stage
    seed: int
    start: Path | None = None  # weights to begin with


def training_jobs(run: Run, dataset: Dataset) -> list[TrainingJob]:
    """What the run trains: a stage that the network asks for before its own, then every seed."""
    settings, stage = run.settings, training_stage(run.settings, dataset)
    network = model.build(settings, dataset.contract)
    before = network.pretraining(settings, dataset) if isinstance(network, Pretrains) else None
    found = [TrainingJob("pretraining", before, settings.train.seeds[0])] if before else []
    start = run.folder / "pretraining" / "best.safetensors" if before else None
    return [
        *found,
        *(TrainingJob(f"seed-{seed}", stage, seed, start) for seed in settings.train.seeds),
    ]


def train_run(
    run: Run,
    dataset: Dataset,
    on_epoch: Callable[[TrainingJob, TrainingState], None] = lambda part, state: None,
) -> Iterator[tuple[TrainingJob, TrainingState]]:
    """Train the run's networks, yielding (part, final state); finished ones are only read."""
    with stop_on_signals() as stop:
        for part in training_jobs(run, dataset):
            folder = run.folder / part.name

            def after(
                state: TrainingState, part: TrainingJob = part, folder: Path = folder
            ) -> None:
                write_json(folder / "history.json", vars(state))
                on_epoch(part, state)

            state = fit(part.stage, part.seed, folder, after, stop, part.start)
            after(state)  # once more: the run may have been killed between checkpoint and this
            yield part, state


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """A flag that Ctrl-C or SIGTERM raises; a second Ctrl-C stops at once."""
    asked = False

    def ask(number: int, _frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[number])

    wanted = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in wanted}
    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def git_state() -> dict[str, Any]:
    """The commit under the working directory and whether files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    dirty = None if status is None else bool(status)
    return {"commit": git("rev-parse", "HEAD"), "dirty": dirty}


def hardware() -> str:
    """Where the run was trained, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {platform.system()}"


def reserve_folder(settings: Settings) -> Path:
    """A new folder under `paths.runs`, named after the time; it is no run yet."""
    parent, name = settings.paths.runs, datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        folder = parent / (name + suffix)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise UserError(f"{parent}: a hundred runs were started in the same second")
