"""Publish what is deployed, for servers elsewhere that follow it."""

import re
from argparse import Namespace

from ..config import UserError, WorkError
from ..task.settings import Settings
from . import common


def register(group: common.CommandGroup) -> None:
    parser = group.add(run_publish, "s3://models/digits", "/mnt/models", "sftp://host/srv/models")
    text = "directory or URL of fsspec: s3://, gs://, az://, sftp://, … (default: paths.publish_to)"
    parser.add_argument("to", nargs="?", metavar="TO", help=text)
    common.add_config_options(parser)


def run_publish(options: Namespace) -> None:
    """Copy the deployment to a directory, a host or a bucket that servers pull from.

    Copies the bundles first and deployment.json last, so a server with APP_DEPLOYMENT_URL=TO takes
    the whole deployment or none of it: champion, challenger and its share of the traffic. Skips
    what is there, reads back what it uploads, and never overwrites another bundle. With
    paths.publish_to every command that changes the deployment publishes it afterwards.
    """
    if options.to and not re.match(r"[a-z_]+\.[\w.]+=", options.to):
        options.settings = [f"paths.publish_to={options.to}", *options.settings]
    elif options.to:  # a setting that no TO precedes
        options.settings = [options.to, *options.settings]
    settings = common.read_settings(options)
    if (to := settings.paths.publish_to) is None:
        raise UserError("TO: give a directory or a URL, or set paths.publish_to")
    from ..release.publish import publish

    publish(settings.paths.deployment, to, settings.paths.keep_bundles)


def publish_afterwards(settings: Settings, program: str) -> None:
    """Publish a change of the deployment if `paths.publish_to` is set. Raises WorkError."""
    if settings.paths.publish_to is None:
        return
    from ..release.publish import publish

    try:
        publish(settings.paths.deployment, settings.paths.publish_to, settings.paths.keep_bundles)
    except (UserError, WorkError) as error:
        raise WorkError(
            f"{error}\nchanged here but not published; repeat with: {program} publish"
        ) from None
