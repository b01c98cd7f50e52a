"""Publish the deployment folder: copy it to where servers pull it from."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..bundle.deployment import (
    DEPLOYMENT,
    BundleRef,
    Deployment,
    deployment_lock,
    parse_deployment,
    prunable,
)
from ..bundle.load import MANIFEST, BadBundle, read_manifest, sha256, verify_bundle
from ..bundle.remote import RemoteFolder, checked_bundle, fetch_bundle
from ..config import WorkError
from ..progress import ProgressLines


def publish(folder: Path, url: str, keep: int | None, echo: Callable[[str], None] = print) -> None:
    """Copy the bundles that `deployment.json` names to `url`, verify them, then replace the file
    there: servers take it at their next look. Finally delete all but `keep` of the bundles there
    that it does not name (None keeps all).

    What is there already is skipped, so an interrupted publish is repeated. Raises WorkError when
    a bundle of the same name has other content there, UserError without the store's library.
    """
    started, remote = time.monotonic(), RemoteFolder(url)
    # The later of two publishes must also be the one that has read the later deployment.
    with deployment_lock(folder, ".publish.lock"):
        content, deployed = _read(folder)
        uploaded = [_publish_bundle(folder, ref, remote, echo) for ref in deployed.active]
        for ref in deployed.previous:  # no server needs them before a rollback is published
            try:
                uploaded.append(_publish_bundle(folder, ref, remote, echo))
            except BadBundle as error:
                echo(f"previous champion {ref.version} is not published: {error}")
        before = remote.read(DEPLOYMENT)
        if before != content:
            remote.write(DEPLOYMENT, content)
        removed = prunable(remote.modified(), deployed, keep) if keep is not None else []
        for bundle in removed:
            remote.remove(bundle)
            echo(f"removed: {remote.at(bundle)}")
    sent = [size for size in uploaded if size]
    echo(
        f"bundles: {len(sent)} uploaded ({sum(sent) / 1e6:.1f} MB), {len(uploaded) - len(sent)} "
        f"already there, {len(removed)} removed; {time.monotonic() - started:.1f} s"
    )
    names = [f"champion {deployed.champion.version}"]
    if test := deployed.challenger:
        names.append(f"challenger {test.version} ({test.mode}, {100 * test.share:g} %)")
    state = "unchanged" if before == content else "published"
    echo(f"{state}: {', '.join(names)} at {remote.at(DEPLOYMENT)}")


def _read(folder: Path) -> tuple[bytes, Deployment]:
    path = folder / DEPLOYMENT
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadBundle(f"{path}: nothing is deployed yet; run the command deploy") from None
    return content, parse_deployment(content, path)


def _publish_bundle(
    folder: Path, ref: BundleRef, remote: RemoteFolder, echo: Callable[[str], None]
) -> int:
    """Upload a bundle unless it is there; return the uploaded bytes."""
    # 1. Is it there, complete or in parts?
    bundle = checked_bundle(ref, folder / DEPLOYMENT)
    place = folder / bundle
    names = [*read_manifest(place, ref.manifest_sha256).files, MANIFEST]
    paths = [place / name for name in names]
    sizes = {path.name: path.stat().st_size for path in paths if path.exists()}
    there = remote.sizes(bundle)
    if MANIFEST in there:
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, MANIFEST)
            remote.download(f"{bundle}/{MANIFEST}", copy)
            if sha256(copy) != ref.manifest_sha256:
                raise WorkError(
                    f"{remote.at(bundle)}: is another bundle of the same name; nothing was "
                    "published. Move it away, or publish to another place"
                )
        if {*names} <= there.keys() and sizes.items() <= there.items():
            return 0
    # 2. Upload what was verified, and the manifest last: it makes the bundle complete.
    verify_bundle(place, ref.manifest_sha256)
    size, progress = sum(sizes.values()), ProgressLines(echo)
    echo(f"uploading {bundle} ({size / 1e6:.1f} MB) …")
    for path in paths:
        remote.upload(path, f"{bundle}/{path.name}")
        progress(f"uploaded {path.name} ({sizes[path.name] / 1e6:.1f} MB)")
    # 3. Read it back.
    temporary = Path(tempfile.mkdtemp())
    try:
        fetch_bundle(remote, ref, temporary / "bundle")
    finally:
        shutil.rmtree(temporary)
    return size
