"""A deployment folder elsewhere: in a directory, on a host or in a bucket, by a URL of fsspec.

It holds `deployment.json` and `bundles/` as the local one does. `publish` writes it, servers with
`deployment_url` pull from it. Bundles come first and `deployment.json` last, so whoever reads that
file finds what it names.
"""

import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import UserError, WorkError
from .deployment import BundleRef
from .load import MANIFEST, BadBundle, read_manifest, verify_bundle

# Stores with folders and a rename that replaces a file; all others replace an object with one PUT.
WITH_FOLDERS = {"file", "local", "sftp", "ssh", "smb", "hdfs"}
# The extra and the packages that a protocol needs
EXTRAS = {"s3": ("s3", "s3fs"), **dict.fromkeys(("gs", "gcs"), ("gcs", "gcsfs"))}
EXTRAS |= dict.fromkeys(("az", "abfs"), ("azure", "adlfs"))
EXTRAS |= dict.fromkeys(("sftp", "ssh"), ("sftp", "fsspec paramiko"))


class RemoteFolder:
    """A deployment folder by its URL. All methods raise WorkError, with the URL and the reason."""

    def __init__(self, url: str) -> None:
        """Connect to the store. Raises UserError for an unknown one, or without its library."""
        self.url = url.rstrip("/") or url
        require_library(url)
        import fsspec

        try:  # a connection of its own: a cached one may have been lost
            self._files, self._root = fsspec.url_to_fs(self.url, skip_instance_cache=True)
        except Exception as error:  # each library raises its own kinds
            raise WorkError(f"{url}: {as_line(error)}") from None
        names = self._files.protocol
        self._has_folders = bool(WITH_FOLDERS & {*([names] if isinstance(names, str) else names)})

    def at(self, name: str) -> str:
        """Return the URL of a file or folder."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Read a small file; None without it."""
        with self._reported(name):
            try:
                return self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file, atomically where the store can."""
        with self._replaced(name) as path:
            self._files.pipe_file(path, content)

    def upload(self, source: Path, name: str) -> None:
        """Copy a file to the store."""
        with self._replaced(name) as path:
            self._files.put_file(str(source), path)

    def download(self, name: str, place: Path) -> None:
        """Copy a file from the store."""
        with self._reported(name):
            self._files.get_file(self._path(name), str(place))

    def sizes(self, folder: str) -> dict[str, int]:
        """Map the names of the files in a folder to their bytes; empty without the folder."""
        return {name: int(info["size"] or 0) for name, info in self._list(folder).items()}

    def modified(self) -> dict[str, float]:
        """Map the complete bundles, `bundles/…`, to the times (s) at which they were written."""
        bundles = (f"bundles/{name}" for name in self._list("bundles"))
        times = {}
        for bundle in bundles:
            if MANIFEST in self._list(bundle):
                with self._reported(bundle):
                    when = self._files.modified(self._path(f"{bundle}/{MANIFEST}"))
                    times[bundle] = when.timestamp()
        return times

    def remove(self, bundle: str) -> None:
        """Delete a bundle, its manifest first: what is half deleted is no bundle."""
        with self._reported(bundle):
            self._files.rm_file(self._path(f"{bundle}/{MANIFEST}"))
            self._files.rm(self._path(bundle), recursive=True)

    def _list(self, folder: str) -> dict[str, Any]:
        with self._reported(folder):
            self._files.invalidate_cache()
            try:
                listed = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {info["name"].rstrip("/").rpartition("/")[2]: info for info in listed}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _replaced(self, name: str) -> Iterator[str]:
        """Yield the path to write to. With folders it is a file beside, moved into place after."""
        path = self._path(name)
        with self._reported(name):
            if not self._has_folders:
                yield path
                return
            folder, _, last = path.rpartition("/")
            self._files.makedirs(folder, exist_ok=True)
            temporary = f"{folder}/.{uuid.uuid4().hex[:8]}-{last}"
            try:
                yield temporary
                self._files.mv(temporary, path)
            except BaseException:
                if self._files.exists(temporary):
                    self._files.rm_file(temporary)
                raise

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise WorkError(f"{self.at(name)}: {as_line(error)}") from None


def require_library(url: str) -> None:
    """Raise UserError when the library for this URL is not installed, or there is none."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    try:
        import fsspec  # an extra: many servers get their bundles in another way

        fsspec.get_filesystem_class(protocol)
    except ImportError:
        extra, packages = EXTRAS.get(protocol, ("", "fsspec"))
        what = f'the extra "{extra}"' if extra else packages
        raise UserError(f"{url}: needs {what}: pip install {packages}") from None
    except ValueError as error:
        raise UserError(f"{url}: {as_line(error)}") from None
    logging.getLogger("paramiko").setLevel("CRITICAL")  # what it logs it also raises


def as_line(error: Exception) -> str:
    """Return the message of a library's error in one line of bounded length."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:300] or type(error).__name__


def checked_bundle(ref: BundleRef, source: object) -> str:
    """Return the bundle's place, `bundles/NAME`, in both folders. Raises BadBundle for others."""
    if not re.fullmatch(r"bundles/[^./\\][^/\\]*", ref.bundle):
        raise BadBundle(f"{source}: {ref.bundle!r} is not of the form bundles/NAME")
    return ref.bundle


def fetch_bundle(remote: RemoteFolder, ref: BundleRef, place: Path) -> int:
    """Download a bundle into a new folder, verify every file, and return its bytes.

    Raises BadBundle, which names the remote file.
    """
    bundle = checked_bundle(ref, remote.url)
    place.mkdir(parents=True)
    try:
        remote.download(f"{bundle}/{MANIFEST}", place / MANIFEST)
        for name in read_manifest(place, ref.manifest_sha256).files:
            remote.download(f"{bundle}/{name}", place / name)
        verify_bundle(place, ref.manifest_sha256)
    except BadBundle as error:
        shutil.rmtree(place)
        raise BadBundle(str(error).replace(str(place), remote.at(bundle))) from None
    return sum(path.stat().st_size for path in place.iterdir())
