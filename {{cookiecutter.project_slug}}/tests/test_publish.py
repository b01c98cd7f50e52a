"""What is published is complete, and servers elsewhere follow it."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.bundle import deployment as folder
from {{ cookiecutter.package_name }}.bundle import remote
from {{ cookiecutter.package_name }}.bundle.deployment import DEPLOYMENT, BundleRef
from {{ cookiecutter.package_name }}.bundle.load import MANIFEST, MODEL, BadBundle
from {{ cookiecutter.package_name }}.bundle.remote import RemoteFolder
from {{ cookiecutter.package_name }}.config import UserError, WorkError, load_settings
from {{ cookiecutter.package_name }}.release.publish import publish
from {{ cookiecutter.package_name }}.serving.puller import STATUS, Puller
from {{ cookiecutter.package_name }}.serving.wiring import ServerSettings

from .conftest import CONFIG
from .servers import (
    challenge,
    failed_start,
    install_copy,
    replace_champion,
    running,
    sample,
    started,
    until,
)

DAY = 24 * 3600


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store: one with folders, and one of objects."""
    if request.param == "directory":
        yield str(tmp_path / "store")
        return
    yield "memory://store"
    RemoteFolder("memory://store")._files.store.clear()


@pytest.fixture
def place(deployment: Path, tmp_path: Path) -> Path:
    """A directory that the deployment is published to."""
    publish(deployment, str(tmp_path / "store"), None)
    return tmp_path / "store"


def bundles_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "bundles").iterdir()}


def follower(directory: Path, url: object, **settings: Any) -> Puller:
    """What pulls for a server whose deployment folder is `directory`."""
    return Puller(ServerSettings(deployment_dir=directory, deployment_url=str(url), **settings))


def content(directory: Path) -> dict[str, bytes]:
    """Published files by their path below a directory."""
    files = [directory / DEPLOYMENT, *directory.glob("bundles/*/*")]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def make_old(bundle: Path, age: float = 2 * DAY) -> None:
    when = time.time() - age
    os.utime(bundle / MANIFEST, (when, when))


def test_deployment_arrives_whole_and_a_second_time_nothing_is_sent(
    deployment: Path, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    challenge(deployment, install_copy(deployment, "2-new"), 0.5)
    publish(deployment, store, None)
    assert "bundles: 2 uploaded" in capsys.readouterr().out
    puller = follower(tmp_path / "follower", store)
    assert puller.look()
    assert content(tmp_path / "follower") == content(deployment)
    publish(deployment, store, None)
    output = capsys.readouterr().out
    assert "bundles: 0 uploaded (0.0 MB), 2 already there" in output
    assert "unchanged: champion" in output
    assert "challenger 2-new (split, 50 %)" in output
    assert not list(tmp_path.glob("*/.*-*")), "no temporary file is left"


def test_interrupted_publish_shows_servers_nothing_and_is_completed_by_the_next(
    deployment: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = RemoteFolder.upload

    def fail(self: RemoteFolder, source: Path, name: str) -> None:
        if source.name == MODEL:
            raise WorkError("the network is gone")
        upload(self, source, name)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "upload", fail)
        with pytest.raises(WorkError, match="network is gone"):
            publish(deployment, store, None)
    assert RemoteFolder(store).read(DEPLOYMENT) is None
    puller = follower(tmp_path / "follower", store)
    assert not puller.look()
    publish(deployment, store, None)
    assert puller.look()
    assert content(tmp_path / "follower") == content(deployment)


def test_file_that_is_missing_in_the_store_is_uploaded_again(deployment: Path, place: Path) -> None:
    before = content(place)
    next(place.glob(f"bundles/*/{MODEL}")).unlink()
    publish(deployment, str(place), None)
    assert content(place) == before


def test_bundle_of_the_same_name_with_other_content_is_never_overwritten(
    deployment: Path, place: Path
) -> None:
    manifest = next(place.glob(f"bundles/*/{MANIFEST}"))
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    replace_champion(deployment, install_copy(deployment, "2-new"))
    before = content(place)
    with pytest.raises(WorkError, match="another bundle of the same name; nothing was published"):
        publish(deployment, str(place), None)
    after = content(place)
    assert {name: after[name] for name in before} == before, "the switch neither"


def test_damaged_bundle_is_not_published(deployment: Path, tmp_path: Path) -> None:
    model = folder.champion_path(deployment)[0] / MODEL
    model.write_bytes(model.read_bytes() + b"x")
    with pytest.raises(BadBundle, match=f"{MODEL}: its content has changed"):
        publish(deployment, str(tmp_path / "store"), None)
    assert not (tmp_path / "store" / DEPLOYMENT).exists()


def test_damaged_previous_champion_does_not_keep_the_new_one_from_being_published(
    deployment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = folder.champion_path(deployment)[0]
    new = install_copy(deployment, "2-new")
    replace_champion(deployment, new)
    (old / MODEL).unlink()
    publish(deployment, str(tmp_path / "store"), None)
    assert "is not published: " in capsys.readouterr().out
    assert follower(tmp_path / "follower", tmp_path / "store").look()
    assert folder.read_deployment(tmp_path / "follower").champion == new
    assert not (tmp_path / "store" / "bundles" / old.name).exists()


def test_upload_that_arrives_damaged_is_not_published(
    deployment: Path, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    upload = RemoteFolder.upload

    def damage(self: RemoteFolder, source: Path, name: str) -> None:
        if source.name == MODEL:
            copy = tmp_path / "copy"
            copy.write_bytes(source.read_bytes()[:-1] + b"x")
            source = copy
        upload(self, source, name)

    monkeypatch.setattr(RemoteFolder, "upload", damage)
    with pytest.raises(BadBundle, match=rf"^{store}/bundles/.*{MODEL}: its content has changed"):
        publish(deployment, store, None)
    assert RemoteFolder(store).read(DEPLOYMENT) is None


def test_server_waits_for_the_first_deployment_and_follows_every_change(
    deployment: Path, store: str, tmp_path: Path, example: dict[str, Any]
) -> None:
    here = tmp_path / "follower"
    with started(here, deployment_url=store) as client:
        puller = follower(here, store)

        def follow() -> None:
            publish(deployment, store, None)
            assert puller.look()

        assert not puller.look()
        assert client.post("/v1/predict", json=example).status_code == 503
        reason = client.get("/readyz").json()["reason"]
        assert reason.endswith("nothing is published yet; run the command publish")
        follow()
        until(lambda: client.get("/readyz").status_code == 200)
        first = folder.read_deployment(deployment).champion
        ready = client.get("/readyz").json()
        assert (ready["model_version"], ready["reason"]) == (first.version, None)
        assert sample(client, "deployment_pull_failures_total") == 1
        assert abs(sample(client, "deployment_pull_timestamp_seconds") - time.time()) < 60
        challenge(deployment, install_copy(deployment, "2-new"), 0.3)
        follow()
        until(lambda: len(client.get("/v1/models").json()["models"]) == 2)
        assert [m["share"] for m in client.get("/v1/models").json()["models"]] == [0.7, 0.3]
        replace_champion(deployment, install_copy(deployment, "3-new"))
        follow()
        until(lambda: client.get("/readyz").json()["model_version"] == "3-new")
        assert cli.main(["rollback", "--config", str(CONFIG), f"paths.publish_to={store}"]) == 0
        assert puller.look()
        until(lambda: client.get("/readyz").json()["model_version"] == first.version)


def half_a_switch(place: Path, _new: BundleRef) -> str:
    (place / DEPLOYMENT).write_bytes((place / DEPLOYMENT).read_bytes()[:40])
    return "is not a deployment"


def missing_bundle(place: Path, new: BundleRef) -> str:
    shutil.rmtree(place / new.bundle)
    return MANIFEST


def missing_file(place: Path, new: BundleRef) -> str:
    (place / new.bundle / MODEL).unlink()
    return MODEL


def changed_file(place: Path, new: BundleRef) -> str:
    (place / new.bundle / MODEL).write_bytes(b"not a model")
    return f"{place}/{new.bundle}/{MODEL}: its content has changed"


def changed_manifest(place: Path, new: BundleRef) -> str:
    manifest = place / new.bundle / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    return "is not the file that was deployed"


def outside(bundle: str) -> Callable[[Path, BundleRef], str]:
    def write(place: Path, _new: BundleRef) -> str:
        switch = json.loads((place / DEPLOYMENT).read_bytes())
        switch["champion"]["bundle"] = bundle
        (place / DEPLOYMENT).write_text(json.dumps(switch))
        return "is not of the form bundles/NAME"

    return write


BAD_PLACES = ("../elsewhere", "bundles/../..", "bundles", "/etc", "bundles/.", "bundles/a/b")


@pytest.mark.parametrize(
    "spoil",
    [half_a_switch, missing_bundle, missing_file, changed_file, changed_manifest]
    + [pytest.param(outside(bundle), id=bundle) for bundle in BAD_PLACES],
)
def test_bad_deployment_in_the_store_is_refused_and_the_old_one_stays(
    deployment: Path, place: Path, tmp_path: Path, spoil: Callable[[Path, BundleRef], str]
) -> None:
    here = tmp_path / "follower"
    puller = follower(here, place)
    assert puller.look()
    before = content(here)
    new = install_copy(deployment, "2-new")
    replace_champion(deployment, new)
    publish(deployment, str(place), None)
    good = content(place)
    reason = spoil(place, new)
    assert not puller.look()
    assert reason in json.loads((here / STATUS).read_bytes())["problem"]
    assert content(here) == before
    assert not list(here.glob(".pull-*")), "no download is left"
    for name, data in good.items():
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    assert puller.look()
    assert folder.read_deployment(here).champion == new
    assert json.loads((here / STATUS).read_bytes())["problem"] is None


def test_store_that_is_down_is_told_and_the_model_serves_on(
    place: Path, tmp_path: Path, example: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    here = tmp_path / "follower"
    puller = follower(here, place)
    assert puller.look()
    with started(here, deployment_url=str(place)) as client:
        place.rename(tmp_path / "gone")
        for _ in range(3):
            assert not puller.look()
        assert client.post("/v1/predict", json=example).status_code == 200
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert f"not pulled: {place}" in ready.json()["reason"]
        assert f"not pulled: {place}" in client.get("/v1/models").json()["problem"]
        assert sample(client, "deployment_pull_failures_total") == 3
        assert caplog.messages.count("deployment not pulled") == 1, "once per problem"
        (tmp_path / "gone").rename(place)
        assert puller.look()
        assert client.get("/readyz").json()["reason"] is None


def test_looks_at_a_store_that_fails_become_rarer(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    puller = follower(tmp_path / "follower", place, pull_seconds=2)
    results = iter([True, *[False] * 8, True, False])
    monkeypatch.setattr(puller, "look", lambda: next(results))
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return len(waits) == 11

    puller.run(Stop())
    longest = [2, 2, 4, 8, 16, 32, 60, 60, 60, 2, 2]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert waits[0] == waits[9] == 2


def test_damaged_or_changed_local_copy_is_made_that_of_the_store_again(
    deployment: Path, place: Path, tmp_path: Path
) -> None:
    here = tmp_path / "follower"
    assert follower(here, place).look()
    model = next(here.glob(f"bundles/*/{MODEL}"))
    model.write_bytes(b"damaged")
    puller = follower(here, place)  # a restart
    assert puller.look()
    assert content(place).items() <= content(here).items()
    assert len(list(here.glob("bundles/*.damaged-*"))) == 1, "nothing is lost"
    (here / DEPLOYMENT).write_text("{}")
    assert puller.look()
    assert content(place).items() <= content(here).items()


def test_two_servers_on_a_machine_have_folders_of_their_own(
    deployment: Path, place: Path, tmp_path: Path
) -> None:
    pullers = [follower(tmp_path / name, place) for name in ("one", "two")]
    assert all(puller.look() for puller in pullers)
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(deployment)


def test_only_old_bundles_that_nothing_names_are_pruned(
    deployment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, here = tmp_path / "store", tmp_path / "follower"
    first = folder.read_deployment(deployment).champion
    names = ["2-old", "3-old", "4-young", "5-previous", "6-champion", "7-challenger"]
    refs = {name: install_copy(deployment, name) for name in names}
    for name in names[:3]:  # once published, pulled and left by a rollback
        for place in (store, here):
            shutil.copytree(deployment / "bundles" / name, place / "bundles" / name)
    replace_champion(deployment, refs["5-previous"])
    replace_champion(deployment, refs["6-champion"])
    challenge(deployment, refs["7-challenger"], 0.5)
    publish(deployment, str(store), None)
    puller = follower(here, store, keep_bundles=None)
    assert puller.look()
    for number, name in enumerate(names):
        for place in (store, here, deployment):
            if name != "4-young" and (place / "bundles" / name).exists():
                make_old(place / "bundles" / name, 10 * DAY - number)
    listed = [bundles_in(place) for place in (store, here)]
    publish(deployment, str(store), None)
    assert [bundles_in(place) for place in (store, here)] == listed

    named = {Path(first.bundle).name, *names[3:]}
    publish(deployment, str(store), 2)
    assert bundles_in(store) == {"3-old", "4-young", *named}
    assert f"removed: {store}/bundles/2-old" in capsys.readouterr().out
    publish(deployment, str(store), 0)
    assert bundles_in(store) == {"4-young", *named}
    assert folder.prune_bundles(here, 1) == ["bundles/2-old", "bundles/3-old"]
    assert bundles_in(here) == {"4-young", "6-champion", "7-challenger"}
    assert folder.prune_bundles(deployment, None) == []
    assert folder.prune_bundles(deployment, 0) == ["bundles/2-old", "bundles/3-old"]
    (here / DEPLOYMENT).write_text("{}")
    make_old(here / "bundles" / "4-young")
    assert folder.prune_bundles(here, 0) == [], "without knowing what is named, nothing goes"


def test_puller_prunes_what_a_later_deployment_does_not_name(
    deployment: Path, place: Path, tmp_path: Path
) -> None:
    here = tmp_path / "follower"
    shutil.copytree(deployment / "bundles", here / "bundles")
    (here / "bundles" / "left").mkdir()
    for path in next(here.glob("bundles/*/manifest.json")).parent.iterdir():
        shutil.copy(path, here / "bundles" / "left")
    make_old(here / "bundles" / "left")
    assert follower(here, place, keep_bundles=0).look()
    assert content(here) == content(deployment)


def test_change_is_published_afterwards_or_the_command_says_what_is_missing(
    deployment: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = folder.read_deployment(deployment).champion
    replace_champion(deployment, install_copy(deployment, "2-new"))
    rollback = ["rollback", "--config", str(CONFIG)]
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert cli.main([*rollback, f"paths.publish_to={blocked}"]) == 1
    assert folder.read_deployment(deployment).champion == first, "changed here"
    message = "changed here but not published; repeat with: "
    assert re.search(f"error: {message}.* publish", capsys.readouterr().err)
    assert cli.main(["publish", "--config", str(CONFIG), f"paths.publish_to={place}"]) == 0
    assert content(place)[DEPLOYMENT] == content(deployment)[DEPLOYMENT]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ([], "error: TO: give a directory or a URL, or set paths.publish_to"),
        (["foo://bucket"], "error: foo://bucket: Protocol not known: foo"),
        (["sftp://a:secret@host/models"], "error: command line: paths.publish_to: give the pass"),
    ],
)
def test_place_that_cannot_be_is_refused_in_one_line(
    work: Path, to: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["publish", *to, "--config", str(CONFIG)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(message)
    assert "secret" not in output.err + output.out


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("s3://bucket", 'the extra "s3": pip install s3fs'),
        ("gs://bucket", 'the extra "gcs": pip install gcsfs'),
        ("az://bucket", 'the extra "azure": pip install adlfs'),
        ("sftp://host/folder", 'the extra "sftp": pip install fsspec paramiko'),
        ("folder", "fsspec: pip install fsspec"),
    ],
)
def test_missing_library_is_named(url: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(_protocol: str) -> None:
        raise ImportError

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=f"{url}: needs {re.escape(named)}$"):
        remote.require_library(url)


def test_server_without_the_library_or_a_writable_folder_does_not_start(
    deployment: Path, tmp_path: Path
) -> None:
    code, lines = failed_start(deployment, deployment_url="foo://bucket")
    assert (code, lines) == (2, ["error: foo://bucket: Protocol not known: foo"])
    file = tmp_path / "file"
    file.write_text("no folder")
    code, (line,) = failed_start(file, deployment_url=str(tmp_path / "store"))
    assert code == 2
    assert line.startswith(f"error: {file}: cannot be written, and deployment_url needs that")


def test_empty_variable_is_no_store() -> None:
    assert load_settings(ServerSettings, env={"APP_DEPLOYMENT_URL": ""}).deployment_url is None


@pytest.mark.skipif(not Path("/proc").exists(), reason="workers are counted in /proc")
def test_real_server_with_workers_follows_a_store(
    deployment: Path, place: Path, tmp_path: Path, example: dict[str, Any]
) -> None:
    here = tmp_path / "follower" / "deployment"
    here.mkdir(parents=True)
    settings = {"deployment_url": place, "pull_seconds": 0.05, "workers": 2}
    with running(here, **settings) as server:
        assert server.send("/v1/predict", example).status == 200
        replace_champion(deployment, install_copy(deployment, "2-new"))
        publish(deployment, str(place), None)
        versions = [
            until(lambda: server.send("/readyz").json["model_version"] == "2-new")
            for _ in range(10)
        ]
        assert all(versions)
        (place / DEPLOYMENT).write_text("{")
        reason = until(lambda: server.send("/readyz").json["reason"])
        assert "is not a deployment" in reason
        assert server.send("/v1/predict", example).json["model_version"] == "2-new"
        server.process.terminate()
        assert server.process.wait(120) == 0
    assert sum(line["message"] == "deployment pulled" for line in server.lines()) == 2


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on this machine; skipped without one, saying how to get it."""
    why = "an S3 server is not installed: pip install s3fs 'moto[server]'"
    s3fs = pytest.importorskip("s3fs", reason=why)
    pytest.importorskip("moto.server", reason=why)
    log = tmp_path / "moto.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "moto.server", "-p", "0"]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        address = until(lambda: re.search(r"http://[\d.]+:\d+", log.read_text()))
        assert address
        monkeypatch.setenv("AWS_ENDPOINT_URL", address[0])
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"AWS_{name}", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("models")
        yield "s3://models/here"
    finally:
        process.kill()
        process.wait()


def test_server_follows_a_bucket(deployment: Path, bucket: str, tmp_path: Path) -> None:
    here = tmp_path / "follower" / "deployment"
    here.mkdir(parents=True)
    publish(deployment, bucket, None)
    with running(here, deployment_url=bucket, pull_seconds=0.1) as server:
        left = install_copy(deployment, "2-new")
        challenge(deployment, left, 0.5, "shadow")
        publish(deployment, bucket, None)
        until(lambda: len(server.send("/v1/models").json["models"]) == 2)
        assert cli.main(["rollback", "--config", str(CONFIG), f"paths.publish_to={bucket}"]) == 0
        until(lambda: len(server.send("/v1/models").json["models"]) == 1)
        assert left.bundle in RemoteFolder(bucket).modified()
        RemoteFolder(bucket).remove(left.bundle)
        assert left.bundle not in RemoteFolder(bucket).modified()
        files = RemoteFolder(bucket)._files
        files.pipe_file(f"models/here/{DEPLOYMENT}", b"{")
        until(lambda: server.send("/readyz").json["reason"])
        assert server.ready()


def test_bucket_that_does_not_exist_is_not_created(deployment: Path, bucket: str) -> None:
    with pytest.raises(WorkError, match=r"^s3://other/.*: The specified bucket does not exist"):
        publish(deployment, "s3://other/here", None)
