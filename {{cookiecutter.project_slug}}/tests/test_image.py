"""The image's build: what it copies, what it removes, how a container is started."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[1]


def dockerfile() -> str:
    return (PROJECT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture
def slim() -> ModuleType:
    """The script that removes what a server never loads."""
    spec = importlib.util.spec_from_file_location("slim", PROJECT / "scripts" / "slim.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_argument_of_the_container_is_a_command() -> None:
    for stage in ("train", "server"):
        text = re.split(r"^FROM ", dockerfile().partition(f" AS {stage}\n")[2], flags=re.M)[0]
        (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.M)
        (command,) = re.findall(r"^CMD (.+)$", text, re.M)
        assert len(json.loads(entry)) == 1, "the project's command alone"
        assert json.loads(command)[0] in ("serve", "train", "retrain")
    assert json.loads(command) == ["serve"], "as SageMaker calls it too"


def test_everything_that_the_build_copies_is_sent_to_it() -> None:
    sent = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(), re.M)
    assert copied
    for name in " ".join(copied).split():
        assert f"!{name}" in sent, name
        assert (PROJECT / name).exists(), name


def test_removed_are_tests_stubs_and_libraries_that_no_compiled_file_names(
    slim: ModuleType, tmp_path: Path
) -> None:
    files = {
        "one/core.so": b"needs libused-1a.so.2",
        "one/core.py": b"",
        "one/core.pyi": b"",
        "one/__pycache__/core.cpython-312.pyc": b"",
        "one/deep/tests/test_core.py": b"",
        "one.libs/libused-1a.so.2": b"needs liblater-3c.so",
        "one.libs/liblater-3c.so": b"",
        "one.libs/libround-4d.so": b"needs libtrip-5e.so",  # both name each other, nobody else does
        "one.libs/libtrip-5e.so": b"needs libround-4d.so",
        "onnxruntime/capi/libonnxruntime.so.1.2": b"itself: libonnxruntime.so.1",
        "onnxruntime/capi/state.so": b"",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    slim.remove(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "one/core.so",
        "one/core.py",
        "one/__pycache__/core.cpython-312.pyc",
        "one.libs/libused-1a.so.2",
        "one.libs/liblater-3c.so",
        "onnxruntime/capi/state.so",
    }
    (tmp_path / "onnxruntime/capi/libonnxruntime.so.1.2").touch()
    (tmp_path / "onnxruntime/capi/state.so").write_bytes(b"an upgrade needs libonnxruntime.so.1")
    slim.remove(tmp_path)
    assert (tmp_path / "onnxruntime/capi/libonnxruntime.so.1.2").exists()


def test_check_names_the_compiled_file_that_cannot_be_loaded(
    slim: ModuleType, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    assert str(broken) in slim.load_error(Path(sys.executable), broken)
    programs = Path(sys.executable).parent
    with pytest.raises(SystemExit, match=r"broken\.so cannot be loaded"):
        slim.check(tmp_path, programs, "none")
