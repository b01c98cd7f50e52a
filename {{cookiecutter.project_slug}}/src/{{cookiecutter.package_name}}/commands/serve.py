"""Deploy, serve, roll back."""

import gc
import os
import sys
from argparse import Namespace

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
    from ..serving.settings import with_platform

    env = with_platform(os.environ)
    serve(load_settings(ServerSettings, overrides=options.settings, env=env))


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
