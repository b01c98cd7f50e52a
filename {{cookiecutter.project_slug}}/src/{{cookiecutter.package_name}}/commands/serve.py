"""Deploy, serve, predict, roll back."""

import gc
import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..client import Client
from ..config import UserError, WorkError, differences, load_settings
from ..serving.wiring import ServerSettings
from ..task.settings import Settings
from . import common
from .publish import publish_afterwards


def register(group: common.CommandGroup) -> None:
    parser = group.add(run_deploy, "", "--run RUN", '--force --reason "for the demo"')
    text = "even if it is significantly worse than the champion or a baseline; needs --reason"
    parser.add_argument("--force", action="store_true", help=text)
    common.add_reason_option(parser)
    common.add_run_option(parser)
    parser = group.add(
        run_serve, "", "port=8080 host=0.0.0.0", notes=common.settings_table(ServerSettings)
    )
    parser.add_argument("settings", nargs="*", metavar="key=value", help="see below")
    parser = group.add(run_predict, "", "FILE", "FILE --url http://127.0.0.1:8000")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="inputs")
    parser.add_argument("--url", help="of a server; sends the first key of $APP_API_KEYS, if any")
    folder = Path(os.environ.get("APP_DEPLOYMENT_DIR", "deployment"))
    text = "the deployment folder (default: $APP_DEPLOYMENT_DIR, or else deployment)"
    parser.add_argument("--deployment", type=Path, default=folder, metavar="FOLDER", help=text)
    parser = group.add(run_rollback, '--reason "errors since the deployment"')
    common.add_reason_option(parser)
    common.add_config_options(parser)


def run_deploy(options: Namespace) -> None:
    """Export a run, register it as champion and deploy it.

    Exports the seed with the best validation result to ONNX, checks it against PyTorch, bundles it
    with its contract, registers it in MLflow and puts it into the deployment folder. Refuses a run
    that is significantly worse than the champion on the same test rows, or than a baseline.
    """
    from ..experiments.tracked_runs import read_or_evaluate
    from ..experiments.tracking import Tracker
    from ..release.rollout import deploy, deploy_doubts

    if options.force and options.reason == common.BY_HAND:
        raise UserError('--force: needs a reason for the history: --reason "why"')
    run, dataset = common.open_run_with_data(options)
    evaluation = read_or_evaluate(run, dataset)
    if change := _other_data(run.settings):
        print(change)
    doubts = deploy_doubts(run, evaluation)
    if doubts and not options.force:
        raise WorkError(
            f"run {run.name} was not deployed: it is significantly worse than "
            f"{'; and '.join(doubts)}"
            '; improve it, choose another with --run, or deploy it with --force --reason "why"'
        )
    print(f"exporting run {run.name}, seed {evaluation.chosen_seed} …")
    folder = deploy(run, dataset, evaluation, Tracker(run.settings), options.reason, doubts)
    print(f"deployed: {folder}")
    publish_afterwards(run.settings, options.command)
    print(f"next: {options.command} serve (a running server picks it up by itself)")


def _other_data(settings: Settings) -> str:
    """Say when the champion so far has another name, or was trained on other data."""
    from ..bundle import deployment, load

    try:
        manifest = load.verify_bundle(deployment.champion_path(settings.paths.deployment)[0])
    except load.BadBundle:  # nothing to replace
        return ""
    today = settings.model_dump(mode="json", include={"name", "data"})
    if not (differ := differences(today, manifest.config)):
        return ""
    return f"note: replaces {manifest.version}, a model of other data: {', '.join(differ[:5])}"


def run_serve(options: Namespace) -> None:
    """Serve the deployed model over HTTP; a new deployment needs no restart."""
    gc.disable()  # loaded modules are never garbage; the application enables it when it is ready
    from ..serving.server import serve

    serve(load_settings(ServerSettings, overrides=options.settings))


def run_predict(options: Namespace) -> None:
    """Predict files with the deployed model or a running server.

    Predicts the bundle's example request if no file is given. Prints JSON.
    """
    from ..bundle.deployment import champion_path
    from ..files import read_json
    from ..interfaces import InvalidItem
    from ..task.contract import item_from_file

    for path in options.files:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    items = [item_from_file(path) for path in options.files]
    if not items:
        folder, _ = champion_path(options.deployment)
        items = read_json(folder / "example.json")["items"]
    try:
        if options.url:
            with Client(options.url) as client:
                response = client.post("/v1/predict", {"items": items})
        else:
            response = predict_locally(options.deployment, items)
    except InvalidItem as error:
        name = options.files[error.index] if options.files else error.field
        raise UserError(f"{name}: {error}") from None
    print(json.dumps(response, indent=2, ensure_ascii=False))


def predict_locally(deployment: Path, items: list[Any]) -> dict[str, Any]:
    """Predict with the deployed champion, without a server."""
    from ..bundle.deployment import champion_path
    from ..bundle.load import load_bundle
    from ..task.contract import Item

    bundle = load_bundle(*champion_path(deployment))
    parsed = [Item.model_validate(item) for item in items]
    predictions = bundle.contract.decode(bundle.run(bundle.contract.encode(parsed)), parsed)
    return {
        "model": bundle.name,
        "model_version": bundle.version,
        "predictions": [prediction.model_dump() for prediction in predictions],
    }


def run_rollback(options: Namespace) -> None:
    """Remove the challenger, or return to the previous champion.

    Removes the challenger if there is one: the champion gets all traffic. Without one, returns to
    the previous champion. Needs only the deployment folder; MLflow may be down.
    """
    settings = common.read_settings(options)
    from ..release.rollout import rollback

    after, warning = rollback(settings, options.reason)
    if warning:
        print(f"warning: MLflow's aliases were not moved: {warning}", file=sys.stderr)
    print(f"champion: {after.champion.version} (a running server picks it up by itself)")
    publish_afterwards(settings, options.command)
