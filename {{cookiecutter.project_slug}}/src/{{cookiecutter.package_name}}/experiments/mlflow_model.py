"""Make a bundle a model of MLflow: `pyfunc.load_model` and `mlflow models serve` can use it."""

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import mlflow
import yaml

from ..bundle import load, pyfunc
from ..bundle.deployment import utc_now
from ..config import WorkError
from ..files import read_json, write_json
from ..task.contract import Item

BUNDLE, CODE, EXAMPLE, REQUIREMENTS = "bundle", "code", "input_example.json", "requirements.txt"
TYPES = {str: "string", bool: "boolean", int: "long", float: "double"}
# Predicts the example, then prints what that took to import.
IMPORTED = """\
import importlib, json, sys
before = set(sys.modules)
model = importlib.import_module(sys.argv[1])._load_pyfunc(sys.argv[2])
model.predict(json.loads(sys.argv[3]))
print(*{name.partition(".")[0] for name in {*sys.modules} - before})
"""


def write_mlflow_model(bundle: Path, run_id: str, folder: Path) -> None:
    """Write a bundle, the package that reads it and MLflow's description of both into `folder`.

    Raises WorkError when a process of its own cannot predict the bundle's example.
    """
    package = Path(sys.modules[__name__.partition(".")[0]].__path__[0])
    shutil.copytree(bundle, folder / BUNDLE)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / CODE / package.name, ignore=ignored)
    items: list[dict[str, Any]] = read_json(bundle / "example.json")["items"]
    write_json(folder / EXAMPLE, items)
    write_json(folder / f"serving_{EXAMPLE}", {"inputs": items})

    libraries = _pinned_libraries(bundle, items)
    (folder / REQUIREMENTS).write_text("\n".join(libraries) + "\n", encoding="utf-8")
    python = platform.python_version()
    from_file = [f"-r {REQUIREMENTS}"]
    _write_yaml(folder / "python_env.yaml", {"python": python, "dependencies": from_file})
    dependencies = [f"python={python}", "pip", {"pip": libraries}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": dependencies}
    _write_yaml(folder / "conda.yaml", conda)

    manifest = load.verify_bundle(bundle)
    model = {
        "artifact_path": "model",
        "flavors": {
            "onnx": {
                "data": f"{BUNDLE}/{load.MODEL}",
                "onnx_version": importlib.metadata.version("onnx"),
                "providers": ["CPUExecutionProvider"],
                "code": CODE,
            },
            "python_function": {
                "loader_module": pyfunc.__name__,
                "data": BUNDLE,
                "code": CODE,
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "python_version": python,
            },
        },
        "metadata": {"bundle": manifest.version, "task": manifest.task},
        "mlflow_version": mlflow.__version__,
        "run_id": run_id,
        "saved_input_example_info": {
            "artifact_path": EXAMPLE,
            "serving_input_path": f"serving_{EXAMPLE}",
            "type": "json_object",
        },
        "signature": {"inputs": json.dumps(_columns()), "outputs": None, "params": None},
        "utc_time_created": utc_now(),
    }
    _write_yaml(folder / "MLmodel", model)


def _columns() -> list[dict[str, Any]]:
    """Describe an item's fields to MLflow; what is no plain value has any type, as the contract
    checks it anyway."""
    columns: list[dict[str, Any]] = []
    for name, field in Item.model_fields.items():
        kinds = {field.annotation, *get_args(field.annotation)} & TYPES.keys()
        plain = TYPES[kinds.pop()] if len(kinds) == 1 else "any"
        columns.append({"name": name, "type": plain, "required": field.is_required()})
    return columns


def _pinned_libraries(bundle: Path, items: list[dict[str, Any]]) -> list[str]:
    """List the libraries that a prediction imports, and those that MLflow needs to load it."""
    arguments = [pyfunc.__name__, str(bundle), json.dumps(items)]
    command = [sys.executable, "-c", IMPORTED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise WorkError(f"{bundle}: cannot predict its example in a process of its own: {reason}")
    sources = importlib.metadata.packages_distributions()
    own = pyfunc.__name__.partition(".")[0]
    modules = {*done.stdout.split()} - {own}
    names = {"onnx", *(name for module in modules for name in sources.get(module, ()))}
    pins = {f"{name}=={importlib.metadata.version(name)}" for name in names}
    return sorted(pins | {f"mlflow=={mlflow.__version__}"}, key=str.lower)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
