"""The command line: one verb per step. Heavy libraries are imported by the verb that needs them."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import UserError, WorkError, describe, load
from .task.settings import Settings

if TYPE_CHECKING:
    from .task.data import Dataset
    from .training.runs import Run

DEFAULT_CONFIG = Path("configs/default.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; 0 done, 1 the work failed, 2 what the user gave was wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.verb(options) or 0
    except UserError as error:
        return _fail(error, 2)
    except WorkError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except BrokenPipeError:  # the reader of our output went away; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)


def train(options: argparse.Namespace) -> None:
    from .experiments.tracking import Tracker, track
    from .task import data, objective
    from .training import runs
    from .training.loop import Interrupted

    settings = _settings(options)
    if options.resume is not None:
        if options.settings:
            raise UserError("command line: a resumed run keeps its settings, leave out the others")
        run = runs.open_run(settings, options.resume or None)
        dataset = run.dataset()
    else:
        dataset = data.load(settings.data)
        run = runs.create(settings, dataset)
    rows = run.about["data"]["rows"]
    print(f"run {run.name}: {', '.join(f'{count} rows {name}' for name, count in rows.items())}")
    tracker = Tracker(run.settings)
    children = {seed: tracker.child(run, seed) for seed in run.settings.train.seeds}
    shown = objective.SHOWN[objective.DECIDES]
    logged = {seed: _epochs(run, seed) for seed in children}

    def on_epoch(seed: int, state: Any) -> None:
        tracker.log_epochs(children[seed], state, logged[seed])
        logged[seed] = state.epoch

    try:
        with track(tracker, run):
            for seed, state in runs.train(run, dataset, on_epoch):
                tracker.finish(children[seed], "FINISHED")
                best = f"{(state.best or 0) * shown.scale:.{shown.digits}f}"
                print(
                    f"seed {seed}: {shown.title} {best} on validation "
                    f"in epoch {state.best_epoch} of {state.epoch}, {state.seconds:.1f} s"
                )
    except Interrupted:
        command = f"{options.command} train --resume {run.name}"
        raise WorkError(f"stopped, nothing is lost; go on with: {command}") from None
    print(f"next: {options.command} evaluate, report or deploy")


def evaluate(options: argparse.Namespace) -> None:
    from .experiments.report import markdown, summary, table
    from .experiments.tracking import Tracker
    from .training.evaluate import evaluate as measure

    run, dataset = _run(options)
    evaluation = measure(run, dataset)
    Tracker(run.settings).log_evaluation(run, evaluation)
    print("\n".join(["", *table(evaluation), "", summary(evaluation), ""]))
    for name, rows in evaluation["details"].items():
        if isinstance(rows, dict):
            columns = list(next(iter(rows.values())))
            cells = [[name, *columns]]
            for key, row in rows.items():
                cells.append([key, *(f"{row[column]:.4g}" for column in columns)])
            print("\n".join(markdown(cells)))
    print(f"\nwritten: {run.folder / 'evaluation.json'}")


def report(options: argparse.Namespace) -> None:
    from .experiments.report import report as write
    from .experiments.report import summary

    run, dataset = _run(options)
    evaluation = _evaluation(run, dataset)
    files = write(run, dataset, evaluation, options.command)
    print(summary(evaluation))
    print("\n".join(f"written: {path}" for path in files))


def deploy(options: argparse.Namespace) -> None:
    from .bundle.deploy import deploy as install
    from .bundle.load import BadBundle
    from .experiments.tracking import Tracker

    run, dataset = _run(options)
    evaluation = _evaluation(run, dataset)
    print(f"packing run {run.name}, seed {evaluation['chosen_seed']} …")
    try:
        folder = install(run, dataset, evaluation, Tracker(run.settings))
    except BadBundle as error:
        raise WorkError(str(error)) from None
    print(f"deployed: {folder}")
    print(f"next: {options.command} serve (a running server takes it up by itself)")


def serve(options: argparse.Namespace) -> None:
    from .serving.server import serve as run
    from .serving.settings import load as load_serving

    run(load_serving(options.settings))


def predict(options: argparse.Namespace) -> None:
    from .bundle.load import BadBundle, deployed
    from .bundle.load import load as load_bundle
    from .task.contract import InvalidItem, Item, item_from_file

    for path in options.files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    items = [item_from_file(path) for path in options.files]
    try:
        folder, digest = (None, None) if options.url and items else deployed(options.deployment)
        if not items and folder is not None:
            items = json.loads((folder / "example.json").read_text(encoding="utf-8"))["items"]
        if options.url:
            answer = _post(options.url, {"items": items})
        else:
            assert folder is not None, "looked up above"
            bundle = load_bundle(folder, digest)
            inputs = bundle.contract.encode([Item.model_validate(item) for item in items])
            found = bundle.contract.decode(bundle.run(inputs))
            answer = {
                "model": bundle.name,
                "model_version": bundle.version,
                "predictions": [prediction.model_dump() for prediction in found],
            }
    except InvalidItem as error:
        name = options.files[error.index] if options.files else error.field
        raise UserError(f"{name}: {error}") from None
    except BadBundle as error:
        raise WorkError(str(error)) from None
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def build_parser() -> argparse.ArgumentParser:
    """The verbs and what each takes."""
    command = Path(sys.argv[0]).stem
    if command == "__main__":
        command = f"python -m {__package__}.cli"
    parser = argparse.ArgumentParser(
        command,
        description="Train a model, measure it against baselines, document, deploy and serve it.",
        epilog=f"In this order: {command} train, evaluate, report, deploy, serve, predict. "
        f"{command} VERB --help tells more. Exit code: 0 done, 1 the work failed, 2 wrong input.",
    )
    parser.set_defaults(command=command)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def add(verb: Callable[..., Any], help: str, text: str, epilog: str) -> argparse.ArgumentParser:
        new = verbs.add_parser(
            verb.__name__,
            help=help,
            description=text,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        new.set_defaults(verb=verb)
        return new

    training = _table(Settings, "APP_SECTION__KEY", "section.key=value")
    new = add(
        train,
        "train one network per seed",
        "Train one network per seed and track it with MLflow.\n"
        "Ctrl-C saves and tells how to go on; a killed run goes on too, to the same weights.",
        f"examples:\n  {command} train\n  {command} train train.epochs=5 train.seeds=[0]\n"
        f"  {command} train --resume\n\n{training}",
    )
    new.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with the newest run, or RUN"
    )
    _common(new)
    for verb, help, text in (
        (
            evaluate,
            "measure the newest run on the test split, against baselines",
            "Measure every seed of a run and the baselines on the same test split.",
        ),
        (
            report,
            "write the results into README, MODEL_CARD.md and docs/experiments",
            "Draw the pictures and rewrite the marked sections of README.md and MODEL_CARD.md\n"
            "and the list of experiments. Nothing outside of the markers is touched.",
        ),
        (
            deploy,
            "pack the newest run, register it as champion and install it",
            "Export the seed that is best on validation to ONNX, check it against torch, pack it\n"
            "with its contract, register it in MLflow as champion, install it for the server.",
        ),
    ):
        example = f"examples:\n  {command} {verb.__name__}\n  {command} {verb.__name__} --run RUN"
        new = add(verb, help, text, f"{example}\n\nRUN is a folder in runs/.")
        new.add_argument("--run", metavar="RUN", help="another run than the newest")
        _common(new)

    from .serving.settings import Serving  # pydantic only; the server itself is imported later

    new = add(
        serve,
        "serve the deployed model over HTTP",
        "Serve what is in the deployment folder; a new deployment is taken up without a restart.",
        f"examples:\n  {command} serve\n  {command} serve port=8080 host=0.0.0.0\n\n"
        + _table(Serving, "APP_KEY", "key=value"),
    )
    new.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    new = add(
        predict,
        "predict files, with the deployed model or by asking a server",
        "Predict files, or the bundle's own example when none is given. Prints JSON.",
        f"examples:\n  {command} predict\n  {command} predict a.png b.png\n"
        f"  {command} predict a.png --url http://127.0.0.1:8000",
    )
    new.add_argument("files", nargs="*", type=Path, metavar="FILE", help="what to predict")
    new.add_argument("--url", help="ask the server at this address")
    new.add_argument(
        "--deployment",
        type=Path,
        default=Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment")),
        metavar="FOLDER",
        help="the deployment folder (default: $APP_DEPLOYMENT_DIR or deployment)",
    )
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"YAML file with settings (default: {DEFAULT_CONFIG.as_posix()})",
    )
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings")


def _table(schema: type[Any], variable: str, argument: str) -> str:
    rows = [(key, default, text) for key, default, text in describe(schema)]
    width = max(len(key) + len(default) for key, default, _ in rows) + 1
    lines = [f"  {f'{key}={default}':<{width}}  {text}" for key, default, text in rows]
    head = f"settings with their defaults, as {argument} or in the environment as {variable}:"
    return "\n".join([head, *lines])


def _settings(options: argparse.Namespace) -> Settings:
    if options.config == DEFAULT_CONFIG and not DEFAULT_CONFIG.exists():
        raise UserError(
            f"{DEFAULT_CONFIG}: no such file here; go to the project's folder or give --config FILE"
        )
    return load(Settings, options.config, options.settings)


def _run(options: argparse.Namespace) -> "tuple[Run, Dataset]":
    from .training.runs import open_run

    run = open_run(_settings(options), options.run)
    return run, run.dataset()


def _evaluation(run: "Run", dataset: "Dataset") -> dict[str, Any]:
    """The run's evaluation; measured and tracked now if that was not done yet."""
    from .files import read_json

    path = run.folder / "evaluation.json"
    if path.exists():
        return read_json(path)
    from .experiments.tracking import Tracker
    from .training.evaluate import evaluate as measure

    evaluation = measure(run, dataset)
    Tracker(run.settings).log_evaluation(run, evaluation)
    return evaluation


def _epochs(run: "Run", seed: int) -> int:
    """How many epochs of a seed are tracked already."""
    path = run.seed_folder(seed) / "history.json"
    return run.history(seed)["epoch"] if path.exists() else 0


def _post(url: str, body: dict[str, Any]) -> Any:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    address = url.rstrip("/") + "/v1/predict"
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: must start with http:// or https://")
    data = json.dumps(body).encode()
    request = Request(address, data, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except HTTPError as error:
        text = error.read().decode(errors="replace")
        raise WorkError(f"{address}: answered {error.code}: {text}") from None
    except (URLError, TimeoutError, ValueError) as error:
        raise WorkError(f"{address}: no answer: {getattr(error, 'reason', error)}") from None


def _fail(error: object, code: int) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
