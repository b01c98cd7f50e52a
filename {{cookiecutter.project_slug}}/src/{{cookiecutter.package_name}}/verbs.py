"""What each verb of the command line does. Heavy libraries are imported by the verb that needs
them, so that `--help` and wrong input are answered at once."""

import gc
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import UserError, WorkError, load_settings
from .task.settings import Settings

if TYPE_CHECKING:
    from .task.data import Dataset
    from .training.runs import Run

DEFAULT_CONFIG = Path("configs/default.yaml")


def train(options: Namespace) -> None:
    from .experiments.tracked_runs import train_tracked as fit
    from .training import runs
    from .training.dataset import load_data

    settings = read_settings(options)
    if options.resume is not None:
        if options.settings:
            raise UserError("command line: a resumed run keeps its settings, leave out the others")
        run = runs.open_run(settings, options.resume or None)
        dataset = run.dataset()
    else:
        dataset = load_data(settings)
        run = runs.create_run(settings, dataset)
    rows = dict(run.info.data.rows)
    print(f"run {run.name}: {', '.join(f'{count} rows {name}' for name, count in rows.items())}")
    fit(run, dataset, f"{options.command} train --resume {run.name}")
    print(f"next: {options.command} evaluate, report or deploy")


def evaluate(options: Namespace) -> None:
    from .experiments.report import markdown_table, results_summary, results_table
    from .experiments.tracked_runs import evaluate_tracked

    run, dataset = _run(options)
    evaluation = evaluate_tracked(run, dataset)
    print("\n".join(["", *results_table(evaluation), "", results_summary(evaluation), ""]))
    for name, rows in evaluation.details.items():
        if isinstance(rows, dict):
            columns = list(next(iter(rows.values())))
            cells = [[name, *columns]]
            for key, row in rows.items():
                cells.append([key, *(f"{row[column]:.4g}" for column in columns)])
            print("\n".join(markdown_table(cells)))
    print(f"\nwritten: {run.folder / 'evaluation.json'}")


def report(options: Namespace) -> None:
    from .experiments.report import results_summary
    from .experiments.report import write_report as write
    from .experiments.tracked_runs import read_or_evaluate as evaluated

    run, dataset = _run(options)
    evaluation = evaluated(run, dataset)
    files = write(run, dataset, evaluation, options.command)
    print(results_summary(evaluation))
    print("\n".join(f"written: {path}" for path in files))


def deploy(options: Namespace) -> None:
    from .bundle.load import BadBundle
    from .experiments.tracked_runs import read_or_evaluate as evaluated
    from .experiments.tracking import Tracker
    from .release.rollout import deploy as install

    run, dataset = _run(options)
    evaluation = evaluated(run, dataset)
    print(f"packing run {run.name}, seed {evaluation.chosen_seed} …")
    try:
        folder = install(run, dataset, evaluation, Tracker(run.settings), options.reason)
    except BadBundle as error:
        raise WorkError(str(error)) from None
    print(f"deployed: {folder}")
    print(f"next: {options.command} serve (a running server takes it up by itself)")


def serve(options: Namespace) -> None:
    gc.disable()  # no module that is loaded is garbage; the application enables it when it is ready
    from .serving.server import serve as run
    from .serving.settings import load_server_settings
    from .serving.wiring import ServerSettings

    run(load_server_settings(ServerSettings, options.settings))


def predict(options: Namespace) -> None:
    from .bundle.load import BadBundle
    from .interfaces import InvalidItem
    from .task.contract import item_from_file

    for path in options.files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    items = [item_from_file(path) for path in options.files]
    try:
        if options.url:
            answer = ask(
                options.url, "/v1/predict", {"items": items or _example(options.deployment)}
            )
        else:
            answer = _predict(options.deployment, items or _example(options.deployment))
    except InvalidItem as error:
        name = options.files[error.index] if options.files else error.field
        raise UserError(f"{name}: {error}") from None
    except BadBundle as error:
        raise WorkError(str(error)) from None
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def read_settings(options: Namespace) -> Settings:
    """The settings that a verb was given."""
    if options.config == DEFAULT_CONFIG and not DEFAULT_CONFIG.exists():
        raise UserError(
            f"{DEFAULT_CONFIG}: no such file here; go to the project's folder or give --config FILE"
        )
    return load_settings(Settings, options.config, options.settings)


def _run(options: Namespace) -> "tuple[Run, Dataset]":
    from .training.runs import open_run

    run = open_run(read_settings(options), options.run)
    return run, run.dataset()


def _example(deployment: Path) -> list[Any]:
    """The items that the deployed bundle has as its example."""
    from .bundle.deployment import champion_path
    from .files import read_json

    folder, _ = champion_path(deployment)
    return read_json(folder / "example.json")["items"]


def _predict(deployment: Path, items: list[Any]) -> dict[str, Any]:
    """What the deployed bundle answers, without a server."""
    from .bundle.deployment import champion_path
    from .bundle.load import load_bundle
    from .task.contract import Item

    bundle = load_bundle(*champion_path(deployment))
    wanted = [Item.model_validate(item) for item in items]
    found = bundle.contract.decode(bundle.run(bundle.contract.encode(wanted)), wanted)
    return {
        "model": bundle.name,
        "model_version": bundle.version,
        "predictions": [prediction.model_dump() for prediction in found],
    }


def ask(url: str, path: str, content: Any) -> Any:
    """What a server answers to content that is sent there as JSON, with the first of its keys."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    address = url.rstrip("/") + path
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: must start with http:// or https://")
    data = json.dumps(content).encode()
    headers = {"content-type": "application/json"}
    if key := os.environ.get("APP_API_KEYS", "").split(",")[0].strip():
        headers["x-api-key"] = key
    request = Request(address, data, headers)
    try:
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        text = error.read().decode(errors="replace")
        raise WorkError(f"{address}: answered {error.code}: {text}") from None
    except (URLError, TimeoutError, ValueError) as error:
        raise WorkError(f"{address}: no answer: {getattr(error, 'reason', error)}") from None
