"""What the servers need: an environment per family, and models trained by the project itself.

Everything lies in build/bench and is kept until what it was made of changes.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # of the servers too: nobody pays for reports
TEMPLATE = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
BUILD = TEMPLATE / "build" / "bench"
PROJECT = BUILD / "project" / "bench"  # baked, its package has the same name
OURS = "ours"
WEB = ["fastapi", "uvicorn", "uvloop", "httptools"]
# The families share no environment, as nobody's would. The first three take the versions that the
# project was tested with, the frameworks those that they ask for themselves.
FAMILIES = {
    "hello": WEB,
    "onnx": [*WEB, "numpy", "onnxruntime"],
    "torch": [*WEB, "numpy", "safetensors", "torch~=2.13.0"],
    "litserve": ["litserve", "uvloop", "httptools", "numpy", "safetensors", "torch~=2.13.0"],
    "bentoml": ["bentoml", "uvloop", "httptools", "numpy", "safetensors", "torch~=2.13.0"],
}
TESTED = ("hello", "onnx", "torch", OURS)
NAMED = [*WEB, "pydantic", "numpy", "onnxruntime", "torch", "litserve", "bentoml"]
INSTALLER = {"pip", "setuptools", "pkg_resources", "__pycache__"}
ITEMS = 8  # different requests
# Width of the first convolutions: a tiny network, and one of about 5 ms an item on one core.
WIDTHS = {"tiny": 24, "heavy": 800}


@dataclass(frozen=True)
class Model:
    """A trained model as the project deploys it, and the same weights for the peers."""

    name: str
    folder: Path  # deployment/ model.onnx weights.safetensors about.json bodies reference.json

    @property
    def bodies(self) -> Path:
        return self.folder / "bodies"  # a request's body in each line

    def reference(self) -> list[dict[str, float]]:
        """The right probabilities, by label, for each of the bodies."""
        return json.loads((self.folder / "reference.json").read_text(encoding="utf-8"))


def python(family: str) -> Path:
    """The interpreter of a family's environment."""
    return BUILD / "environments" / family / ".venv" / "bin" / "python"


def make(family: str) -> None:
    """The environment of a family, made by the script that makes the generated project's own."""
    folder = BUILD / "environments" / family
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["dependencies"] if family == OURS else FAMILIES[family]
    text = f"[dependency-groups]\ndev = {json.dumps(wanted)}\n"
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    if family in TESTED:
        shutil.copy(PROJECT / "constraints.txt", folder)
    run(folder, sys.executable, str(PROJECT / "scripts" / "setup.py"), str(folder))


def megabytes(family: str) -> float:
    """The size of an environment's files, ours with its package.

    The installer's own and byte code are left out: whether they are there is up to the installer.
    """
    roots = [python(family).parents[1], *([PROJECT / "src"] if family == OURS else [])]
    files = (file for root in roots for file in root.rglob("*") if not file.is_symlink())
    return sum(file.stat().st_size for file in files if not INSTALLER & set(file.parts)) / 1e6


def versions(family: str) -> str:
    """The versions of an environment's packages, of those that matter."""
    code = (
        "import importlib.metadata as m, sys; d = {x.name.lower(): x.version for x in "
        "m.distributions()}; print(*(f'{n} {d[n]}' for n in sys.argv[1:] if n in d), sep=', ')"
    )
    command = [python(family), "-c", code, *NAMED]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def bake() -> None:
    """The project as its template is now, with the environment that training needs."""
    shutil.rmtree(PROJECT / "src", ignore_errors=True)  # no file of an older template may stay
    answers = ["project_name=Bench", "task=image-classification"]
    options = ["--no-input", "--default-config", "--overwrite-if-exists", "--output-dir"]
    command = [sys.executable, "-m", "cookiecutter", *options, str(PROJECT.parent), str(TEMPLATE)]
    run(TEMPLATE, *command, *answers)
    run(PROJECT, sys.executable, "scripts/setup.py", "--no-dev")


def model(name: str) -> Model:
    """Train, evaluate and deploy with the project's commands, in a folder of the model's own."""
    folder = BUILD / "models" / name
    stamp, state = folder / "stamp", _fingerprint(name)
    if stamp.exists() and stamp.read_text() == state:
        return Model(name, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = [f"model.width={WIDTHS[name]}", "model.members=1"]
    settings += ["train.epochs=2", "train.seeds=[0]"]
    # A copy outside of the project: with it, the commands work in this folder.
    config = ["--config", shutil.copy(PROJECT / "configs" / "default.yaml", folder)]
    # Two epochs: what it answers must be the same everywhere, not right.
    for command in (["train"], ["evaluate"], ["deploy", "--force", "--reason", "for speed alone"]):
        run(folder, str(PROJECT / ".venv" / "bin" / "bench"), *command, *config, *settings)
    _export(folder, WIDTHS[name])
    run(folder, str(PROJECT / ".venv" / "bin" / "python"), str(PEERS / "reference.py"))
    stamp.write_text(state)
    return Model(name, folder)


def _export(folder: Path, width: int) -> None:
    """The model's files for the peers, and the requests."""
    deployment = json.loads((folder / "deployment" / "deployment.json").read_text())
    bundle = folder / "deployment" / deployment["champion"]["bundle"]
    (weights,) = folder.glob("runs/*/seed-0/best.safetensors")
    shutil.copy(weights, folder / "weights.safetensors")
    shutil.copy(bundle / "model.onnx", folder)
    labels = json.loads((bundle / "contract.json").read_text())["labels"]
    (folder / "about.json").write_text(json.dumps({"width": width, "labels": labels}))
    example = json.loads((bundle / "example.json").read_text())["items"][0]["pixels"]
    draw = random.Random(0)
    pixels = [
        [[round(min(1.0, value * draw.uniform(0.5, 1.2)), 4) for value in row] for row in example]
        for _ in range(ITEMS)
    ]
    lines = [json.dumps({"items": [{"pixels": rows}]}) + "\n" for rows in pixels]
    (folder / "bodies").write_text("".join(lines))


def _fingerprint(name: str) -> str:
    """Changes with everything that makes the model."""
    digest = hashlib.sha256(f"{name} {WIDTHS[name]}".encode())
    sources = [*(PROJECT / "src").rglob("*.py"), *PEERS.glob("*.py"), Path(__file__)]
    for file in sorted([*sources, PROJECT / "constraints.txt"]):
        if "serving" not in file.relative_to(TEMPLATE).parts[4:]:  # it has no part in training
            digest.update(file.read_bytes())
    return digest.hexdigest()


def run(folder: Path, *command: str) -> None:
    """Run a command; its output is shown only when it fails."""
    quiet = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        command, cwd=folder, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        sys.exit(f"error: {' '.join(command)} ended with code {done.returncode}")
