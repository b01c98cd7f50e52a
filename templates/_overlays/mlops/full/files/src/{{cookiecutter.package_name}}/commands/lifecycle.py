"""Replace the model: retrain, promote."""

from argparse import Namespace
from dataclasses import asdict

from ..config import WorkError
from .common import CommandGroup, add_config_options, add_reason_option, read_settings
from .publish import publish_afterwards


def register(group: CommandGroup) -> None:
    parser = group.add(run_retrain, "--if-needed", "retrain.share=0.5")
    text = "only for drift, lower quality, enough new labels, or an old model"
    parser.add_argument("--if-needed", action="store_true", help=text)
    text = "even while an A/B test is running; discards an unfinished retrain"
    parser.add_argument("--force", action="store_true", help=text)
    text = "start the A/B test whatever the gate says, and why, for the history"
    parser.add_argument("--override", metavar="REASON", help=text)
    add_config_options(parser)
    parser = group.add(run_promote, "", '--force --reason "for the demo"')
    parser.add_argument("--force", action="store_true", help="whatever the A/B test says")
    add_reason_option(parser)
    add_config_options(parser)


def run_retrain(options: Namespace) -> None:
    """Train a challenger on logged feedback and start its A/B test.

    Trains on the original data plus labelled requests from the log, compares the new model with the
    champion on held-out data that neither was trained on, and gives it a share of the traffic if it
    is better. Safe to run from any scheduler: an interrupted retrain is resumed, and a second one
    running at the same time does nothing. The exit code is also 0 if nothing is due and if the new
    model is rejected.
    """
    settings = read_settings(options)
    from ..lifecycle.retrain import retrain

    retrain(
        settings, options.if_needed, options.force, f"{options.command} retrain", options.override
    )
    publish_afterwards(settings, options.command)


def run_promote(options: Namespace) -> None:
    """Make the challenger the champion if the A/B test says so; no restart is needed."""
    settings = read_settings(options)
    from ..bundle.deployment import read_deployment
    from ..monitoring import online
    from ..release.rollout import promote

    deployed, verdict = read_deployment(settings.paths.deployment), None
    try:
        if deployed.challenger:
            verdict = asdict(online.measure_ab_test(settings, deployed)[1])
    except WorkError as error:
        if not options.force:
            raise
        verdict = {"decision": "unknown", "reason": str(error)}
    after = promote(settings, deployed, verdict, options.reason, options.force)
    print(f"champion: {after.champion.version} (a running server picks it up by itself)")
    print(f"undo: {options.command} rollback")
    publish_afterwards(settings, options.command)
